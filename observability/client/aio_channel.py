"""
An asyncio channel of our own, around grpc's: its calls are grpc's own, with no interceptor's task before them.

What goes through an interceptor of grpc.aio starts in its own task, and what the caller gets stands for the call
until then: time_remaining() is not there, a call cancelled at once is never made, errors of its making come late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import grpc
import grpc.aio

from .aio_callables import CALLABLES
from .channel_proxy import ChannelProxy, chosen_channel
from .start import AioClientObserving

if TYPE_CHECKING:
    from types import TracebackType

    from ..calls.observer import Observer


class AioObservedChannel(ChannelProxy, AioClientObserving, grpc.aio.Channel):
    """
    A grpc.aio channel around another one, that reports every call made through it to these observers.

    `target` is the channel's address, which grpc does not show. What else the channel inside can do, it does.
    """

    _observed: grpc.aio.Channel
    _callables = CALLABLES

    def __init__(self, channel: grpc.aio.Channel, *observers: Observer, target: str | None = None) -> None:
        super().__init__(*observers, target=target)
        self._observed = chosen_channel(channel)

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
