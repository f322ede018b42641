"""A call on grpc.aio.server, which ends with the RPC's own task."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from typing import TYPE_CHECKING, Any, Final, cast

import grpc

from .call import PARSE_DETAILS, SERIALIZE_DETAILS, ObservedHandler, PastContext
from .handler import Behavior, RecordingContext
from .uncaught import uncaught

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from ..calls.observation import Observation

_letting_go: Final = threading.Lock()
_RPC_TASK: Final = "HandleExceptions["
"""How grpc begins the name of an RPC's own task."""


class AioObservedHandler(ObservedHandler):
    """
    A call on grpc.aio.server.

    `_task` is the one whose end is the call's: the RPC's own, as far as anything shows it. Interceptors before us may
    await the chain, or run the handler, in tasks of their own.
    """

    __slots__ = ("_blocking", "_cancelled_itself", "_over", "_remaining", "_task")

    codec_error_code = grpc.StatusCode.UNKNOWN
    none_is_error = False
    accepts_int_codes = True
    ok_stands = False

    def __init__(self, handler: grpc.RpcMethodHandler[Any, Any], observation: Observation) -> None:
        super().__init__(handler, observation)
        self._cancelled_itself = False
        self._over = False
        self._blocking = False
        self._remaining: float | None = None
        self._task: asyncio.Task[Any] | None = None

    def follow_task(self) -> None:
        """Take the current task for the RPC's own, until another one is seen to be."""
        task = _current_task()
        if task is not None and task is not self._task:
            self._task = task
            task.add_done_callback(self._task_over)

    def _wrapped(self, behavior: Any) -> Any:
        self._accepted = True
        if inspect.isasyncgenfunction(behavior):
            return Behavior(AioObservedHandler._generate, self, behavior)
        if inspect.iscoroutinefunction(behavior):
            return Behavior(AioObservedHandler._await, self, behavior)
        if self._handler.response_streaming:
            return Behavior(AioObservedHandler._blocking_stream, self, behavior)
        # It runs in a thread, which neither the task nor its context reach.
        self.follow_task()
        return Behavior(AioObservedHandler._blocking_once, self, contextvars.copy_context().run, behavior)

    def _start(self, given: Any) -> Any:
        """Start an async handler."""
        context = self._enter(given)
        if self._task is None or self._task.done():  # an interceptor's, which has awaited the chain
            self._task = None
            try:
                given.add_done_callback(self._context_over)
            except Exception:  # noqa: BLE001 - somebody's own context
                self.follow_task()
        return context

    async def _await(self, behavior: Any, request: Any, context: Any) -> Any:
        if self._context is not None and self._is_kept(context):
            return await behavior(request, context)
        context = self._start(context)
        with self:
            return await behavior(request, context)

    async def _generate(self, behavior: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        if self._context is not None and self._is_kept(context):
            async for response in behavior(request, context):
                yield response
            return
        context = self._start(context)
        with self:
            async for response in behavior(request, context):
                yield response

    def _blocking_once(self, run: Callable[..., Any], behavior: Any, request: Any, context: Any) -> Any:
        if self._context is not None and self._is_kept(context):
            return behavior(request, context)
        self._blocking = True
        context = run(self._enter, RecordingContext.of(context))
        if self._task is None or self._task.done():
            self._task, self._watched = None, False
        with self:
            return run(behavior, request, context)

    def _blocking_stream(self, behavior: Any, request: Any, context: Any) -> Iterator[Any]:
        """Call a plain function, as grpc does, in the event loop's thread; what it returns is iterated in another."""
        if self._context is not None and self._is_kept(context):
            return cast("Iterator[Any]", behavior(request, context))
        self._blocking = True
        self.follow_task()
        context = self._meet(RecordingContext.of(context))
        if not inspect.isgeneratorfunction(behavior):
            self._begin()  # a generator begins where it is iterated
        try:
            responses = behavior(request, context)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self._iterate(contextvars.copy_context().run, responses)

    def _iterate(self, run: Callable[..., Any], responses: Any) -> Iterator[Any]:
        run(self._begin)
        with self:
            responses = run(iter, responses)
            while True:
                try:
                    response = run(next, responses)
                except StopIteration:
                    return
                yield response

    def _peer(self, context: Any) -> Any:
        if not self._blocking:
            return super()._peer(context)
        # A blocking handler's thread may start when its call is over, and asking for the peer then ends the process.
        with _letting_go:
            return None if self._over or self._task is None or self._task.done() else super()._peer(context)

    def _serialized_to_no_bytes(self) -> None:
        self._refuse(SERIALIZE_DETAILS)

    def _completed(self) -> None:
        super()._completed()
        if self._refusal_details is PARSE_DETAILS or not self._blocking:
            # Here the handler itself reads and writes: a message that failed is no matter where it has gone on
            # without. What a plain one yields is serialised elsewhere, perhaps when it has returned.
            self._refusal, self._refusal_details, self._error = None, "", None

    def _failed(self, error: BaseException) -> None:
        self._decide(grpc.StatusCode.UNKNOWN)
        if isinstance(error, asyncio.CancelledError):
            self._remaining = self._seconds_left()
            cut_off = not self._blocking and _is_being_cancelled()  # perhaps while its status is being sent
            self._cancelled_itself = not self._blocking and not cut_off
            if cut_off:
                return
        self._error = uncaught(error, self._context, accepts_int_codes=self.accepts_int_codes)

    def _alive(self) -> bool:
        return True  # what the call's task says of its end decides

    def _task_over(self, task: asyncio.Task[Any]) -> None:
        """Be called when a task is done; where it is the RPC's own, the call is over, and grpc lets go of it next."""
        if task is not self._task:
            return
        cancelling = task.cancelling() > 0
        if self._context is None and not cancelling and not task.get_name().startswith(_RPC_TASK):
            # An interceptor's: the call goes on, or is refused, and then this is dropped, which is the task's result.
            self._task = None
            return
        with _letting_go:
            self._over = True
        if self._context is None:
            self._end_unserved(cut_off=cancelling)
        else:
            self._record_outcome(None if task.cancelled() else task.exception(), cancelling=cancelling)

    def _context_over(self, _context: Any) -> None:
        """Be called by grpc at the call's true end, where its own task is not known."""
        self._record_outcome(None, cancelling=False)

    def _record_outcome(self, failure: BaseException | None, *, cancelling: bool) -> None:
        """End the observation; `failure` is what has ended the RPC's own task."""
        if not self._answered(cancelling=cancelling):
            if not isinstance(self._error, SystemExit):  # with which the event loop ends, and every call
                self._error = None
            self._cut_off()
        elif isinstance(failure, Exception):
            self._error = self._error or failure
            self._end_unsent()
        else:
            self._end(self._refusal or self._answer or grpc.StatusCode.OK)

    def _answered(self, *, cancelling: bool) -> bool:
        """Return whether the call has a status, other than being cut off."""
        if self._cancelled_itself:
            return True  # and never answered
        try:
            done = self._context.done()
        except Exception:  # noqa: BLE001 - a blocking handler's context has no such method, nor have abstract ones
            done = None
        return not cancelling if done is None else bool(done)

    def _end_unsent(self) -> None:
        """Wait for the deadline, as the caller does; without one, nobody will say when it leaves."""
        deadline = self.call.deadline
        self._refusal = self._answer = None
        if deadline is None or self._dropped:
            self._finish(grpc.StatusCode.UNKNOWN, "")
        else:
            self._context = PastContext()
            asyncio.get_running_loop().call_later(max(0.0, deadline - self.call.seconds), self._cut_off)

    def _seconds_left(self) -> float | None:
        return super()._seconds_left() if self._remaining is None else self._remaining

    def _was_cut_off(self) -> bool:
        return self._task is not None and self._task.cancelling() > 0


def _current_task() -> asyncio.Task[Any] | None:
    """Return the current task, or None where there is none: anybody may read a handler anywhere."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _is_being_cancelled() -> bool:
    """Return whether the current task is."""
    task = _current_task()
    return task is not None and task.cancelling() > 0
