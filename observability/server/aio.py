"""What grpc.aio.server shows of a call as it starts a handler, and as that ends."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import TYPE_CHECKING, Any

from .aio_ends import AioEnding, current_task, is_being_cancelled, releasing
from .behaviors import UNGUARDED, Guard, aio_guarded, is_blocking
from .call import AIO_BLOCKING
from .counting import ReportingHandler
from .uncaught import uncaught

if TYPE_CHECKING:
    from collections.abc import Callable


class AioObservedHandler(AioEnding):
    """A call on grpc.aio.server. `_run` runs a blocking handler in the context of the RPC's own task."""

    __slots__ = ("_run",)

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

    def _caller(self, context: Any) -> tuple[Any, Any]:
        if self.call.rules is not AIO_BLOCKING:
            return super()._caller(context)
        # A blocking handler's thread may start when its call is over, and asking for the peer then ends the process.
        with releasing:
            is_over = self._over or self._task is None or self._task.done()
            return (None, None) if is_over else super()._caller(context)

    def _raised(self, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._remaining_then = self._remaining()
            if self.call.rules is not AIO_BLOCKING:
                if is_being_cancelled():  # perhaps while its status is being sent
                    self.call.handler_interrupted()
                    return
                self._ended_itself = True  # and is never answered
        if self.call.rules is AIO_BLOCKING and current_task() is not None:
            self._ended_itself = True  # it has raised in the RPC's own task, where grpc answers before anything else
        error_left = uncaught(error, self._context, accepts_int_codes=self.call.rules.accepts_int_codes)
        self.call.handler_raised(error_left)


class AioReportingHandler(ReportingHandler, AioObservedHandler):
    """The same, for observers of messages."""

    __slots__ = ()
