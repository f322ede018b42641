"""
What becomes of a client's call, event by event: the decisions alone, without grpc.

The orders are those in which the calls of the outcome matrix (tests/conformance) are seen, and those which its races
make possible; each is played under the rules of both stacks.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import CancelledError as FutureCancelledError
from operator import methodcaller
from typing import Any, Final, NamedTuple

import grpc
import pytest
from grpc import StatusCode

from observability import Call, Outcome
from observability.calls import observation
from observability.calls.method import method_at
from observability.calls.observers import Observers
from observability.client.call import AIO, SYNC, AioClientCall, ClientCall

SINGLE: Final = ("unary", "client_stream")
STREAMS: Final = ("server_stream", "bidi_stream")
ARITIES: Final = (*SINGLE, *STREAMS)
KINDS: Final = {"sync": ClientCall, "aio": AioClientCall}
OK, CANCELLED, UNKNOWN = StatusCode.OK, StatusCode.CANCELLED, StatusCode.UNKNOWN
LOCALLY, DROPPED = "Locally cancelled by application!", "Dropped before its end"
COLLECTED: Final = "Cancelled upon garbage collection!"

Event = Callable[[ClientCall], Any]


class AskedError(grpc.RpcError):
    """An error of grpc's that is not to be asked for anything."""

    def code(self) -> Any:
        """Fail the test."""
        raise AssertionError("asked for its code")

    details = code


ERROR: Final = AskedError()
FAILURE: Final = ValueError("no bread")


def sent(call: ClientCall) -> None:
    """Count a request, as what passes them on does."""
    call.sent += 1


def received(call: ClientCall) -> None:
    """Count a response, as what passes them on does."""
    call.received += 1


answered: Final = methodcaller("answered")
stream_ended: Final = methodcaller("stream_ended")
cancelled: Final = methodcaller("cancelled_by_caller")
dropped: Final = methodcaller("dropped")
dropped_deferred: Final = methodcaller("dropped_deferred")


def status(code: StatusCode, details: str = "") -> Event:
    """Let grpc have a status."""
    return methodcaller("status_received", code, details)


def raised(error: BaseException, code: StatusCode | None = None, details: str = "") -> Event:
    """Let the caller see an exception."""
    return methodcaller("raised", error, code, details)


def over(failure: Exception, code: StatusCode | None = None, details: str = "") -> Event:
    """Let the call be over, and show no status."""
    return methodcaller("over_without_status", failure, code, details)


class Played(NamedTuple):
    """What is reported of a call: at once by the events, and later by what they have deferred."""

    at_once: list[Outcome]
    later: list[Outcome]

    @property
    def ends(self) -> list[tuple[Any, ...]]:
        """All but the durations."""
        return [(one.code, one.details, one.error, one.sent, one.received) for one in (*self.at_once, *self.later)]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Played]:
    """Return what plays events on a new call; what they defer waits for the last of them."""
    deferred: list[Callable[[], object]] = []

    class Deferring:
        defer = staticmethod(deferred.append)

    monkeypatch.setattr(observation, "finalizers", Deferring)

    def played(kind: str, arity: Any, *events: Event) -> Played:
        outcomes: list[Outcome] = []

        def observer(_call: Call) -> Callable[[Outcome], None]:
            return outcomes.append

        started, method = time.perf_counter(), method_at("/words.v1.Words/Say", arity)
        call = KINDS[kind](method, "client", [], Observers.of([observer]), started, time.time_ns())
        for event in events:
            event(call)
        at_once = list(outcomes)
        while deferred:
            deferred.pop(0)()
        return Played(at_once, outcomes[len(at_once) :])

    return played


class Row(NamedTuple):
    """An order of events, and the call's end under both stacks' rules: its code, details, exception and counts."""

    says: str
    events: tuple[Event, ...]
    code: StatusCode
    details: str = ""
    error: BaseException | None = None
    sent: int = 0
    received: int = 0
    arities: tuple[str, ...] = ARITIES
    later: tuple[str, ...] = ()
    """The stacks where it is reported later, by another thread."""
    kinds: tuple[str, ...] = tuple(KINDS)

    @property
    def end(self) -> tuple[Any, ...]:
        """What is reported of it."""
        return self.code, self.details, self.error, self.sent, self.received


