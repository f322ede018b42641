"""What stands for an asyncio call: one with grpc's whole interface, whose end is seen, and whose being dropped."""

from __future__ import annotations

import asyncio
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ..calls.status import OK
from ..threads.finalizers import finalizers
from .aio import GOES_ON, is_bookkeeping, report_end
from .status import carried_by

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from .call import ClientCall


class AioCallProxy:
    """
    A call of an asyncio channel, whose end is seen, and whose being dropped.

    grpc's own call does not know it, but by a caller's done-callback, which keeps it until it has been called.
    """

    _used_by: ClassVar[str]
    """The method by which a call of this kind is read, which nothing else has."""
    _bookkeeping: tuple[Callable[[Any], None], ...] = ()

    @classmethod
    def of(cls, result: Any, observation: ClientCall) -> Any:
        """Return what a call returned with its end seen; what is no call, but somebody's answer, as it is."""
        if hasattr(result, cls._used_by):
            return cls(result, observation)
        observation.status_received(OK)
        return result

    def __init__(self, call: Any, observation: ClientCall) -> None:
        self._observed = call
        self._observation = observation
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:  # made before the loop runs
            self._loop = getattr(call, "_loop", None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._observed, name)  # grpc itself reads _done_writing_flag

    def __repr__(self) -> str:
        return repr(self._observed)

    def __del__(self) -> None:
        # Maybe inside a collection: see finalizers.
        if not self._observation.ended:
            finalizers.defer(partial(self._drop, self._observed, self._observation, self._loop))

    @staticmethod
    def _drop(call: Any, observation: ClientCall, loop: asyncio.AbstractEventLoop | None) -> None:
        """Report the end of a call that nobody has any more; in the finalizers' thread, unknown to grpc's calls."""
        raise NotImplementedError

    # What is only passed on: grpc's classes have it as abstract methods, before which __getattr__ does not come.

    def cancelled(self) -> Any:
        """Return whether the call was cancelled."""
        return self._observed.cancelled()

    def code(self) -> Any:
        """Wait for the status code."""
        return self._observed.code()

    def debug_error_string(self) -> Any:
        """Wait for what grpc's core says of the end."""
        return self._observed.debug_error_string()

    def details(self) -> Any:
        """Wait for the details of the status."""
        return self._observed.details()

    def done(self) -> Any:
        """Return whether the call is over."""
        return self._observed.done()

    def initial_metadata(self) -> Any:
        """Wait for the initial metadata."""
        return self._observed.initial_metadata()

    def time_remaining(self) -> Any:
        """Return the seconds until the deadline, or None without one."""
        return self._observed.time_remaining()

    def trailing_metadata(self) -> Any:
        """Wait for the trailing metadata."""
        return self._observed.trailing_metadata()

    # What may end the call.

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """
        Call this with the call when it has ended, and do not take it for dropped until then.

        The channel keeps its own such callback for as long as it lives; a call that it alone waits for is dropped.
        """
        if is_bookkeeping(callback):
            self._bookkeeping += (callback,)
            self._observed.add_done_callback(partial(_keep_books_of, weakref.ref(self)))
        else:
            self._observed.add_done_callback(lambda _call: callback(self))

    def keep_books(self) -> None:
        """Let the channel forget the call."""
        callbacks, self._bookkeeping = self._bookkeeping, ()
        for callback in callbacks:
            callback(self)

    def cancel(self) -> bool:
        """Cancel the call."""
        result: bool = self._observed.cancel()
        if result:
            self._observation.cancelled_by_caller()
        return result

    def wait_for_connection(self) -> Coroutine[Any, Any, None]:
        """Wait until the request is sent."""
        return self._wait_for(self._observed.wait_for_connection())

    def done_writing(self) -> Coroutine[Any, Any, None]:
        """End the requests."""
        return self._wait_for(self._observed.done_writing())

    async def write(self, request: Any) -> None:
        """Send a request."""
        self._observation.sent += 1
        if self._observation.reports_messages:
            self._observation.message_sent(request)
        try:
            await self._observed.write(request)
        except BaseException as error:
            self._observation.sent -= 1
            self._raised(error)
            raise

    async def _wait_for(self, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except BaseException as error:
            self._raised(error)
            raise

    def _raised(self, error: BaseException) -> None:
        """Report what the caller is about to see raised, unless the call goes on after it."""
        if isinstance(error, asyncio.CancelledError):
            report_end(self._observation, self._observed)
        elif not isinstance(error, GOES_ON):
            self._observation.raised(error, *carried_by(error))


def _keep_books_of(reference: weakref.ref[AioCallProxy], _call: Any) -> None:
    call = reference()
    if call is not None:
        call.keep_books()
