"""The outcomes of a call, as data: what the server does, how the caller ends it, and the code that each side tells."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from grpc import StatusCode

from .messages import FIRST, LARGE, LAST, UNPARSEABLE, UNSERIALISABLE, VANISHED, VANISHING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Arity: TypeAlias = Literal["unary", "client_stream", "server_stream", "bidi_stream"]
End: TypeAlias = Literal[
    "finish",
    "cancel",
    "cancel_task",
    "cancel_late",
    "cancel_at_last",
    "drop",
    "drop_unread",
    "drop_late",
    "stop_server",
    "close_channel",
]
"""What a caller does about its call: `late`, when the server has finished; `at_last`, just before the deadline."""

ARITIES: Final[tuple[Arity, ...]] = ("unary", "client_stream", "server_stream", "bidi_stream")
AIO_SERVERS: Final = ("aio", "aio_context", "aio_plain")
SERVERS: Final = ("sync", *AIO_SERVERS)
"""grpc.server; grpc.aio.server with async handlers, with those that use context.read and write, with plain ones."""

_ONE: Final[tuple[Arity, ...]] = ("unary", "client_stream")
_FROM_ONE: Final[tuple[Arity, ...]] = ("unary", "server_stream")
_FROM_MANY: Final[tuple[Arity, ...]] = ("client_stream", "bidi_stream")
_MANY: Final[tuple[Arity, ...]] = ("server_stream", "bidi_stream")
CLIENTS: Final[dict[str, tuple[Arity, ...]]] = {
    "call": _ONE,
    "with_call": _ONE,
    "future": _ONE,
    "iterate": _MANY,
    "aio_await": _ONE,
    "aio_write": ("client_stream",),
    "aio_iterate": _MANY,
    "aio_read": ("server_stream",),
    "aio_write_read": ("bidi_stream",),
    "aio_channel_await": _ONE,
    "aio_channel_write": ("client_stream",),
    "aio_channel_iterate": _MANY,
    "aio_channel_read": ("server_stream",),
    "aio_channel_write_read": ("bidi_stream",),
}
"""
The ways to make a call on grpc and grpc.aio channels, and the arities that have them.

The channels are of our own, but for `aio_await` and so on, which go through our interceptors.
"""

_BLOCKING: Final = frozenset({"call", "with_call"})
_AIO: Final = frozenset(client for client in CLIENTS if client.startswith("aio_"))
_STREAMS: Final = frozenset(client for client, arities in CLIENTS.items() if set(arities) <= {*_MANY})
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

DETAILS: Final = "as asked"
SOON: Final = 0.25
"""Seconds until a deadline; grpc-timeout says so many exactly."""
LATER: Final = 1.0
"""Seconds until a deadline before which a handler has surely failed, on a busy machine as well."""
_RECEIVE_LITTLE: Final = (("grpc.max_receive_message_length", 100),)
_SEND_LITTLE: Final = (("grpc.max_send_message_length", 100),)


class Way(NamedTuple):
    """How a call is made and served."""

    arity: Arity
    server: str
    client: str


def requests_stream(arity: Arity) -> bool:
    """Return whether requests are a stream."""
    return arity in _FROM_MANY


def responses_stream(arity: Arity) -> bool:
    """Return whether responses are a stream."""
    return arity in _MANY


class Status(NamedTuple):
    """What context.abort_with_status takes."""

    code: StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, str], ...] = ()


def succeed(_context: Any, _pause: Any) -> None:
    """Do nothing but answer."""


def abort(context: Any, _pause: Any) -> Any:
    """End the call with a code of the handler's choice."""
    return context.abort(StatusCode.INVALID_ARGUMENT, DETAILS)


def abort_at_length(context: Any, _pause: Any) -> Any:
    """End the call with a text that is longer than a caller accepts."""
    return context.abort(StatusCode.INVALID_ARGUMENT, "x" * 20_000)


def abort_with_status(context: Any, _pause: Any) -> Any:
    """End the call with a status object."""
    return context.abort_with_status(Status(StatusCode.FAILED_PRECONDITION, DETAILS))


def set_code(context: Any, _pause: Any) -> None:
    """Choose a code, and go on to answer."""
    context.set_code(StatusCode.NOT_FOUND)
    context.set_details(DETAILS)


