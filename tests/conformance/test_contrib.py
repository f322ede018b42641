"""
The same outcomes through Telemetry under OBSERVABILITY_TRACES=contrib: logs and metrics as ever, spans as they come.

What the official interceptors hide from ours, or break in a call itself, is an expected failure here, too.

What the official spans say of each case stands in docs/conformance.md. Where that is not right the test is an expected
failure; where it is no longer so the test fails: `python -m tests.conformance --write` writes the page anew.
"""

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import grpc.aio
import pytest
from grpc import StatusCode
from opentelemetry.instrumentation.grpc import aio_client_interceptors as official_interceptors
from opentelemetry.instrumentation.grpc import filters

from observability import Call, Outcome, aio_client_interceptors

from . import engines, expected
from .cases import AGREED, DIVERGING, HIDDEN, SOON, Way, responses_stream, ways
from .clients import stub
from .engines import PAGE, RIGHT, UNPLAYABLE, Cell, plainest
from .loop import run
from .messages import FIRST
from .play import Played, call, play, staged
from .stage import Stage

# Its asyncio interceptors await what blocking handlers return, and iterate what has no __aiter__.
pytestmark = pytest.mark.expects_errors(r"\[TypeError: .*(__aiter__|_MessageReceiver|'await' expression)")


class Seen(NamedTuple):
    """A cell, and what came of it."""

    cell: Cell
    played: Played


@pytest.fixture(scope="module", params=list(engines.cells()), ids=str)
def seen(request: pytest.FixtureRequest) -> Seen:
    """Play one cell with the official interceptors."""
    return Seen(request.param, engines.play_with("contrib", request.param))


@pytest.fixture(scope="module")
def page() -> engines.Verdicts:
    """Give what the page says."""
    return engines.read()


def test_log_and_metrics(seen: Seen, request: pytest.FixtureRequest) -> None:
    """Log and metrics are right, whatever the official spans say, but for the limit of concurrent calls."""
    case, record = seen.cell.case, seen.played.record
    if case.name == "limit":
        reason = "the official interceptor, before ours, reads the handler of a call that is refused: CANCELLED"
        request.applymarker(pytest.mark.xfail(reason=reason, raises=AssertionError, strict=True))

    assert case.client is seen.played.got
    assert {"client": expected.signals(case.client), "server": expected.signals(case.server)} == {
        kind: record.signals(kind) for kind in ("client", "server")
    }


OK = AGREED[0]


def _broken(way: Way) -> str | None:
    """Say how the official interceptors break even a call that is answered, on this way."""
    if way.server == "aio_plain":
        return "the official asyncio server awaits what a plain handler returns"
    if way.server == "aio_context" and responses_stream(way.arity):
        return "the official asyncio server iterates over what a handler that writes by hand returns"
    if way.client == "aio_write":
        return "the official asyncio client waits for the answer before a request can be written by hand"
    return None


def _other_ways() -> Iterator[object]:
    """
    List the ways on which no cell is played, with what is known to fail there.

    An asyncio channel of our own is refused: the official interceptors cannot be put around it.
    """
    played = {cell.way for cell in engines.cells() if cell.case is OK}
    for way in ways(OK):
        if way not in played and "channel" not in way.client:
            reason = _broken(way)
            failure = pytest.mark.xfail(reason=str(reason), raises=AssertionError, strict=True)
            yield pytest.param(way, id="-".join(way), marks=[failure] if reason else [])


async def _collect() -> None:
    """Let go of what the official interceptors leave behind, where it cannot be running."""
    gc.collect()


