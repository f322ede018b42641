"""What a call of an asyncio channel returns: grpc's own call with its whole interface, whose true end is seen."""

from __future__ import annotations

import contextlib
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

import grpc
import grpc.aio

from .results import DROPPED_DETAILS, end_cancelled, end_raised, pass_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Generator

    from .call import Observation

_UNCERTAIN_DETAILS: Final = "Internal error from Core"


def follow(call: Any, observation: Observation) -> Any:
    """End a unary call of an asyncio channel when grpc's own call does; it is returned as it is."""
    ended = partial(_end_unary, observation)
    if call.done():
        ended(call)
    else:
        call.add_done_callback(ended)
    return call


def _end_unary(observation: Observation, call: Any) -> None:
    code = _settled(call.code())
    if code is grpc.StatusCode.OK:
        observation.received = 1
        observation.end(code)
    else:
        observation.end(code, _settled(call.details()) or "")


def _settled(answer: Coroutine[Any, Any, Any]) -> Any:
    """Return what a call that is over answers at once."""
    try:
        answer.send(None)
    except StopIteration as settled:
        return settled.value
    answer.close()
    raise RuntimeError("the call is not over")


class _AioObserved:
    """
    A call of an asyncio channel, whose being dropped is seen.

    It keeps the done-callbacks itself, and is known to grpc's own call by a weak reference only: the channel's
    bookkeeping would keep a dropped stream alive for ever.
    """

    def __init__(self, call: Any, observation: Observation) -> None:
        self._call = call
        self._observation = observation
        self._callbacks: list[Callable[[Any], None]] = []
        call.add_done_callback(partial(_done, weakref.ref(self)))

    cancelled = pass_on("cancelled")
    code = pass_on("code")
    debug_error_string = pass_on("debug_error_string")
    details = pass_on("details")
    done = pass_on("done")
    done_writing = pass_on("done_writing")
    initial_metadata = pass_on("initial_metadata")
    time_remaining = pass_on("time_remaining")
    trailing_metadata = pass_on("trailing_metadata")
    wait_for_connection = pass_on("wait_for_connection")
    write = pass_on("write")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)  # grpc itself reads _done_writing_flag

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call this with the call when it has ended."""
        if self._call.done():
            callback(self)
        else:
            self._callbacks.append(callback)

    def run_callbacks(self) -> None:
        """Tell those who asked that the call has ended."""
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def cancel(self) -> bool:
        """Cancel the call."""
        result: bool = self._call.cancel()
        if result:
            end_cancelled(self._observation)
        return result

    def __del__(self) -> None:
        """Be dropped, and cancel the call if it is still going on."""
        with contextlib.suppress(RuntimeError):  # the event loop may be closed by now
            self._call.cancel()
        end_cancelled(self._observation, DROPPED_DETAILS)


def _done(reference: weakref.ref[_AioObserved], _call: Any) -> None:
    call = reference()
    if call is not None:
        call.run_callbacks()


class _AioResponses(_AioObserved):
    """The responses of a stream; ends as the reader's iterator does."""

    _responses: AsyncIterator[Any] | None = None

    def __aiter__(self) -> Self:
        """Return itself: a stream is read once."""
        return self

    async def __anext__(self) -> Any:
        """Wait for the next response."""
        if self._responses is None:
            self._responses = self._call.__aiter__()
        try:
            response = await self._responses.__anext__()
        except StopAsyncIteration:
            self._observation.end(grpc.StatusCode.OK)
            raise
        except BaseException as error:
            end_raised(self._observation, error)
            raise
        self._observation.received += 1
        return response

    async def read(self) -> Any:
        """Wait for the next response, or grpc.aio.EOF."""
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            return grpc.aio.EOF


class AioUnaryStream(_AioResponses, grpc.aio.UnaryStreamCall):  # type: ignore[type-arg]  # as _Observed
    """A server-streaming call."""


class AioStreamStream(_AioResponses, grpc.aio.StreamStreamCall):  # type: ignore[type-arg]  # as _Observed
    """A bidirectional call."""


class AioStreamUnary(_AioObserved, grpc.aio.StreamUnaryCall):  # type: ignore[type-arg]  # as _Observed
    """
    A client-streaming call; ends as awaiting it does, or as its code says where its caller asks for that alone.

    Otherwise its code is not asked: while requests are still being written grpc may call any end INTERNAL.
    """

    async def code(self) -> grpc.StatusCode:
        """Wait for the call's end, and return its code."""
        code: grpc.StatusCode = await self._call.code()
        if await self._call.details() != _UNCERTAIN_DETAILS:
            _end_unary(self._observation, self._call)
        return code

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the response."""
        try:
            response = yield from self._call.__await__()
        except BaseException as error:
            end_raised(self._observation, error)
            raise
        self._observation.received = 1
        self._observation.end(grpc.StatusCode.OK)
        return response