def fail(_context: Any, _pause: Any) -> None:
    """Raise what nobody catches."""
    raise ValueError("secret")


def fail_with_code(context: Any, _pause: Any) -> None:
    """Choose a code, then raise what nobody catches."""
    context.set_code(StatusCode.DATA_LOSS)
    raise ValueError("secret")


def choose_and_raise(context: Any, _pause: Any) -> None:
    """Choose a code and a text, then raise an exception that says no more."""
    set_code(context, None)
    raise LookupError(DETAILS)


def choose_and_fail(context: Any, _pause: Any) -> None:
    """Choose a code and a text, then raise what nobody catches."""
    set_code(context, None)
    raise ValueError("secret")


def end_with_upper_case(context: Any, _pause: Any) -> None:
    """Set trailing metadata with a key that is none."""
    context.set_trailing_metadata((("KEY", "value"),))


def end_with_accents(context: Any, _pause: Any) -> None:
    """Set trailing metadata with a value that is no ASCII."""
    context.set_trailing_metadata((("key", "valeur dépassée"),))


def abort_with_upper_case(context: Any, pause: Any) -> Any:
    """End the call with a code of the handler's choice, and such metadata."""
    end_with_upper_case(context, pause)
    return abort(context, pause)


def end_with_text_for_bytes(context: Any, _pause: Any) -> None:
    """Set trailing metadata with a text where bytes belong."""
    context.set_trailing_metadata((("key-bin", "value"),))


def end_with_a_number(context: Any, _pause: Any) -> None:
    """Set trailing metadata with a value that is no text."""
    context.set_trailing_metadata((("key", 5),))


def compress(context: Any, _pause: Any) -> None:
    """Ask for a compression by its name, not by its number."""
    context.set_compression("gzip")


def leave(_context: Any, _pause: Any) -> None:
    """Ask the process to end, which ends no server."""
    raise SystemExit("secret")


def leave_with_code(context: Any, _pause: Any) -> None:
    """Choose a code, then ask the process to end."""
    context.set_code(StatusCode.DATA_LOSS)
    raise SystemExit("secret")


def cancel_itself(_context: Any, _pause: Any) -> None:
    """Let a cancellation escape that is not the call's but, say, an inner task's."""
    raise asyncio.CancelledError("secret")


def hang(_context: Any, pause: Callable[[], Any]) -> Any:
    """Wait until the call is over."""
    return pause()


def fail_late(_context: Any, pause: Callable[[], Any]) -> Any:
    """Wait until the call is over, then raise; an async handler is cancelled before."""
    waiting = pause()
    if waiting is None:
        raise ValueError("too late")
    return waiting


def anyhow(_way: Way) -> bool:
    """Allow every way."""
    return True


def not_plain_stream(way: Way) -> bool:
    """Leave out plain generators on asyncio servers, whose abort right after a yield grpc loses half the time."""
    return way.server != "aio_plain" or not responses_stream(way.arity)


def not_plain(way: Way) -> bool:
    """Leave out blocking handlers on asyncio servers, whose context has no abort_with_status."""
    return way.server != "aio_plain"


def on(*servers: str) -> Callable[[Way], bool]:
    """Allow these servers only."""
    return lambda way: way.server in servers


def from_sync(way: Way) -> bool:
    """Allow clients of grpc channels only."""
    return not way.client.startswith("aio_")


def from_aio(way: Way) -> bool:
    """Allow clients of grpc.aio channels only."""
    return way.client.startswith("aio_")


def patient(*servers: str) -> Callable[[Way], bool]:
    """Allow these servers only, with the plainest clients: these cases take their time."""
    return lambda way: way.server in servers and waiting(way)


def waiting(way: Way) -> bool:
    """Allow the plainest clients only: these cases take their time, or are much like others."""
    return way.client in ("call", "iterate", "aio_await", "aio_iterate", "aio_channel_await", "aio_channel_iterate")


def steady(way: Way) -> bool:
    """
    Leave out the blocking handlers and the single answers of asyncio servers, where the requests of a call are cut off.

    A plain generator then blocks its thread for good, and whether a single answer is reported as sent depends on luck.
    """
    return way.server == "sync" or (not_plain(way) and responses_stream(way.arity))