@pytest.mark.parametrize("way", list(_other_ways()))
@pytest.mark.filterwarnings(
    # What the official asyncio interceptors leave behind of the ways that they break: tasks and coroutines.
    "ignore:coroutine .* was never awaited:RuntimeWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
def test_every_other_way(way: Way) -> None:
    """On every way that the official interceptors know, an answered call is OK, and reported once on each side."""
    case = replace(OK, timeout=SOON) if way.client == "aio_write" else OK
    played = play(case, way, "contrib")
    run(_collect())

    assert StatusCode.OK is played.got
    assert [expected.signals(StatusCode.OK)] * 2 == [played.record.signals(kind) for kind in ("client", "server")]


@pytest.mark.parametrize("kind", ["client", "server"])
def test_spans(seen: Seen, page: engines.Verdicts, kind: str) -> None:
    """The official spans say what the page says that they do; nothing else is right."""
    cell = seen.cell
    verdict = cell.verdict(kind, seen.played.record.spans(kind))
    if cell.lucky(kind):
        assert cell.column(kind) not in page[cell.way.arity, cell.case.name]
        return

    assert page[cell.way.arity, cell.case.name][cell.column(kind)] == verdict
    if verdict != RIGHT:
        pytest.xfail(verdict)


def test_page_is_up_to_date(page: engines.Verdicts) -> None:
    """The page is what is written of its verdicts, for all cells that there are."""
    rows = {(cell.way.arity, cell.case.name) for cell in engines.cells()}
    rows |= {(arity, name) for name, arity, _ in UNPLAYABLE}

    assert rows == set(page)
    assert engines.render(page) == PAGE.read_text("utf-8")
    assert {RIGHT} == {row["native"] for row in page.values()}


def _unplayable(reason: str) -> list[object]:
    """List the cells that cannot be played for this reason."""
    cases = {case.name: case for case in (*AGREED, *DIVERGING, *HIDDEN)}
    ways = [
        (cases[name], plainest(cases[name], arity, server))
        for (name, arity, server), why in UNPLAYABLE.items()
        if why == reason
    ]
    return [pytest.param(Cell(case, way), id=f"{case}-{way.arity}") for case, way in ways if way]


@pytest.mark.parametrize("cell", _unplayable("the stream has no `cancel`"))
def test_official_stream_cannot_be_cancelled(cell: Cell) -> None:
    """The official sync client hands out a server's stream as a mere generator."""
    with pytest.raises(AttributeError, match="'generator' object has no attribute 'cancel'"):
        play(cell.case, cell.way, "contrib")


@pytest.mark.parametrize("cell", _unplayable("the call is never sent"))
def test_official_stream_is_not_sent_before_it_is_read(cell: Cell) -> None:
    """The official sync client makes a server-streaming call only when its first message is asked for."""
    with staged(cell.case, cell.way, "contrib") as stage:
        stage.serving.set()
        call(stage)

        assert not stage.arrived.is_set()
        assert [] == stage.record.lines


@pytest.mark.parametrize("cell", _unplayable("never cancelled on the wire"))
def test_official_call_is_not_cancelled_on_the_wire(cell: Cell) -> None:
    """
    The official asyncio client never lets a unary call's cancellation through: the server goes on, and answers.

    Nor does it let go of a client-streaming call that is dropped.
    """
    with staged(cell.case, cell.way, "contrib") as stage:
        got = call(stage)
        stage.over.set()
        stage.record.wait("server")

    assert StatusCode.CANCELLED is got
    assert ["OK"] == [line["code"] for line in stage.record.lines if line["kind"] == "server"]


def test_ours_may_stand_outside() -> None:
    """Ours may stand outside the official asyncio interceptors, whose filters know a call by grpc's own type."""
    codes: list[StatusCode] = []

    def witness(_call: Call) -> Callable[[Outcome], None]:
        return lambda outcome: codes.append(outcome.code)

    async def call_through(stage: Stage) -> None:
        official: Any = official_interceptors  # it has no types
        outside, inside = (
            aio_client_interceptors(witness),
            official(filter_=filters.negate(filters.service_name("other"))),
        )
        async with grpc.aio.insecure_channel(stage.address, interceptors=[*outside, *inside]) as channel:
            await stub(channel, stage)(FIRST)

    with staged(OK, Way("unary", "aio", "aio_await")) as stage:
        run(call_through(stage))

    assert [StatusCode.OK] == codes
