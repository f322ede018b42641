"""What grpc.aio.server shows of a call as it starts a handler, and as that ends."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import TYPE_CHECKING, Any

from ..calls.status import UNKNOWN
from ..calls.values import safe_str
from .aio_ends import AioEnding, current_task, is_being_cancelled, releasing
from .behaviors import REFUSED, UNGUARDED, Guard, aio_guarded, is_blocking
from .call import AIO_BLOCKING, PARSE_DETAILS
from .counting import ReportingHandler, Unparsed
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

    def _start(self, request: Any, given: Any) -> tuple[Guard, Any]:
        unparsed = type(request) is Unparsed
        if self._is_kept(given):
            return _refused(request, given) if unparsed else (UNGUARDED, given)
        if self.call.rules is AIO_BLOCKING:
            context = self._start_blocking(given, unparsed=unparsed)
            return self._refuse(request, context) if unparsed else (self, context)
        context = self._meet(given)
        if not unparsed:
            self.call.handler_started()
        if self._task is None or self._task.done():  # an interceptor's, which has awaited the chain
            self._task = None
            try:
                given.add_done_callback(self._context_over)
            except Exception:  # noqa: BLE001 - somebody's own context
                self.follow_task()
        return self._refuse(request, context) if unparsed else (self, context)

    def _start_blocking(self, given: Any, *, unparsed: bool) -> Any:
        if self._handler.response_streaming:
            self.follow_task()
            return self._meet(given)
        context = self._meet(given)
        if not unparsed:
            self._run(self.begin)
        if self._task is None or self._task.done():
            self._task, self._watched = None, False
        with contextlib.suppress(Exception):  # somebody's own context
            given.add_callback(self._replying)
        return context

    def _refusal_of(self, error: Exception | None) -> str:
        return f"Unexpected {type(error)}: {safe_str(error)}"

    def _refuse(self, request: Unparsed, context: Any) -> tuple[Guard, Any]:
        """Refuse a call whose only request could not be parsed."""
        self.call.received = 0  # another interceptor of ours has let it pass
        self._reject(PARSE_DETAILS)
        refused = _refused(request, context)
        if not self._watched:
            self._conclude()
        return refused

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
                    self._interrupted = True
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


def _refused(request: Unparsed, context: Any) -> tuple[Guard, Any]:
    """Set the status with which grpc answers a request that cannot be parsed: an abort has to be awaited."""
    context.set_code(UNKNOWN)
    context.set_details(request.details)
    return REFUSED, context