def steady_from_sync(way: Way) -> bool:
    """Allow such ways only, with clients of grpc channels."""
    return steady(way) and from_sync(way)


def iterating(way: Way) -> bool:
    """Allow clients that hand over all requests at once, and no plain generator."""
    return not_plain_stream(way) and "write" not in way.client


@dataclass(frozen=True)
class Case:
    """
    One outcome, and how it comes to pass.

    `client` and `server` are the codes that each side tells, None where it never sees the call; `error` is whether
    the server tells of an exception. The handler reads its `request`, or a stream of it and a `second` one (of an
    `endless` stream only the one), sends `first`, where responses are a stream, does its `act`, and answers with
    `last`. `end` is what the caller does about it. `early` is whether the call ends while requests may still be
    written, `raw` whether the server has no serialiser. Where the server has no port (`absent`), no place
    (`limited`), no thread (`pool_busy`) or an interceptor that waits (`delayed`), the handler never starts.
    """

    name: str
    says: str
    client: StatusCode | None
    server: StatusCode | None
    act: Callable[[Any, Any], Any] = succeed
    end: End = "finish"
    error: bool = False
    timeout: float | None = None
    method: str = "Method"
    request: Any = FIRST
    second: Any = FIRST
    endless: bool = False
    first: Any = FIRST
    last: Any = LAST
    hide: bool = False
    early: bool = False
    raw: bool = False
    absent: bool = False
    limited: bool = False
    pool_busy: bool = False
    delayed: bool = False
    server_options: tuple[tuple[str, int], ...] = ()
    channel_options: tuple[tuple[str, int], ...] = ()
    arities: tuple[Arity, ...] = ARITIES
    possible: Callable[[Way], bool] = anyhow

    def __str__(self) -> str:
        return self.name

    @property
    def interrupted(self) -> bool:
        """Whether the caller does something in the middle of its call, rather than read it to its end."""
        return self.cancelled or self.dropped

    @property
    def unserved(self) -> bool:
        """Whether the handler never starts, so that there is no first message to wait for."""
        return self.delayed or self.pool_busy

    @property
    def cancelled(self) -> bool:
        """Whether the caller cancels its call by the call itself."""
        return self.end in ("cancel", "cancel_late", "cancel_at_last")

    @property
    def dropped(self) -> bool:
        """Whether the caller lets go of its call."""
        return self.end in ("drop", "drop_unread", "drop_late")


def agreed(name: str, says: str, code: StatusCode, **how: Any) -> Case:
    """Describe an outcome that both sides tell with the same code."""
    return Case(name, says, client=code, server=code, **how)


def ways(case: Case) -> Iterator[Way]:
    """List the ways on which a case can come to pass."""
    for arity in case.arities:
        for server in SERVERS:
            if server == "aio_context" and arity == "unary":
                continue  # nothing to read or write
            for client, arities in CLIENTS.items():
                way = Way(arity, server, client)
                if arity in arities and _is_told_apart(way) and _can_end(case.end, way) and case.possible(way):
                    yield way


def _is_told_apart(way: Way) -> bool:
    """Leave out asyncio channels of our own with all but the plainest of servers: they make the same calls."""
    return way.server == "aio" or "channel" not in way.client


def _can_end(end: End, way: Way) -> bool:
    """
    Tell whether a caller can end its call so.

    A unary one that it drops goes on, on a grpc.aio channel; on one of our own, a client-streaming one as well.
    """
    return way.client in _ENDS[end] and (end, way.arity, way.client) != ("drop", "unary", "aio_await")


