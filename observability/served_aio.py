"""A call on grpc.aio.server, which ends with the RPC's own task."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import grpc

from .call import deadline_of
from .handlers import PlainContext, is_abort
from .served import PARSE_DETAILS, ServedCall

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from .call import Observation

_letting_go: Final = threading.Lock()


class AioCall(ServedCall):
    """A call on grpc.aio.server."""

    __slots__ = ("_over",)

    message_failure = grpc.StatusCode.UNKNOWN
    none_fails = False
    numbers = True

    def __init__(self, handler: grpc.RpcMethodHandler[Any, Any], observation: Observation) -> None:
        super().__init__(handler, observation)
        self._over = False

    def _wrapped(self, behavior: Any) -> Any:
        self._accepted, self._behavior = True, behavior
        if inspect.isasyncgenfunction(behavior):
            return self._generate
        if inspect.iscoroutinefunction(behavior):
            return self._await
        # A plain function runs in a thread, which the task's context does not reach.
        run = contextvars.copy_context().run
        return partial(self._plain_stream if self._handler.response_streaming else self._plain, run)

    async def _await(self, request: Any, context: Any) -> Any:
        self._enter(context)
        with self:
            return await self._behavior(request, context)

    async def _generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._enter(context)
        with self:
            async for response in self._behavior(request, context):
                yield response

    def _plain(self, run: Callable[..., Any], request: Any, context: Any) -> Any:
        context = PlainContext.of(context)
        run(self._enter, context)
        with self:
            return run(self._behavior, request, context)

    def _plain_stream(self, run: Callable[..., Any], request: Any, context: Any) -> Iterator[Any]:
        context = PlainContext.of(context)
        run(self._enter, context)
        with self:
            responses = run(iter, run(self._behavior, request, context))
            while True:
                try:
                    response = run(next, responses)
                except StopIteration:
                    return
                yield response

    def _peer(self, context: Any) -> str | None:
        # A plain handler's thread may start when its call is over, and asking for the peer then ends the process.
        with _letting_go:
            return None if self._over else super()._peer(context)

    def _completed(self) -> None:
        super()._completed()
        if self._refusal_details is PARSE_DETAILS or not isinstance(self._context, PlainContext):
            # Here the handler itself reads and writes: a message that failed is no matter where it has gone on
            # without. What a plain one yields is serialised elsewhere, perhaps when it has returned.
            self._refusal, self._refusal_details, self._error = None, "", None

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._remaining = deadline_of(self._context.time_remaining())
        self._decide(grpc.StatusCode.UNKNOWN)
        self._error = None if is_abort(error, self._context) else error

    def _alive(self) -> bool:
        return True  # what the call's task says of its end decides

    def terminated(self, task: asyncio.Task[Any]) -> None:
        """Be called when the RPC's own task is done, which is the call's true end; then grpc lets go of it."""
        with _letting_go:
            self._over = True
        if self._context is None:
            self._end_unserved(cut_off=task.cancelling() > 0)
        elif self._answered(task):
            self._end(self._refusal or self._answer or grpc.StatusCode.OK, None)
        else:
            if not isinstance(self._error, SystemExit):  # with which the event loop ends, and every call
                self._error = None
            remaining = self._remaining
            if remaining is None:
                remaining = deadline_of(self._context.time_remaining())
            self._end(None, remaining)

    def _answered(self, task: asyncio.Task[Any]) -> bool:
        """Tell whether the call has a status, other than being cut off."""
        if isinstance(self._context, PlainContext):
            return not task.cancelling()
        if isinstance(self._error, asyncio.CancelledError) and not task.cancelling():
            return True  # of the handler's own, and never answered
        return cast("bool", self._context.done())

    def __del__(self) -> None:
        """Be dropped, perhaps with a generator that was never run to its end."""
        self._leave()
