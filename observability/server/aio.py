"""What grpc.aio.server shows of a call, which ends with the RPC's own task."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from .behaviors import UNGUARDED, Guard, aio_guarded, is_blocking
from .call import AIO_BLOCKING
from .context import OVER, PastContext, ask, status_in
from .observed import ObservedHandler
from .uncaught import uncaught

if TYPE_CHECKING:
    from collections.abc import Callable

    from .call import ServerCall

_releasing: Final = threading.Lock()
_RPC_TASK: Final = "HandleExceptions["
"""How grpc begins the name of an RPC's own task."""


class AioObservedHandler(ObservedHandler):
    """
    A call on grpc.aio.server.

    `_task` is the one whose end is the call's: the RPC's own, as far as anything shows it. Interceptors before us may
    await the chain, or run the handler, in tasks of their own. `_ended_itself` is whether the handler has ended the
    call, whatever its task and its context show: a server that stops cancels the task of a call that is answered, too.
    """

    __slots__ = ("_ended_itself", "_over", "_remaining_then", "_run", "_task")

    def __init__(self, handler: grpc.RpcMethodHandler[Any, Any], call: ServerCall) -> None:
        super().__init__(handler, call)
        self._ended_itself = False
        self._over = False
        self._remaining_then: float | None = None
        self._task: asyncio.Task[Any] | None = None

    def follow_task(self) -> None:
        """Take the current task for the RPC's own, until another one is seen to be."""
        task = _current_task()
        if task is not None and task is not self._task:
            self._task = task
            task.add_done_callback(self._task_over)

    def _wrapped(self, behavior: Any) -> Any:
        self.call.accepted = True
        streaming = self._handler.response_streaming
        if is_blocking(behavior):
            self.call.rules = AIO_BLOCKING
            if not streaming:  # it runs in a thread, which neither the task nor its context reach
                self.follow_task()
                self._run = contextvars.copy_context().run
        return aio_guarded(behavior, self._start, response_streaming=streaming)

    def _start(self, _request: Any, given: Any) -> tuple[Guard, Any]:
        if self._context is not None and self._is_kept(given):
            return UNGUARDED, given
        if self.call.rules is AIO_BLOCKING:
            return self, self._start_blocking(given)
        context = self._meet(given)
        self.call.handler_started()
        if self._task is None or self._task.done():  # an interceptor's, which has awaited the chain
            self._task = None
            try:
                given.add_done_callback(self._context_over)
            except Exception:  # noqa: BLE001 - somebody's own context
                self.follow_task()
        return self, context

    def _start_blocking(self, given: Any) -> Any:
        if self._handler.response_streaming:
            self.follow_task()
            return self._meet(given)
        context = self._meet(given)
        self._run(self.begin)
        if self._task is None or self._task.done():
            self._task, self._watched = None, False
        with contextlib.suppress(Exception):  # somebody's own context
            given.add_callback(self._replying)
        return context

    def run(self, behavior: Callable[..., Any], *args: Any) -> Any:
        """Run the handler in the context of the RPC's own task."""
        return self._run(behavior, *args)

    def _replying(self) -> None:
        """Be called when a blocking handler with one response has returned, just before grpc sends that."""
        self._ended_itself = True

    def _peer(self, context: Any) -> Any:
        if self.call.rules is not AIO_BLOCKING:
            return context.peer()
        # A blocking handler's thread may start when its call is over, and asking for the peer then ends the process.
        with _releasing:
            return None if self._over or self._task is None or self._task.done() else context.peer()

    def _is_active(self) -> bool:
        return True  # what the call's task says of its end decides

    def _raised(self, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._remaining_then = self._remaining()
            if self.call.rules is not AIO_BLOCKING:
                if _is_being_cancelled():  # perhaps while its status is being sent
                    self.call.handler_interrupted()
                    return
                self._ended_itself = True  # and is never answered
        elif isinstance(error, grpc.aio.AbortError):
            self._ended_itself = True  # grpc raises it when the status is sent
        error_left = uncaught(error, self._context, accepts_int_codes=self.call.rules.accepts_int_codes)
        self.call.handler_raised(error_left)

    def _task_over(self, task: asyncio.Task[Any]) -> None:
        """Be called when a task is done; where it is the RPC's own, the call is over, and grpc releases it next."""
        if task is not self._task:
            return
        cancelling = task.cancelling() > 0
        if self._context is None and not cancelling and not task.get_name().startswith(_RPC_TASK):
            # An interceptor's: the call goes on, or is refused, and then this is dropped, which is the task's result.
            self._task = None
            return
        with _releasing:
            self._over = True
        if self._context is None:
            self.call.unserved(cut_off=cancelling)
            self._context = OVER
        else:
            self._terminated(None if task.cancelled() else task.exception(), cancelling=cancelling)

    def _context_over(self, _context: Any) -> None:
        """Be called by grpc at the call's true end, where its own task is not known."""
        self._terminated(None, cancelling=False)

    def _terminated(self, failure: BaseException | None, *, cancelling: bool) -> None:
        """Report that the call is over; `failure` is what has ended the RPC's own task."""
        left = not (self._ended_itself or self._is_done(cancelling=cancelling))
        wait = self.call.terminated(status_in(self._context), self._remaining, left=left, failure=failure)
        if wait is None:
            self._context = OVER
        else:
            self._context = PastContext()
            asyncio.get_running_loop().call_later(wait, self._caller_gave_up)

    def _is_done(self, *, cancelling: bool) -> bool:
        """Return whether the call has a status, other than being cut off."""
        done = ask(self._context, "done")  # which a blocking handler's context has not, nor have abstract ones
        return not cancelling if done is None else bool(done)

    def _caller_gave_up(self) -> None:
        self._context = OVER
        self.call.cut_off()

    def _remaining(self) -> float | None:
        return super()._remaining() if self._remaining_then is None else self._remaining_then

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