AGREED: Final = (
    agreed("ok", "A call that is answered is OK.", StatusCode.OK),
    agreed(
        "abort",
        "An abort gives the call its code.",
        StatusCode.INVALID_ARGUMENT,
        act=abort,
        possible=not_plain_stream,
    ),
    agreed(
        "abort_first",
        "An abort before the first message of a stream gives the call its code.",
        StatusCode.INVALID_ARGUMENT,
        act=abort,
        first=None,
        arities=_MANY,
    ),
    agreed(
        "abort_early",
        "An abort while requests are still being written gives the call its code.",
        StatusCode.INVALID_ARGUMENT,
        act=abort,
        endless=True,
        early=True,
        arities=_FROM_MANY,
        possible=iterating,
    ),
    agreed(
        "abort_with_status",
        "An abort with a status object gives the call its code.",
        StatusCode.FAILED_PRECONDITION,
        act=abort_with_status,
        possible=not_plain,
    ),
    agreed("set_code", "A code that is set gives an answered call its code.", StatusCode.NOT_FOUND, act=set_code),
    agreed(
        "exception",
        "An exception that the handler does not catch is UNKNOWN, and told with the call.",
        StatusCode.UNKNOWN,
        act=fail,
        error=True,
    ),
    agreed(
        "exception_hidden",
        "An exception whose text is kept from the caller is UNKNOWN, and told with the call.",
        StatusCode.UNKNOWN,
        act=fail,
        error=True,
        hide=True,
    ),
    agreed(
        "exception_with_code",
        "An exception after a code was set has that code.",
        StatusCode.DATA_LOSS,
        act=fail_with_code,
        error=True,
    ),
    agreed(
        "exception_with_code_hidden",
        "An exception after a code was set is UNKNOWN where exceptions are hidden.",
        StatusCode.UNKNOWN,
        act=fail_with_code,
        error=True,
        hide=True,
    ),
    agreed(
        "chosen",
        "An exception that says no more than the code and text that were set before it is none.",
        StatusCode.NOT_FOUND,
        act=choose_and_raise,
    ),
    agreed(
        "chosen_not_hidden",
        "A code and a text that were set before an exception stay where exceptions are hidden.",
        StatusCode.NOT_FOUND,
        act=choose_and_raise,
        hide=True,
    ),
    agreed(
        "chosen_then_exception_hidden",
        "They stay before any exception, which is told if it says something else.",
        StatusCode.NOT_FOUND,
        act=choose_and_fail,
        error=True,
        hide=True,
    ),
    agreed(
        "abort_not_hidden",
        "An abort is not an exception to hide.",
        StatusCode.INVALID_ARGUMENT,
        act=abort,
        hide=True,
        possible=not_plain_stream,
    ),
    agreed(
        "exit",
        "A handler's SystemExit is answered at once, UNKNOWN, where exceptions are hidden.",
        StatusCode.UNKNOWN,
        act=leave,
        error=True,
        hide=True,
    ),
    agreed(
        "own_cancellation",
        "A CancelledError of the handler's own is answered at once, UNKNOWN, where exceptions are hidden.",
        StatusCode.UNKNOWN,
        act=cancel_itself,
        error=True,
        hide=True,
    ),
    agreed(
        "exit_unanswered",
        "A SystemExit that nothing hides leaves the caller of grpc.server waiting until its deadline.",
        StatusCode.DEADLINE_EXCEEDED,
        act=leave,
        error=True,
        timeout=LATER,
        possible=lambda way: way.server == "sync" and waiting(way),
    ),
    agreed(
        "own_cancellation_unanswered_sync",
        "A CancelledError of the handler's own that nothing hides leaves the caller of grpc.server waiting, too.",
        StatusCode.DEADLINE_EXCEEDED,
        act=cancel_itself,
        error=True,
        timeout=LATER,
        possible=lambda way: way.server == "sync" and waiting(way),
    ),
    agreed(
        "exit_with_code_unanswered",
        "A SystemExit that nothing hides is not answered on grpc.server with a code that was set before either.",
        StatusCode.DEADLINE_EXCEEDED,
        act=leave_with_code,
        error=True,
        timeout=LATER,
        possible=lambda way: way.server == "sync" and waiting(way),
    ),
    agreed(
        "exit_with_code",
        "A SystemExit after a code was set is UNKNOWN where exceptions are hidden.",
        StatusCode.UNKNOWN,
        act=leave_with_code,
        error=True,
        hide=True,
        possible=waiting,
    ),
    agreed(
        "unknown",
        "An unknown method is UNIMPLEMENTED.",
        StatusCode.UNIMPLEMENTED,
        method="Missing",
        early=True,
    ),
    agreed("cancel", "A call that its caller cancels is CANCELLED.", StatusCode.CANCELLED, act=hang, end="cancel"),
    agreed(
        "deadline_then_exception",
        "An exception that a handler raises after its call's end changes nothing.",
        StatusCode.DEADLINE_EXCEEDED,
        act=fail_late,
        timeout=SOON,
        possible=on("sync", "aio_plain"),
    ),
    agreed(
        "cancel_early",
        "A call cancelled while requests are still being written is CANCELLED.",
        StatusCode.CANCELLED,
        act=hang,
        end="cancel",
        endless=True,
        arities=_FROM_MANY,
        possible=iterating,
    ),
    agreed(
        "cancel_task",
        "A call whose awaiting task is cancelled is CANCELLED.",
        StatusCode.CANCELLED,
        act=hang,
        end="cancel_task",
    ),
    agreed(
        "drop",
        "A call that its caller drops half-way is CANCELLED.",
        StatusCode.CANCELLED,
        act=hang,
        end="drop",
    ),
    agreed(
        "drop_unread",
        "A stream that nobody reads is CANCELLED.",
        StatusCode.CANCELLED,
        act=hang,
        end="drop_unread",
    ),
    agreed(
        "close_channel",
        "A call whose channel is closed is CANCELLED.",
        StatusCode.CANCELLED,
        act=hang,
        end="close_channel",
    ),
    agreed(
        "deadline",
        "A call not over by its deadline, in the handler or half-way through a stream, is DEADLINE_EXCEEDED.",
        StatusCode.DEADLINE_EXCEEDED,
        act=hang,
        timeout=SOON,
    ),
    agreed(
        "deadline_early",
        "A deadline that comes while requests are still being written is DEADLINE_EXCEEDED.",
        StatusCode.DEADLINE_EXCEEDED,
        act=hang,
        endless=True,
        timeout=SOON,
        early=True,
        arities=_FROM_MANY,
        possible=iterating,
    ),
    agreed(
        "deadline_before",
        "A deadline that comes in an interceptor, before the handler starts, is DEADLINE_EXCEEDED.",
        StatusCode.DEADLINE_EXCEEDED,
        delayed=True,
        timeout=SOON,
        possible=on(*AIO_SERVERS),
    ),
    agreed(
        "deadline_in_queue",
        "A deadline that comes while a plain handler waits for a thread is DEADLINE_EXCEEDED.",
        StatusCode.DEADLINE_EXCEEDED,
        pool_busy=True,
        timeout=SOON,
        possible=on("aio_plain"),
    ),
    agreed(
        "cancel_of_a_stream_in_queue",
        "A stream that its caller cancels while a plain generator waits for a thread is CANCELLED.",
        StatusCode.CANCELLED,
        end="cancel",
        pool_busy=True,
        arities=_MANY,
        possible=on("aio_plain"),
    ),
    agreed(
        "limit",
        "A call over the server's limit of concurrent calls is RESOURCE_EXHAUSTED.",
        StatusCode.RESOURCE_EXHAUSTED,
        limited=True,
        early=True,
    ),
    agreed(
        "request_unparseable",
        "A request that cannot be parsed is INTERNAL on grpc.server.",
        StatusCode.INTERNAL,
        request=UNPARSEABLE,
        early=True,
        possible=on("sync"),
    ),
    agreed(
        "request_unparseable_aio",
        "A request that cannot be parsed is UNKNOWN on grpc.aio.server.",
        StatusCode.UNKNOWN,
        request=UNPARSEABLE,
        arities=_FROM_ONE,
        possible=on(*AIO_SERVERS),
    ),
    agreed(
        "request_of_stream_unparseable_aio",
        "A stream's request that cannot be parsed is an exception for its handler on grpc.aio.server.",
        StatusCode.UNKNOWN,
        request=UNPARSEABLE,
        early=True,
        error=True,
        arities=_FROM_MANY,
        possible=on(*AIO_SERVERS),
    ),
    agreed(
        "second_request_unparseable",
        "A stream whose second request cannot be parsed is INTERNAL on grpc.server.",
        StatusCode.INTERNAL,
        second=UNPARSEABLE,
        early=True,
        arities=_FROM_MANY,
        possible=lambda way: way.server == "sync" and waiting(way),
    ),
    agreed(
        "second_request_unparseable_aio",
        "A stream's second request that cannot be parsed is an exception for its handler on grpc.aio.server, too.",
        StatusCode.UNKNOWN,
        second=UNPARSEABLE,
        early=True,
        error=True,
        arities=_FROM_MANY,
        possible=on(*AIO_SERVERS),
    ),
    agreed(
        "request_parsed_to_none",
        "A request of which parsing makes None is INTERNAL on grpc.server.",
        StatusCode.INTERNAL,
        request=VANISHING,
        early=True,
        possible=on("sync"),
    ),
    agreed(
        "request_parsed_to_none_aio",
        "A request of which parsing makes None is like any other on grpc.aio.server.",
        StatusCode.OK,
        request=VANISHING,
        possible=on(*AIO_SERVERS),
    ),
    agreed(
        "request_unserialisable_aio",
        "A request that cannot be serialised is sent as an empty one on a grpc.aio channel.",
        StatusCode.OK,
        request=UNSERIALISABLE,
        possible=from_aio,
    ),
    agreed(
        "answer_none",
        "A handler that returns None, which cannot be serialised, is INTERNAL on grpc.server.",
        StatusCode.INTERNAL,
        last=None,
        error=True,
        arities=_ONE,
        possible=on("sync"),
    ),
    agreed(
        "answer_none_aio",
        "A handler that returns None, which cannot be serialised, is UNKNOWN on grpc.aio.server.",
        StatusCode.UNKNOWN,
        last=None,
        error=True,
        arities=_ONE,
        possible=on(*AIO_SERVERS),
    ),
    agreed(
        "second_unserialisable",
        "A stream whose second message cannot be serialised is INTERNAL on grpc.server.",
        StatusCode.INTERNAL,
        last=UNSERIALISABLE,
        error=True,
        arities=_MANY,
        possible=on("sync"),
    ),
    agreed(
        "second_unserialisable_aio",
        "A stream whose second message cannot be serialised is UNKNOWN on grpc.aio.server.",
        StatusCode.UNKNOWN,
        last=UNSERIALISABLE,
        error=True,
        arities=_MANY,
        possible=on(*AIO_SERVERS),
    ),
    agreed(
        "trailers_with_upper_case",
        "A call whose trailing metadata grpc's core does not take, for a key in upper case, is INTERNAL.",
        StatusCode.INTERNAL,
        act=end_with_upper_case,
    ),
    agreed(
        "trailers_with_accents",
        "So is one with a value that is no ASCII.",
        StatusCode.INTERNAL,
        act=end_with_accents,
    ),
    agreed(
        "abort_with_upper_case",
        "So is one that is aborted with them on grpc.server.",
        StatusCode.INTERNAL,
        act=abort_with_upper_case,
        possible=on("sync"),
    ),
    agreed(
        "abort_with_upper_case_aio",
        "On grpc.aio.server the abort then raises another exception, which is told.",
        StatusCode.INTERNAL,
        act=abort_with_upper_case,
        error=True,
        possible=lambda way: way.server != "sync" and not_plain_stream(way),
    ),
    agreed(
        "trailers_with_text_for_bytes",
        "A call whose trailing metadata cannot even be handed to grpc's core, a text for bytes, is never answered.",
        StatusCode.DEADLINE_EXCEEDED,
        act=end_with_text_for_bytes,
        timeout=LATER,
        possible=waiting,
    ),
    agreed(
        "trailers_with_a_number",
        "So is one with a number for a text on grpc.server.",
        StatusCode.DEADLINE_EXCEEDED,
        act=end_with_a_number,
        timeout=LATER,
        possible=patient("sync"),
    ),
    agreed(
        "trailers_with_a_number_aio",
        "On grpc.aio.server a number for a text is an exception for the handler.",
        StatusCode.UNKNOWN,
        act=end_with_a_number,
        error=True,
        possible=on(*AIO_SERVERS),
    ),
    agreed(
        "compression_of_no_kind",
        "A call with a compression that there is none of is never answered on grpc.server.",
        StatusCode.DEADLINE_EXCEEDED,
        act=compress,
        first=None,
        timeout=LATER,
        possible=patient("sync"),
    ),
    agreed(
        "compression_of_no_kind_aio",
        "So is a stream on grpc.aio.server, where the exception is seen.",
        StatusCode.DEADLINE_EXCEEDED,
        act=compress,
        first=None,
        error=True,
        timeout=LATER,
        arities=_MANY,
        possible=patient("aio", "aio_context"),
    ),
    agreed(
        "answer_that_is_no_bytes",
        "A call whose answer is no bytes, and that has no serialiser, is never answered on grpc.server.",
        StatusCode.DEADLINE_EXCEEDED,
        last=UNSERIALISABLE,
        raw=True,
        timeout=LATER,
        possible=patient("sync"),
    ),
    agreed(
        "answer_that_is_no_bytes_aio",
        "On grpc.aio.server it is UNKNOWN.",
        StatusCode.UNKNOWN,
        last=UNSERIALISABLE,
        raw=True,
        possible=on("aio", "aio_plain"),
    ),
    agreed(
        "answer_serialised_to_none",
        "An answer of which serialising makes None is INTERNAL on grpc.server.",
        StatusCode.INTERNAL,
        last=VANISHED,
        possible=on("sync"),
    ),
    agreed(
        "answer_serialised_to_none_aio",
        "An answer of which serialising makes None is an empty one on grpc.aio.server.",
        StatusCode.OK,
        last=VANISHED,
        possible=on(*AIO_SERVERS),
    ),
    agreed(
        "answer_unparseable_aio",
        "An asyncio caller is handed None for an answer that cannot be parsed, and the call is OK.",
        StatusCode.OK,
        last=UNPARSEABLE,
        possible=from_aio,
    ),
    Case(
        "unreachable",
        "A call to a server that is not there is UNAVAILABLE, and told by its caller alone.",
        client=StatusCode.UNAVAILABLE,
        server=None,
        absent=True,
    ),
    Case(
        "request_unserialisable",
        "A call whose request cannot be serialised is INTERNAL, and told by its caller alone.",
        client=StatusCode.INTERNAL,
        server=None,
        request=UNSERIALISABLE,
        arities=_FROM_ONE,
        possible=from_sync,
    ),
    Case(
        "request_too_large_to_send",
        "A call with a request larger than the client sends is RESOURCE_EXHAUSTED, and told by its caller alone.",
        client=StatusCode.RESOURCE_EXHAUSTED,
        server=None,
        request=LARGE,
        channel_options=_SEND_LITTLE,
        arities=_FROM_ONE,
    ),
)
"""Outcomes on which both sides agree, or that one side alone sees."""

