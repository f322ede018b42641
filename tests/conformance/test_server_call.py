"""
What becomes of a call on the server, decided from events alone: the table beside the real calls of the matrix.

Each row is an order of events that a case of the matrix brings about on some stacks; the code is the case's own.
"""

import itertools
import time
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import Any, NamedTuple, TypeAlias

import pytest
from grpc import StatusCode

from observability import Outcome, current_call
from observability.calls.method import Type, method_at
from observability.calls.observers import Observers
from observability.server.call import AIO, AIO_BLOCKING, PARSE_DETAILS, SERIALIZE_DETAILS, SYNC, Rules, ServerCall
from observability.threads.finalizers import finalizers
from tests.support.recorder import PATIENCE

from .cases import BY_NAME

Event: TypeAlias = Callable[[ServerCall], float | None]
"""Happens to a call; returns the seconds after which it is to be cut off, or None."""
RULES = {"sync": SYNC, "aio": AIO, "aio_blocking": AIO_BLOCKING}
ON_AIO = ("aio", "aio_blocking")
UPPER_CASE = (("KEY", "value"),)
UNSENDABLE = (("key-bin", "text"),)
ERROR = ValueError("no bread")
EXIT = SystemExit(1)


def looked_at(call: ServerCall) -> None:
    """Let grpc look at the handler, which it does unless it refuses the call."""
    call.accepted = True


def awaits(call: ServerCall) -> None:
    """Let grpc ask for the serializer of an only response."""
    call.awaits_only_response()


def parsed(call: ServerCall) -> None:
    """Receive a request."""
    call.received += 1


def sent(call: ServerCall) -> None:
    """Serialise a response of a stream."""
    call.sent += 1


def starts(call: ServerCall) -> None:
    """Start the handler."""
    call.handler_started()


def returns(call: ServerCall) -> None:
    """Let the handler return."""
    call.handler_returned()


def serialized(call: ServerCall) -> None:
    """Serialise the only response."""
    call.sent += 1
    call.only_response_serialized()


def interrupted(call: ServerCall) -> None:
    """Cancel the handler's task."""
    call.handler_interrupted()


def lost(call: ServerCall) -> None:
    """Make no bytes of a response."""
    call.response_lost()


def raises(uncaught: BaseException | None = ERROR) -> Event:
    """Let the handler raise this, or abort."""
    return lambda call: call.handler_raised(uncaught)


def dies(code: StatusCode | None = None, details: str = "") -> Event:
    """Let the handler raise what grpc.server does not answer, with this status set."""
    return lambda call: call.handler_died(EXIT, code, details)


def rejected(details: str, error: BaseException | None = None) -> Event:
    """Let a message be one that cannot be parsed, or serialised."""
    return lambda call: call.message_rejected(details, error)


def within(seconds: float) -> Event:
    """Let the caller have given so many seconds."""

    def event(call: ServerCall) -> None:
        call.deadline = seconds

    return event


def passes(seconds: float) -> Event:
    """Let time pass."""

    def event(call: ServerCall) -> None:
        call.started -= seconds

    return event


def usually(seconds: float) -> Event:
    """Let another caller of the method have given this much time."""

    def event(call: ServerCall) -> None:
        call.descriptor.usual_deadline = seconds

    return event


def over(
    code: StatusCode | None = None,
    details: str = "",
    metadata: Any = None,
    *,
    left: bool | None = None,
    failure: BaseException | None = None,
) -> Event:
    """Let grpc show that the call is over, with this status set."""

    def event(call: ServerCall) -> float | None:
        def remaining() -> float | None:
            return None if call.deadline is None else call.deadline - call.seconds

        known = left if call.rules is SYNC or left is not None else False  # asyncio knows it always
        return call.terminated((code, details, metadata), remaining, left=known, failure=failure)

    return event


def dropped(call: ServerCall) -> None:
    """Drop a handler of whose call nobody says that it is over."""
    call.is_dropped = True
    call.dropped((None, None, None))


def unserved(*, cut_off: bool) -> Event:
    """Drop a handler that never ran, or end the task in which it would have run."""
    return lambda call: call.unserved(cut_off=cut_off)


CUT_OFF = over(left=True)
ONCE = (looked_at, awaits, parsed, starts)
"""How a handler with one response starts."""
STREAM = (looked_at, parsed, starts, sent)
"""How one with many does, when it has given one."""


