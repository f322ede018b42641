"""What stands for an asyncio call: one with grpc's whole interface, whose end is seen, and whose being dropped."""

from __future__ import annotations

import asyncio
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import grpc

from ..threads.finalizers import finalizers
from .aio import GOES_ON, Status, end_as_shown, is_bookkeeping
from .call import CANCELLED_DETAILS, end_raised

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from ..calls.observation import Observation


def _delegate(name: str) -> Any:
    """Return a method that passes this one on to grpc's own call."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._call, name)(*args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"Pass {name} on to grpc's own call."
    return method


class AioCallProxy:
    """
    A call of an asyncio channel, whose end is seen, and whose being dropped.

    grpc's own call does not know it, but by a caller's done-callback, which keeps it until it has been called.
    """

    _used_by: ClassVar[str]
    _bookkeeping: tuple[Callable[[Any], None], ...] = ()

    @classmethod
    def of(cls, result: Any, observation: Observation) -> Any:
        """Return what a call returned with its end seen; what is no call, but somebody's answer, as it is."""
        if hasattr(result, cls._used_by):
            return cls(result, observation)
        Status(grpc.StatusCode.OK, "").end(observation)
        return result

    def __init__(self, call: Any, observation: Observation) -> None:
        self._call = call
        self._observation = observation
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:  # made before the loop runs
            self._loop = getattr(call, "_loop", None)

    cancelled = _delegate("cancelled")
    code = _delegate("code")
    debug_error_string = _delegate("debug_error_string")
    details = _delegate("details")
    done = _delegate("done")
    initial_metadata = _delegate("initial_metadata")
    time_remaining = _delegate("time_remaining")
    trailing_metadata = _delegate("trailing_metadata")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)  # grpc itself reads _done_writing_flag

    def __repr__(self) -> str:
        return repr(self._call)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """
        Call this with the call when it has ended, and do not take it for dropped until then.

        The channel keeps its own such callback for as long as it lives; a call that it alone waits for is dropped.
        """
        if is_bookkeeping(callback):
            self._bookkeeping += (callback,)
            self._call.add_done_callback(partial(_done, weakref.ref(self)))
        else:
            self._call.add_done_callback(lambda _call: callback(self))

    def keep_books(self) -> None:
        """Let the channel forget the call."""
        callbacks, self._bookkeeping = self._bookkeeping, ()
        for callback in callbacks:
            callback(self)

    def cancel(self) -> bool:
        """Cancel the call."""
        result: bool = self._call.cancel()
        if result:
            self._observation.end_deferred(grpc.StatusCode.CANCELLED, CANCELLED_DETAILS)
        return result

    def wait_for_connection(self) -> Coroutine[Any, Any, None]:
        """Wait until the request is sent."""
        return self._observed(self._call.wait_for_connection())

    def done_writing(self) -> Coroutine[Any, Any, None]:
        """End the requests."""
        return self._observed(self._call.done_writing())

    async def write(self, request: Any) -> None:
        """Send a request."""
        self._observation.sent += 1
        try:
            await self._call.write(request)
        except BaseException as error:
            self._observation.sent -= 1
            self._raised(error)
            raise

    async def _observed(self, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except BaseException as error:
            self._raised(error)
            raise

    def _raised(self, error: BaseException) -> None:
        """End the call with what its caller is about to see raised, unless it goes on after that."""
        if isinstance(error, asyncio.CancelledError):
            end_as_shown(self._observation, self._call)
        elif not isinstance(error, GOES_ON):
            end_raised(self._observation, error)

    def __del__(self) -> None:
        """Be dropped."""
        if not self._observation.ended:
            finalizers.defer(partial(self._drop, self._call, self._observation, self._loop))

    @staticmethod
    def _drop(call: Any, observation: Observation, loop: asyncio.AbstractEventLoop | None) -> None:
        """End a call that nobody has any more; in the finalizers' thread, which grpc's calls do not know."""
        raise NotImplementedError


def _done(reference: weakref.ref[AioCallProxy], _call: Any) -> None:
    call = reference()
    if call is not None:
        call.keep_books()