DIVERGING: Final = (
    Case(
        "finished_then_dropped",
        "A stream dropped after the server has finished is CANCELLED for its caller, OK for the server.",
        client=StatusCode.CANCELLED,
        server=StatusCode.OK,
        end="drop_late",
    ),
    Case(
        "finished_then_cancelled",
        "A stream cancelled after the server has finished is CANCELLED for its caller, OK for the server.",
        client=StatusCode.CANCELLED,
        server=StatusCode.OK,
        end="cancel_late",
    ),
    Case(
        "server_stops",
        "A call whose server stops is UNAVAILABLE for its caller, CANCELLED for the server.",
        client=StatusCode.UNAVAILABLE,
        server=StatusCode.CANCELLED,
        act=hang,
        end="stop_server",
    ),
    Case(
        "request_of_stream_unserialisable",
        "A stream's request that cannot be serialised is INTERNAL for a sync caller, and cuts the server's call off.",
        client=StatusCode.INTERNAL,
        server=StatusCode.CANCELLED,
        second=UNSERIALISABLE,
        early=True,
        arities=_FROM_MANY,
        possible=steady_from_sync,
    ),
    Case(
        "request_of_stream_too_large_to_send",
        "A stream's request larger than the client sends is RESOURCE_EXHAUSTED, and cuts the server's call off.",
        client=StatusCode.RESOURCE_EXHAUSTED,
        server=StatusCode.CANCELLED,
        second=LARGE,
        channel_options=_SEND_LITTLE,
        early=True,
        arities=_FROM_MANY,
        possible=steady,
    ),
    Case(
        "text_too_long",
        "A status text of many kB makes the caller's code RESOURCE_EXHAUSTED; the server sent its own.",
        client=StatusCode.RESOURCE_EXHAUSTED,
        server=StatusCode.INVALID_ARGUMENT,
        act=abort_at_length,
        possible=not_plain_stream,
    ),
    Case(
        "answer_too_large",
        "An answer larger than the client accepts is RESOURCE_EXHAUSTED for it; the server has answered.",
        client=StatusCode.RESOURCE_EXHAUSTED,
        server=StatusCode.OK,
        last=LARGE,
        channel_options=_RECEIVE_LITTLE,
        arities=_ONE,
    ),
    Case(
        "message_too_large",
        "A stream's message larger than the client accepts cuts the server's call off.",
        client=StatusCode.RESOURCE_EXHAUSTED,
        server=StatusCode.CANCELLED,
        act=hang,
        first=LARGE,
        channel_options=_RECEIVE_LITTLE,
        arities=_MANY,
    ),
    Case(
        "answer_unparseable",
        "An answer that a sync client cannot parse is INTERNAL for it; the server has answered.",
        client=StatusCode.INTERNAL,
        server=StatusCode.OK,
        last=UNPARSEABLE,
        arities=_ONE,
        possible=from_sync,
    ),
    Case(
        "message_unparseable",
        "A stream's message that a sync client cannot parse cuts the server's call off.",
        client=StatusCode.INTERNAL,
        server=StatusCode.CANCELLED,
        act=hang,
        first=UNPARSEABLE,
        arities=_MANY,
        possible=from_sync,
    ),
    Case(
        "own_cancellation_unanswered",
        "A CancelledError of the handler's own that nothing hides leaves an asyncio server's caller waiting.",
        client=StatusCode.DEADLINE_EXCEEDED,
        server=StatusCode.UNKNOWN,
        act=cancel_itself,
        error=True,
        timeout=LATER,
        possible=lambda way: way.server != "sync" and waiting(way),
    ),
)
"""Outcomes of which each side truly saw something else."""