class Row(NamedTuple):
    """An order of events, which case of the matrix brings it about, and on which stacks."""

    case: str
    stacks: Iterable[str]
    events: tuple[Event, ...]
    error: type[BaseException] | None = None


ROWS = (
    Row("ok", RULES, (*ONCE, returns, serialized, over())),
    Row("ok", RULES, (*STREAM, returns, over())),
    Row("ok", ON_AIO, (*STREAM, over())),  # how the handler ended was not seen
    Row("ok", ["sync"], (*ONCE, returns, serialized, over(left=False))),  # a stream of requests shows who left
    Row("ok", RULES, (*ONCE, raises(), serialized, over())),  # an interceptor has answered for it
    Row("ok", RULES, (*ONCE, returns, within(60), serialized, passes(1), over())),  # grpc's thread is behind
    Row("ok", RULES, (*STREAM, raises(), starts, returns, over())),  # an interceptor has run it again
    Row("ok", ON_AIO, (*ONCE, rejected(PARSE_DETAILS), returns, serialized, over())),  # a handler may go on without it
    Row("abort", RULES, (*ONCE, raises(None), over(StatusCode.INVALID_ARGUMENT, "as asked"))),
    Row("abort", RULES, (*STREAM, raises(None), over(StatusCode.INVALID_ARGUMENT, "as asked"))),
    Row("abort_first", RULES, (*ONCE, raises(None), over(StatusCode.INVALID_ARGUMENT, "as asked"))),
    Row("abort_early", RULES, (looked_at, awaits, starts, raises(None), over(StatusCode.INVALID_ARGUMENT, "as asked"))),
    Row("abort_with_status", RULES, (*ONCE, raises(None), over(StatusCode.FAILED_PRECONDITION, "as asked"))),
    Row("abort_not_hidden", RULES, (*ONCE, raises(None), over(StatusCode.INVALID_ARGUMENT, "as asked"))),
    Row("text_too_long", RULES, (*ONCE, raises(None), over(StatusCode.INVALID_ARGUMENT, "x" * 20_000))),
    Row("set_code", RULES, (*ONCE, returns, serialized, over(StatusCode.NOT_FOUND, "as asked"))),
    Row("set_code", RULES, (*ONCE, returns, over(StatusCode.NOT_FOUND, "as asked"))),  # serialises nothing then
    Row("set_code", RULES, (*STREAM, returns, over(StatusCode.NOT_FOUND, "as asked"))),
    Row("exception", RULES, (*ONCE, raises(), over()), ValueError),
    Row("exception", RULES, (*STREAM, raises(), over()), ValueError),
    Row("exception_hidden", RULES, (*ONCE, raises(), over(StatusCode.UNKNOWN, "internal error")), ValueError),
    Row("exception_with_code", RULES, (*ONCE, raises(), over(StatusCode.DATA_LOSS)), ValueError),
    Row("exception_with_code_hidden", RULES, (*ONCE, raises(), over(StatusCode.UNKNOWN, "internal error")), ValueError),
    Row("chosen", RULES, (*ONCE, raises(None), over(StatusCode.NOT_FOUND, "as asked"))),
    Row("chosen_not_hidden", RULES, (*ONCE, raises(None), over(StatusCode.NOT_FOUND, "as asked"))),
    Row("chosen_then_exception_hidden", RULES, (*ONCE, raises(), over(StatusCode.NOT_FOUND, "as asked")), ValueError),
    Row("exit", ["sync"], (*ONCE, dies(), over(StatusCode.UNKNOWN, "internal error")), SystemExit),
    Row("exit", ON_AIO, (*ONCE, raises(EXIT), over(StatusCode.UNKNOWN, "internal error")), SystemExit),
    Row("own_cancellation", ["sync"], (*ONCE, dies(), over(StatusCode.UNKNOWN, "internal error")), SystemExit),
    Row("own_cancellation", ON_AIO, (*ONCE, raises(), over(StatusCode.UNKNOWN, "internal error")), ValueError),
    Row("own_cancellation_unanswered", ON_AIO, (*ONCE, raises(), over()), ValueError),
    Row("exit_unanswered", ["sync"], (within(1), *ONCE, dies(), passes(1), over()), SystemExit),
    Row("own_cancellation_unanswered_sync", ["sync"], (within(1), *ONCE, dies(), passes(1), over()), SystemExit),
    Row(
        "exit_with_code_unanswered",
        ["sync"],
        (within(1), *ONCE, dies(StatusCode.DATA_LOSS, "x"), passes(1), over(StatusCode.DATA_LOSS, "x")),
        SystemExit,
    ),
    Row("exit_with_code", ["sync"], (*ONCE, dies(StatusCode.DATA_LOSS), over(StatusCode.UNKNOWN, "x")), SystemExit),
    Row("exit_with_code", ON_AIO, (*ONCE, raises(EXIT), over(StatusCode.UNKNOWN, "x")), SystemExit),
    Row("cancel", RULES, (*ONCE, CUT_OFF)),
    Row("cancel", ["sync"], (*STREAM, over())),  # there is no answer
    Row("cancel", ["sync"], (*STREAM, returns, CUT_OFF)),  # its handler saw the requests end like any others
    Row("cancel", ["aio"], (*STREAM, interrupted, CUT_OFF)),
    Row("cancel", ["aio"], (*STREAM, raises(), CUT_OFF)),  # what it raises since it is cut off
    Row("cancel", ["aio_blocking"], (*STREAM, returns, CUT_OFF)),
    Row("cancel", ["aio_blocking"], (*ONCE, raises(), CUT_OFF)),
    Row("cancel", ["aio"], (*STREAM, interrupted, over(metadata=UPPER_CASE, left=True))),
    Row("cancel", ["aio_blocking"], (*STREAM, returns, over(metadata=UPPER_CASE, left=True))),
    Row("cancel", ["sync"], (*ONCE, returns, serialized, over(metadata=UNSENDABLE))),  # it waited, and then left
    Row("cancel", RULES, (*STREAM, passes(1), within(60), CUT_OFF)),
    Row("cancel", RULES, (*STREAM, dropped)),  # nobody says that it is over
    Row("cancel_early", RULES, (*STREAM, CUT_OFF)),
    Row("cancel_task", RULES, (*ONCE, CUT_OFF)),
    Row("drop", RULES, (*STREAM, CUT_OFF)),
    Row("drop_unread", RULES, (*STREAM, CUT_OFF)),
    Row("close_channel", RULES, (*ONCE, CUT_OFF)),
    Row("server_stops", RULES, (*ONCE, CUT_OFF)),
    Row("server_stops", ["aio"], (*ONCE, raises(EXIT), CUT_OFF), SystemExit),  # with which the event loop ends
    Row("request_of_stream_unserialisable", RULES, (*ONCE, CUT_OFF)),
    Row("request_of_stream_too_large_to_send", RULES, (*ONCE, CUT_OFF)),
    Row("request_of_stream_too_large", RULES, (*ONCE, CUT_OFF)),
    Row("request_of_stream_too_large_aio", ["aio"], (looked_at, awaits, starts, returns, serialized, over())),
    Row("message_too_large", RULES, (*STREAM, CUT_OFF)),
    Row("message_unparseable", RULES, (*STREAM, CUT_OFF)),
    Row("message_too_large_to_send", ["sync", "aio"], (*STREAM, CUT_OFF)),
    Row("answer_to_stream_too_large_to_send", ["sync"], (*ONCE, returns, serialized, CUT_OFF)),
    Row("deadline", RULES, (within(1), *ONCE, passes(1), CUT_OFF)),
    Row("deadline", RULES, (within(1), *STREAM, passes(0.96), CUT_OFF)),  # the caller gives up a little before
    Row("deadline", ["aio"], (within(1), *STREAM, passes(1), interrupted, CUT_OFF)),
    Row("deadline", ["sync"], (within(1), *STREAM, passes(1), raises(), CUT_OFF), ValueError),
    Row("deadline", RULES, (within(1), *STREAM, passes(1), dropped)),
    Row("deadline_early", RULES, (within(1), *ONCE, passes(1), CUT_OFF)),
    Row("deadline_then_exception", ["sync"], (within(1), *ONCE, passes(1), over())),
    Row("deadline_then_exception", ["aio_blocking"], (within(1), *ONCE, passes(1), CUT_OFF, raises())),
    Row("deadline_before", ON_AIO, (passes(0.25), unserved(cut_off=True))),
    Row("deadline_in_queue", RULES, (looked_at, awaits, parsed, passes(0.25), unserved(cut_off=True))),
    Row("deadline", RULES, (usually(0.25), looked_at, awaits, passes(0.25), unserved(cut_off=False))),
    Row("cancel", RULES, (usually(1), looked_at, awaits, passes(0.25), unserved(cut_off=False))),
    Row("deadline_of_a_stream_in_queue", ["aio_blocking"], (within(1), looked_at, awaits, passes(1), CUT_OFF)),
    Row("request_too_large", RULES, (looked_at, awaits, passes(0.01), unserved(cut_off=False))),
    Row("cancel_before", ON_AIO, (passes(0.25), unserved(cut_off=True))),
    Row("cancel_in_queue", ["aio_blocking"], (looked_at, awaits, passes(0.25), unserved(cut_off=True))),
    Row("cancel_of_a_stream_in_queue", ["aio_blocking"], (looked_at, passes(0.01), unserved(cut_off=True))),
    Row("cancel_of_a_stream_in_queue", RULES, (looked_at, parsed, unserved(cut_off=False))),  # answered elsewhere
    Row("limit", RULES, (passes(1), unserved(cut_off=False))),
    Row("request_unparseable", ["sync"], (looked_at, awaits, rejected(PARSE_DETAILS), unserved(cut_off=False))),
    Row("request_unparseable", ["sync"], (looked_at, awaits, rejected(PARSE_DETAILS), over(StatusCode.INTERNAL, "x"))),
    Row("ok", ["sync"], (looked_at, awaits, rejected(PARSE_DETAILS), serialized, unserved(cut_off=False))),  # elsewhere
    Row("request_parsed_to_none", ["sync"], (looked_at, awaits, rejected(PARSE_DETAILS), unserved(cut_off=False))),
    Row("second_request_unparseable", ["sync"], (*ONCE, rejected(PARSE_DETAILS), over(left=False))),
    Row("second_request_unparseable", ["sync"], (*ONCE, rejected(PARSE_DETAILS), returns, over(left=False))),
    Row("request_unparseable_aio", ON_AIO, (looked_at, awaits, rejected(PARSE_DETAILS), unserved(cut_off=False))),
    Row("request_unparseable_aio", ON_AIO, (looked_at, awaits, rejected(PARSE_DETAILS), over(StatusCode.UNKNOWN, "x"))),
    Row(
        "request_of_stream_unparseable_aio",
        ON_AIO,
        (looked_at, awaits, starts, rejected(PARSE_DETAILS), raises(), over()),
        ValueError,
    ),
    Row("second_request_unparseable_aio", ON_AIO, (*ONCE, rejected(PARSE_DETAILS), raises(), over()), ValueError),
    Row("request_parsed_to_none_aio", ON_AIO, (*ONCE, returns, serialized, over())),
    Row("request_unserialisable_aio", RULES, (*ONCE, returns, serialized, over())),
    Row("answer_none", ["sync"], (*ONCE, returns, rejected(SERIALIZE_DETAILS, ERROR), over()), ValueError),
    Row("answer_none_aio", ON_AIO, (*ONCE, returns, rejected(SERIALIZE_DETAILS, ERROR), over()), ValueError),
    Row("second_unserialisable", ["sync"], (*STREAM, rejected(SERIALIZE_DETAILS, ERROR), over()), ValueError),
    Row("second_unserialisable_aio", ["aio"], (*STREAM, rejected(SERIALIZE_DETAILS), raises(), over()), ValueError),
    Row(
        "second_unserialisable_aio",
        ["aio_blocking"],
        (*STREAM, rejected(SERIALIZE_DETAILS, ERROR), returns, over()),
        ValueError,
    ),
    Row("trailers_with_upper_case", RULES, (*ONCE, returns, serialized, over(metadata=UPPER_CASE))),
    Row("trailers_with_upper_case", ["sync"], (*ONCE, returns, serialized, over(metadata=UPPER_CASE, left=True))),
    Row("trailers_with_accents", RULES, (*STREAM, returns, over(metadata=(("key", "é"),)))),
    Row("abort_with_upper_case", ["sync"], (*ONCE, raises(None), over(StatusCode.ABORTED, "x", UPPER_CASE))),
    Row("abort_with_upper_case_aio", ON_AIO, (*ONCE, raises(), over(StatusCode.ABORTED, "x", UPPER_CASE)), ValueError),
    Row(
        "trailers_with_text_for_bytes",
        ["sync"],
        (within(1), *ONCE, returns, serialized, passes(1), over(metadata=UNSENDABLE)),
    ),
    Row("trailers_with_text_for_bytes", ON_AIO, (within(1), *ONCE, returns, serialized, over(metadata=UNSENDABLE))),
    Row("trailers_with_a_number", ["sync"], (within(1), *STREAM, returns, passes(1), over(metadata=(("key", 1),)))),
    Row("trailers_with_a_number_aio", ON_AIO, (*ONCE, raises(), over()), ValueError),
    Row("compression_of_no_kind", ["sync"], (within(1), *ONCE, returns, serialized, passes(1), over())),
    Row("compression_of_no_kind_aio", ["aio"], (within(1), *STREAM, returns, over(failure=ERROR)), ValueError),
    Row("answer_that_is_no_bytes", ["sync"], (within(1), *ONCE, returns, lost, passes(1), over())),
    Row("answer_that_is_no_bytes", ["sync"], (within(1), *ONCE, passes(0.9), returns, lost, passes(0.1), over())),
    Row("answer_that_is_no_bytes_aio", ON_AIO, (*ONCE, returns, lost, over())),
    Row("answer_serialised_to_none", ["sync"], (*ONCE, returns, rejected(SERIALIZE_DETAILS), over())),
    Row("answer_serialised_to_none_aio", ON_AIO, (*ONCE, returns, serialized, over())),
    Row("answer_unparseable_aio", RULES, (*ONCE, returns, serialized, over())),
    Row("answer_unparseable", RULES, (*ONCE, returns, serialized, over())),
    Row("answer_too_large", RULES, (*ONCE, returns, serialized, over())),
    Row("answer_too_large_to_send", RULES, (*ONCE, returns, serialized, over())),
    Row("finished_then_dropped", RULES, (*STREAM, returns, over())),
    Row("finished_then_cancelled", RULES, (*STREAM, returns, over())),
)
ELSEWHERE = {"unknown"}
"""Cases of which a server's interceptor knows the end at once: there is no handler."""


