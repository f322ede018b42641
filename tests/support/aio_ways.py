"""The ways to observe an asyncio channel, and a bare one."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc.aio
import pytest

from observability import Observer, aio_client_interceptors
from observability.client.aio_channel import AioObservedChannel
from tests.support.rpc import aio_serving

OURS: Final = ("interceptors", "channel")
EACH_WAY: Final = pytest.mark.parametrize("way", OURS)


def aio_channel(way: str, address: str, *observers: Observer, client: Sequence[Any] = ()) -> grpc.aio.Channel:
    """
    Return a channel to this address whose calls these observers see, unless the way is `bare`.

    `client` are interceptors after ours.
    """
    before = aio_client_interceptors(*observers) if way == "interceptors" else []
    channel = grpc.aio.insecure_channel(address, interceptors=[*before, *client])
    return AioObservedChannel(channel, *observers) if way == "channel" else channel


@contextlib.asynccontextmanager
async def aio_observed(
    way: str, *observers: Observer, server: Sequence[Any] = (), client: Sequence[Any] = (), **options: Any
) -> AsyncIterator[grpc.aio.Channel]:
    """Serve as `aio_serving` does, behind the interceptors `server`; gives such a channel."""
    async with (
        aio_serving(*server, **options) as address,
        aio_channel(way, address, *observers, client=client) as channel,
    ):
        yield channel