HIDDEN: Final = (
    Case(
        "request_of_stream_too_large",
        "A stream's request larger than the server accepts cuts its call off, for its handler like a caller who left.",
        client=StatusCode.RESOURCE_EXHAUSTED,
        server=StatusCode.CANCELLED,
        request=LARGE,
        server_options=_RECEIVE_LITTLE,
        early=True,
        arities=_FROM_MANY,
        possible=steady,
    ),
    Case(
        "request_of_stream_too_large_aio",
        "An asyncio handler that answers once sees such a stream end like any other, and its answer goes nowhere.",
        client=StatusCode.RESOURCE_EXHAUSTED,
        server=StatusCode.OK,
        request=LARGE,
        server_options=_RECEIVE_LITTLE,
        early=True,
        arities=("client_stream",),
        possible=on("aio", "aio_context"),
    ),
    Case(
        "cancel_before",
        "A call that its caller cancels while an interceptor waits, before the handler starts, looks like a deadline.",
        client=StatusCode.CANCELLED,
        server=StatusCode.DEADLINE_EXCEEDED,
        end="cancel",
        delayed=True,
        possible=on(*AIO_SERVERS),
    ),
    Case(
        "cancel_in_queue",
        "A call that its caller cancels while a plain handler waits for a thread looks like a deadline.",
        client=StatusCode.CANCELLED,
        server=StatusCode.DEADLINE_EXCEEDED,
        end="cancel",
        pool_busy=True,
        arities=_ONE,
        possible=on("aio_plain"),
    ),
    Case(
        "answer_too_large_to_send",
        "An answer larger than the server sends is refused by grpc's core after the handler's end.",
        client=StatusCode.RESOURCE_EXHAUSTED,
        server=StatusCode.OK,
        last=LARGE,
        server_options=_SEND_LITTLE,
        arities=_ONE,
        possible=lambda way: way.arity == "unary" or way.server != "sync",
    ),
    Case(
        "answer_to_stream_too_large_to_send",
        "An answer to a stream larger than grpc.server sends cuts its call off.",
        client=StatusCode.RESOURCE_EXHAUSTED,
        server=StatusCode.CANCELLED,
        last=LARGE,
        server_options=_SEND_LITTLE,
        arities=("client_stream",),
        possible=on("sync"),
    ),
    Case(
        "message_too_large_to_send",
        "A stream's message larger than the server sends cuts its call off.",
        client=StatusCode.RESOURCE_EXHAUSTED,
        server=StatusCode.CANCELLED,
        act=hang,
        first=LARGE,
        server_options=_SEND_LITTLE,
        arities=_MANY,
        possible=not_plain_stream,
    ),
)
"""Outcomes that grpc hides from a server's interceptors, and what is reported of them for now."""