def started(rules: Rules, outcomes: list[Outcome], type_: Type = "unary") -> ServerCall:
    """Start a call, whose outcomes are kept in this list."""
    observers = Observers.of([lambda _call: outcomes.append])
    arguments = rules, method_at("/s/m", type_), (), observers, time.perf_counter(), time.time_ns()
    return copy_context().run(ServerCall, *arguments)


def play(call: ServerCall, events: Iterable[Event]) -> None:
    """Let these happen to a call, in a context like each call's own, and time pass where it waits for its deadline."""

    def happen() -> None:
        for event in events:
            wait = event(call)
            if wait is not None and not call.ended:
                passes(wait)(call)
                call.cut_off()

    copy_context().run(happen)


@pytest.mark.parametrize(
    ("stack", "row"),
    [
        pytest.param(stack, row, id=f"{row.case}-{number}-{stack}")
        for number, row in enumerate(ROWS)
        for stack in row.stacks
    ],
)
def test_decision(stack: str, row: Row) -> None:
    """A call ends once, with the code of its case, and with the handler's exception if nobody caught one."""
    outcomes: list[Outcome] = []
    call = started(RULES[stack], outcomes)

    play(call, row.events)
    if not outcomes:  # a deferred one is reported with the next end
        call.end(StatusCode.OK)

    assert [(BY_NAME[row.case].server, row.error)] == [
        (outcome.code, None if outcome.error is None else type(outcome.error)) for outcome in outcomes
    ]


