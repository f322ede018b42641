"""The ways to make and to serve a call, the filters that leave some of them out, and a case's own ways."""

from functools import cache
from typing import Final

from .vocabulary import (
    ONE_RESPONSE,
    RESPONSE_STREAMS,
    Arity,
    Case,
    End,
    Way,
    responses_stream,
)

SERVERS: Final = ("sync", "aio", "aio_context", "aio_plain")
"""grpc.server; grpc.aio.server with async handlers, with those that use context.read and write, with blocking ones."""
CLIENTS: Final[dict[str, tuple[Arity, ...]]] = {
    "call": ONE_RESPONSE,
    "with_call": ONE_RESPONSE,
    "future": ONE_RESPONSE,
    "iterate": RESPONSE_STREAMS,
    "aio_await": ONE_RESPONSE,
    "aio_write": ("client_stream",),
    "aio_iterate": RESPONSE_STREAMS,
    "aio_read": ("server_stream",),
    "aio_write_read": ("bidi_stream",),
    "aio_channel_await": ONE_RESPONSE,
    "aio_channel_write": ("client_stream",),
    "aio_channel_iterate": RESPONSE_STREAMS,
    "aio_channel_read": ("server_stream",),
    "aio_channel_write_read": ("bidi_stream",),
}
"""
The ways to make a call on grpc and grpc.aio channels, and the arities that have them.

The channels are of our own, but for `aio_await` and so on, which go through our interceptors.
"""

_BLOCKING: Final = frozenset({"call", "with_call"})
_AIO: Final = frozenset(client for client in CLIENTS if client.startswith("aio_"))
_STREAMS: Final = frozenset(client for client, arities in CLIENTS.items() if {*arities} <= {*RESPONSE_STREAMS})
_PLAINEST: Final = ("call", "iterate", "aio_await", "aio_iterate", "aio_channel_await", "aio_channel_iterate")
_ENDS: Final[dict[End, frozenset[str]]] = {
    "finish": frozenset(CLIENTS),
    "cancel": frozenset(CLIENTS) - _BLOCKING,
    "cancel_task": _AIO,
    "cancel_late": _STREAMS,
    "cancel_at_last": frozenset(CLIENTS) - _BLOCKING,
    "drop": _STREAMS | {"future", "aio_await", "aio_write"},
    "drop_unread": _STREAMS,
    "drop_late": _STREAMS,
    "stop_server": frozenset(CLIENTS),
    "close_channel": frozenset(CLIENTS),
}
"""How a caller can end a call, and on which ways."""


def sync_server(way: Way) -> bool:
    """Leave out grpc.server."""
    return way.server == "sync"


def aio_servers(way: Way) -> bool:
    """Leave out grpc.aio.server."""
    return way.server != "sync"


def async_handlers(way: Way) -> bool:
    """Leave out async handlers, all that grpc.aio.server runs in its event loop."""
    return way.server in ("aio", "aio_context")


def context_handlers(way: Way) -> bool:
    """Leave out async handlers that use context.read and write."""
    return way.server == "aio_context"


def blocking_handlers_on_aio(way: Way) -> bool:
    """
    Leave out blocking handlers on grpc.aio.server.

    Their context has no abort_with_status, and where the requests of a call are cut off their thread waits for good.
    """
    return way.server == "aio_plain"


def blocking_generators_on_aio(way: Way) -> bool:
    """Leave out blocking generators on grpc.aio.server, whose abort right after a yield grpc loses half the time."""
    return way.server == "aio_plain" and responses_stream(way.arity)


def single_responses_on_aio(way: Way) -> bool:
    """
    Leave out single responses of grpc.aio.server.

    Where the requests of a call are cut off, whether one is reported as sent depends on luck.
    """
    return way.server != "sync" and not responses_stream(way.arity)


def single_responses_to_streams_on_sync(way: Way) -> bool:
    """Leave out single responses of grpc.server to a stream of requests, which see that their call broke off."""
    return way.server == "sync" and way.arity == "client_stream"


def sync_clients(way: Way) -> bool:
    """Leave out clients of grpc channels."""
    return not way.client.startswith("aio_")


def aio_clients(way: Way) -> bool:
    """Leave out clients of grpc.aio channels."""
    return way.client.startswith("aio_")


def writing_clients(way: Way) -> bool:
    """Leave out clients that write their requests by hand, rather than hand over all of them at once."""
    return "write" in way.client


def all_but_the_plainest_clients(way: Way) -> bool:
    """Leave out all but the plainest clients, of cases that take their time, or are much like others."""
    return way.client not in _PLAINEST


@cache
def ways(case: Case) -> tuple[Way, ...]:
    """Return the ways on which a case can come to pass."""
    left_out = (_nothing_to_read, _same_call, *case.without)
    every = (Way(arity, server, client) for arity in case.arities for server in SERVERS for client in CLIENTS)
    return tuple(
        way
        for way in every
        if way.arity in CLIENTS[way.client]
        and _can_end(case.caller.end, way)
        and not any(leaves_out(way) for leaves_out in left_out)
    )


def _nothing_to_read(way: Way) -> bool:
    """Leave out unary handlers that use context.read and write: there is nothing to read or write."""
    return way.server == "aio_context" and way.arity == "unary"


def _same_call(way: Way) -> bool:
    """Leave out asyncio channels of our own with all but the plainest of servers: they make the same calls."""
    return way.server != "aio" and "channel" in way.client


def _can_end(end: End, way: Way) -> bool:
    """
    Return whether a caller can end its call so.

    A unary one that it drops goes on, on a grpc.aio channel; on one of our own, a client-streaming one as well.
    """
    return way.client in _ENDS[end] and (end, way.arity, way.client) != ("drop", "unary", "aio_await")
