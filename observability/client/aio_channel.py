"""
An asyncio channel of our own, around grpc's: its calls are grpc's own, with no interceptor's task before them.

What goes through an interceptor of grpc.aio starts in its own task, and what the caller gets stands for the call
until then: time_remaining() is not there, a call cancelled at once is never made, errors of its making come late.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from .aio_responses import StreamStreamCall, UnaryStreamCall
from .aio_single_response import StreamUnaryCall, UnaryUnaryCall
from .details import aio_metadata
from .start import AioClientObserving, ObservedCallable, callable_maker
from .status import carried_by

if TYPE_CHECKING:
    from types import TracebackType

    from ..calls.observer import Observer
    from .aio_call_proxy import AioCallProxy


def _calls(class_: Any, result: type[AioCallProxy]) -> Any:
    """Make the way to call that grpc's class of callables has; it gives a `result` of grpc's own call."""
    signature = inspect.signature(class_.__call__)
    _, first, *_ = signature.parameters
    by_place = [name for name, one in signature.parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD][1:]
    optional = signature.parameters[first].default is None

    def call(self: ObservedCallable, *arguments: Any, **named: Any) -> Any:
        given = {**named, **dict(zip(by_place, arguments, strict=False))}
        wrong = len(given) < len(named) + len(arguments) or not (optional or first in given)
        if wrong or not self._enabled():
            return self._observed(*arguments, **named)  # which says what is wrong with them
        metadata = given.get("metadata")
        observation, request = self._start(self._descriptor, given.pop(first, None), metadata, given.get("timeout"))
        if observation.metadata or metadata is not None:
            given["metadata"] = aio_metadata(observation, metadata)
        try:
            answer = self._observed(request, **given)
        except BaseException as error:
            observation.raised(error, *carried_by(error))
            raise
        return result.of(answer, observation)

    call.__name__ = "__call__"
    call.__doc__ = "Make the call."
    call.__signature__ = signature  # type: ignore[attr-defined]  # which inspect reads
    return call


class UnaryUnaryMultiCallable(ObservedCallable, grpc.aio.UnaryUnaryMultiCallable):  # type: ignore[type-arg]
    """What calls a unary method."""

    __call__ = _calls(grpc.aio.UnaryUnaryMultiCallable, UnaryUnaryCall)


class UnaryStreamMultiCallable(ObservedCallable, grpc.aio.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    """What calls a server-streaming method."""

    __call__ = _calls(grpc.aio.UnaryStreamMultiCallable, UnaryStreamCall)


class StreamUnaryMultiCallable(ObservedCallable, grpc.aio.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    """What calls a client-streaming method."""

    __call__ = _calls(grpc.aio.StreamUnaryMultiCallable, StreamUnaryCall)


class StreamStreamMultiCallable(ObservedCallable, grpc.aio.StreamStreamMultiCallable):  # type: ignore[type-arg]
    """What calls a bidirectional method."""

    __call__ = _calls(grpc.aio.StreamStreamMultiCallable, StreamStreamCall)


class AioObservedChannel(AioClientObserving, grpc.aio.Channel):
    """
    A grpc.aio channel around another one, that reports every call made through it to these observers.

    `target` is the channel's address, which grpc does not show. What else the channel inside can do, it does.
    """

    def __init__(self, channel: grpc.aio.Channel, *observers: Observer, target: str | None = None) -> None:
        super().__init__(*observers, target=target)
        self._observed = channel

    unary_unary = callable_maker("unary_unary", UnaryUnaryMultiCallable, "unary")
    unary_stream = callable_maker("unary_stream", UnaryStreamMultiCallable, "server_stream")
    stream_unary = callable_maker("stream_unary", StreamUnaryMultiCallable, "client_stream")
    stream_stream = callable_maker("stream_stream", StreamStreamMultiCallable, "bidi_stream")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._observed, name)

    async def close(self, grace: float | None = None) -> None:
        """Close the channel, and end its calls, or wait so many seconds for them first."""
        await self._observed.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 - grpc's own
        """Return the channel's state, as of now."""
        return self._observed.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the channel's state is another."""
        await self._observed.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until the channel is ready."""
        await self._observed.channel_ready()

    async def __aenter__(self) -> Self:
        await self._observed.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        return await self._observed.__aexit__(exc_type, exc_val, exc_tb)