def test_every_case_of_the_matrix_has_a_row() -> None:
    """Whatever the matrix plays on a server is decided here as well."""
    assert {name for name, case in BY_NAME.items() if case.server} - ELSEWHERE == {row.case for row in ROWS}


@pytest.mark.parametrize(
    ("stack", "end", "value", "code"),
    [
        ("sync", returns, 5, StatusCode.UNKNOWN),
        ("aio", returns, 5, StatusCode.NOT_FOUND),
        ("aio_blocking", returns, 5, StatusCode.NOT_FOUND),
        ("aio", returns, 99, StatusCode.UNKNOWN),
        ("sync", returns, "NOT_FOUND", StatusCode.UNKNOWN),
        ("aio", returns, "NOT_FOUND", StatusCode.UNKNOWN),
        ("sync", raises(), StatusCode.OK, StatusCode.OK),
        ("aio", raises(), StatusCode.OK, StatusCode.UNKNOWN),
        ("aio_blocking", raises(), StatusCode.OK, StatusCode.UNKNOWN),
    ],
)
def test_code_that_was_set(stack: str, end: Event, value: Any, code: StatusCode) -> None:
    """A number is a code on asyncio alone, and what is none is UNKNOWN; an OK of who raised stands on sync alone."""
    outcomes: list[Outcome] = []

    play(started(RULES[stack], outcomes), (*STREAM, end, over(value)))

    assert [code] == [outcome.code for outcome in outcomes]