ROWS: Final = (
    # A single response.
    Row("an answer", (sent, answered), OK, sent=1, received=1, arities=SINGLE),
    Row("an answer, after grpc's status", (sent, status(OK), answered), OK, sent=1, received=1, arities=SINGLE),
    Row("an answer, before grpc's status", (sent, answered, status(OK)), OK, sent=1, received=1, arities=SINGLE),
    Row("an answer with details", (status(OK, "as asked"), answered), OK, "as asked", received=1, arities=SINGLE),
    Row("an answer to many requests", (sent, sent, answered), OK, sent=2, received=1, arities=("client_stream",)),
    Row("over, and shows no status", (over(FAILURE), answered), OK, received=1, arities=SINGLE),
    # A stream of responses.
    Row("a stream that is read", (sent, received, received, stream_ended), OK, sent=1, received=2, arities=STREAMS),
    Row("an empty stream", (stream_ended,), OK, arities=STREAMS),
    Row("an iterator's second end", (received, stream_ended, stream_ended), OK, received=1, arities=STREAMS),
    Row("a stream whose status is asked for", (received, received, status(OK)), OK, received=2, arities=STREAMS),
    Row("a stream that is over, and shows no status", (received, over(FAILURE)), OK, received=1, arities=STREAMS),
    # What a caller sees raised.
    Row(
        "a status that is raised",
        (sent, raised(ERROR, StatusCode.NOT_FOUND, "as asked")),
        StatusCode.NOT_FOUND,
        "as asked",
        sent=1,
    ),
    Row(
        "a status that is raised half-way",
        (sent, sent, received, raised(ERROR, StatusCode.UNAVAILABLE, "Socket closed")),
        StatusCode.UNAVAILABLE,
        "Socket closed",
        sent=2,
        received=1,
        arities=STREAMS,
    ),
    Row(
        "a status that grpc has, then raised",
        (status(StatusCode.NOT_FOUND, "as asked"), raised(ERROR, StatusCode.NOT_FOUND, "as asked")),
        StatusCode.NOT_FOUND,
        "as asked",
    ),
    Row(
        "a deadline",
        (status(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"), raised(ERROR, StatusCode.DEADLINE_EXCEEDED, "")),
        StatusCode.DEADLINE_EXCEEDED,
        "Deadline Exceeded",
    ),
    Row(
        "a status that a future shows at its end and raises",
        (raised(ERROR, StatusCode.NOT_FOUND, "as asked"), raised(ERROR, StatusCode.NOT_FOUND, "as asked")),
        StatusCode.NOT_FOUND,
        "as asked",
    ),
    Row(
        "a closed channel",
        (raised(ERROR, CANCELLED, "Channel closed!"), raised(ERROR, CANCELLED, "Channel closed!")),
        CANCELLED,
        "Channel closed!",
    ),
    Row("an exception without a status", (raised(FAILURE),), UNKNOWN, error=FAILURE),
    Row("an error of grpc's without a status", (raised(ERROR),), UNKNOWN, error=ERROR),
    Row("an error that says OK", (raised(ERROR, OK, "fine"),), UNKNOWN, error=ERROR),
    Row("an interrupt", (received, raised(KeyboardInterrupt())), CANCELLED, "Cancelled", received=1),
    Row("an interrupt with a code", (raised(SystemExit(), StatusCode.NOT_FOUND, "x"),), CANCELLED, "Cancelled"),
    Row("a task that is cancelled", (raised(asyncio.CancelledError()),), CANCELLED, "Cancelled"),
    Row(
        "a task that is cancelled, then grpc's status",
        (raised(asyncio.CancelledError()), status(CANCELLED, LOCALLY)),
        CANCELLED,
        "Cancelled",
    ),
    Row(
        "grpc's status, then a task that is cancelled",
        (status(CANCELLED, LOCALLY), raised(asyncio.CancelledError())),
        CANCELLED,
        LOCALLY,
    ),
    Row("a future that is cancelled", (raised(grpc.FutureCancelledError()),), CANCELLED, LOCALLY),
    Row(
        "a future that is cancelled, then grpc's status and what is asked of it",
        (raised(grpc.FutureCancelledError()), status(CANCELLED, LOCALLY), status(CANCELLED, LOCALLY)),
        CANCELLED,
        LOCALLY,
    ),
    Row(
        "a stream that is cancelled, and read on",
        (received, raised(ERROR, CANCELLED, LOCALLY), status(CANCELLED, LOCALLY)),
        CANCELLED,
        LOCALLY,
        received=1,
    ),
    Row("another library's", (raised(FutureCancelledError(), OK),), CANCELLED, LOCALLY),
    Row("a status of CANCELLED that is raised", (raised(ERROR, CANCELLED, "by them"),), CANCELLED, "by them"),
    # Cancelled by the caller.
    Row("a cancelled call", (sent, cancelled), CANCELLED, LOCALLY, sent=1, later=("sync", "aio")),
    Row(
        "a cancelled call, then grpc's status",
        (received, cancelled, status(CANCELLED, "other")),
        CANCELLED,
        LOCALLY,
        received=1,
        later=("aio",),
    ),
    Row(
        "a cancelled call, then what its caller sees",
        (cancelled, status(CANCELLED, LOCALLY), raised(asyncio.CancelledError())),
        CANCELLED,
        LOCALLY,
    ),
    Row(
        "a cancelled call, then what alone its caller sees",
        (cancelled, raised(asyncio.CancelledError())),
        CANCELLED,
        LOCALLY,
    ),
    Row(
        "grpc's status of a cancelled call", (status(CANCELLED, LOCALLY), cancelled), CANCELLED, LOCALLY, later=("aio",)
    ),
    Row(
        "grpc's status of a cancelled call, then what its caller sees",
        (status(CANCELLED, LOCALLY), cancelled, raised(asyncio.CancelledError())),
        CANCELLED,
        LOCALLY,
    ),
    Row("a cancelled call that is answered", (cancelled, answered), CANCELLED, LOCALLY, later=("sync", "aio")),
    Row(
        "a cancelled stream that is read on",
        (received, cancelled, received, stream_ended),
        CANCELLED,
        LOCALLY,
        received=1,
    ),
    Row("a call that was cancelled late", (status(OK), cancelled), OK, received=1, arities=SINGLE),
    Row(
        "a call that was cancelled after its deadline",
        (status(StatusCode.DEADLINE_EXCEEDED), cancelled),
        StatusCode.DEADLINE_EXCEEDED,
    ),
    # What grpc says without the caller.
    Row("grpc's CANCELLED", (status(CANCELLED, "Channel closed!"),), CANCELLED, "Channel closed!", later=("aio",)),
    Row("cancelled and over, and shows no status", (over(FutureCancelledError()),), CANCELLED, LOCALLY),
    Row("the same with grpc's", (over(grpc.FutureCancelledError()),), CANCELLED, LOCALLY),
    Row("the same with a status", (over(ERROR, CANCELLED, "by them"),), CANCELLED, "by them"),
    Row("over, with another status", (over(ERROR, UNKNOWN, "as asked"),), OK, received=1, arities=SINGLE),
    # Dropped.
    Row("a dropped call", (sent, dropped), CANCELLED, DROPPED, sent=1),
    Row("a dropped stream", (sent, received, dropped), CANCELLED, DROPPED, sent=1, received=1, arities=STREAMS),
    Row("a dropped call, then grpc's status", (dropped, status(CANCELLED, COLLECTED)), CANCELLED, DROPPED),
    Row("a call dropped with a status", (status(StatusCode.NOT_FOUND, "x"), dropped), StatusCode.NOT_FOUND, "x"),
    Row("a call dropped when answered", (status(OK), dropped), OK, received=1, arities=SINGLE),
    Row("a call dropped inside a collection", (dropped_deferred,), CANCELLED, DROPPED, later=("sync", "aio")),
    Row("the same, then what its caller sees", (dropped_deferred, raised(GeneratorExit())), CANCELLED, DROPPED),
    Row("a dropped call that is cancelled", (dropped, cancelled), CANCELLED, DROPPED),
    Row("a cancelled call that is dropped", (cancelled, dropped), CANCELLED, LOCALLY),
    Row("grpc's word for a dropped call", (status(CANCELLED, COLLECTED),), CANCELLED, DROPPED, kinds=("sync",)),
    Row(
        "grpc's word for a dropped call on asyncio",
        (status(CANCELLED, COLLECTED),),
        CANCELLED,
        COLLECTED,
        later=("aio",),
        kinds=("aio",),
    ),
    # What is no metadata.
    Row("no metadata", (methodcaller("metadata_refused", FAILURE),), UNKNOWN, error=FAILURE, kinds=("sync",)),
    Row(
        "no metadata, with a status",
        (methodcaller("metadata_refused", ERROR, StatusCode.NOT_FOUND, "x"),),
        StatusCode.NOT_FOUND,
        "x",
        kinds=("sync",),
    ),
    Row(
        "no metadata on asyncio",
        (methodcaller("metadata_refused", FAILURE), raised(ERROR, StatusCode.INTERNAL)),
        StatusCode.INTERNAL,
        kinds=("aio",),
    ),
    # Every status.
    *(Row(f"a raised {code.name}", (raised(ERROR, code, "x"),), code, "x") for code in StatusCode if code is not OK),
    *(
        Row(f"grpc's {code.name}", (status(code, "x"), answered), code, "x")
        for code in StatusCode
        if code not in (OK, CANCELLED)
    ),
)


PLAYED: Final = [
    pytest.param(row, kind, arity, id=f"{row.says}-{kind}-{arity}")
    for row in ROWS
    for kind in row.kinds
    for arity in row.arities
]


@pytest.mark.parametrize(("row", "kind", "arity"), PLAYED)
def test_end(row: Row, kind: str, arity: str, play: Callable[..., Played]) -> None:
    """
    The events give one end, reported once: at once, or later where it may be inside a garbage collection.
    """
    played = play(kind, arity, *row.events)

    assert [row.end] == played.ends
    assert len(played.later) == (kind in row.later)


ENDS: Final[dict[str, Event]] = {
    "answered": answered,
    "stream_ended": stream_ended,
    "status_received": status(StatusCode.NOT_FOUND, "as asked"),
    "status_received, OK": status(OK),
    "status_received, CANCELLED": status(CANCELLED, "by them"),
    "raised": raised(FAILURE),
    "over_without_status": over(FAILURE),
    "metadata_refused": methodcaller("metadata_refused", FAILURE),
    "cancelled_by_caller": cancelled,
    "dropped": dropped,
    "dropped_deferred": dropped_deferred,
}


@pytest.mark.parametrize("later", ENDS)
@pytest.mark.parametrize(
    ("kind", "first"),
    [(kind, first) for kind in KINDS for first in ENDS if (kind, first) != ("aio", "metadata_refused")],
)
def test_first_end_decides(first: str, later: str, kind: str, play: Callable[..., Played]) -> None:
    """
    Whatever comes after the first end changes nothing of what is reported.
    """
    alone = play(kind, "unary", ENDS[first])

    assert alone.ends == play(kind, "unary", ENDS[first], received, sent, ENDS[later]).ends
    assert len(alone.ends) == 1


def test_every_event_is_played() -> None:
    """
    The rows and these ends have every event that there is.
    """
    events = {name for name, value in vars(ClientCall).items() if callable(value) and not name.startswith("_")}

    assert events == {name.partition(",")[0] for name in ENDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "event",
    [
        methodcaller("status_received", StatusCode.NOT_FOUND, "", 1.5),
        methodcaller("status_received", CANCELLED, "", 1.5),
        methodcaller("raised", FAILURE, None, "", 1.5),
        methodcaller("raised", ERROR, StatusCode.NOT_FOUND, "", 1.5),
        methodcaller("raised", KeyboardInterrupt(), None, "", 1.5),
        methodcaller("raised", grpc.FutureCancelledError(), None, "", 1.5),
        methodcaller("over_without_status", FAILURE, None, "", 1.5),
        methodcaller("over_without_status", FutureCancelledError(), None, "", 1.5),
        methodcaller("dropped", 1.5),
    ],
)
def test_time_of_an_event(event: Event, kind: str, play: Callable[..., Played]) -> None:
    """
    An event that is passed on later ends the call at its own time.
    """
    played = play(kind, "unary", event)

    assert [1.5] == [outcome.seconds for outcome in (*played.at_once, *played.later)]


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_refused(kind: str, play: Callable[..., Played]) -> None:
    """
    What is no metadata is raised at the call on sync channels alone; on asyncio the call goes on, to what grpc does.
    """
    answers: list[bool] = []
    played = play(kind, "unary", lambda call: answers.append(call.metadata_refused(FAILURE)))

    assert [KINDS[kind].rules.refuses_metadata] == answers == [kind == "sync"]
    assert len(played.ends) == (kind == "sync")


def test_rules() -> None:
    """
    Each stack has its own row of the rules, and a call has no attributes but its slots.
    """
    assert (SYNC, AIO) == (ClientCall.rules, AioClientCall.rules)
    assert SYNC != AIO
    assert [] == [kind for kind in KINDS.values() if "__slots__" not in vars(kind) or kind.__dictoffset__]
