"""A sync channel of our own: it makes a method's callable once, where grpc.intercept_channel does for every call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import grpc

from .callables import CALLABLES
from .channel_proxy import ChannelProxy, chosen_channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..calls.observer import Observer


class ObservedChannel(ChannelProxy, grpc.Channel):
    """
    Reports to these observers every call made through it, which this channel makes.

    `target` is the channel's address, which grpc does not show.
    """

    _callables = CALLABLES

    def __init__(self, channel: grpc.Channel, *observers: Observer, target: str | None = None) -> None:
        super().__init__(*observers, target=target)
        self._observed = chosen_channel(channel)

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:  # noqa: FBT001, FBT002 - grpc's own signature
        """Call this with the channel's states, as they change."""
        self._observed.subscribe(callback, try_to_connect=try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Call it no more."""
        self._observed.unsubscribe(callback)

    def close(self) -> None:
        """Close the channel, and end its calls."""
        self._observed.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close it."""
        self._observed.close()