@pytest.mark.parametrize(
    ("events", "details"),
    [
        ((*ONCE, raises(None), over(StatusCode.ABORTED, "as asked")), "as asked"),
        ((*ONCE, raises(None), over(StatusCode.ABORTED, b"as asked")), "as asked"),  # type: ignore[arg-type]
        ((*ONCE, returns, rejected(SERIALIZE_DETAILS), over()), SERIALIZE_DETAILS),
        ((looked_at, rejected(PARSE_DETAILS), unserved(cut_off=False)), PARSE_DETAILS),
        ((*ONCE, returns, serialized, over(metadata=UPPER_CASE)), "Invalid metadata"),
        ((*ONCE, CUT_OFF), "Cancelled"),
        ((within(1), *ONCE, passes(1), CUT_OFF), "Deadline Exceeded"),
        ((unserved(cut_off=False),), "Concurrent RPC limit exceeded!"),
        ((looked_at, parsed, unserved(cut_off=False)), "Ended before its handler started, by another interceptor"),
        ((*ONCE, returns, serialized, over()), ""),
    ],
)
@pytest.mark.parametrize("stack", RULES)
def test_details(stack: str, events: tuple[Event, ...], details: str) -> None:
    """The details are those that were set, or else say what grpc's own status says."""
    outcomes: list[Outcome] = []

    play(started(RULES[stack], outcomes), events)

    assert [details] == [outcome.details for outcome in outcomes]


def test_latency_is_that_of_the_answer() -> None:
    """A call ends when its handler's answer is there, however late grpc's thread says so; a cut-off one ends then."""
    outcomes: list[Outcome] = []

    play(started(SYNC, outcomes), (*ONCE, returns, serialized, passes(3), over()))
    play(started(SYNC, outcomes), (*ONCE, passes(3), CUT_OFF))

    assert outcomes[0].seconds < 1
    assert outcomes[1].seconds > 2


HAPPENINGS: tuple[Event, ...] = (
    looked_at,
    awaits,
    parsed,
    sent,
    starts,
    returns,
    raises(),
    raises(None),
    interrupted,
    dies(),
    serialized,
    lost,
    rejected(PARSE_DETAILS),
    rejected(SERIALIZE_DETAILS, ERROR),
    within(1),
    passes(1),
)
ENDS: tuple[Event, ...] = (
    over(),
    over(StatusCode.ABORTED, "x"),
    over(metadata=UPPER_CASE),
    over(metadata=UNSENDABLE),
    CUT_OFF,
    over(failure=ERROR),
    dropped,
    unserved(cut_off=True),
    unserved(cut_off=False),
)


@pytest.mark.parametrize("stack", RULES)
def test_any_order_of_events_ends_once(stack: str) -> None:
    """Whatever happens in whatever order, and however the end is seen, and seen again, one outcome is reported."""
    for *happened, end in itertools.product(HAPPENINGS, HAPPENINGS, ENDS):
        outcomes: list[Outcome] = []
        call = started(RULES[stack], outcomes)

        play(call, (*happened, end))
        ended = call.ended
        play(call, (CUT_OFF,))
        call.end(StatusCode.DATA_LOSS)  # a deferred one is reported with the next end, or just now by its thread
        if not outcomes:
            finalizers.flush(PATIENCE)

        assert ended
        assert 1 == len(outcomes)
        assert isinstance(outcomes[0].code, StatusCode)
        assert outcomes[0].code is not StatusCode.DATA_LOSS


def test_context_is_left_as_it_was() -> None:
    """What is decided here leaves no call to the tests after it."""
    play(started(SYNC, []), (starts,))

    assert current_call() is None
