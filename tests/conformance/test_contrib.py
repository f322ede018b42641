"""
The same outcomes through Telemetry under OBSERVABILITY_TRACES=contrib: logs and metrics as ever, spans as they come.

What the official interceptors hide from ours, or break in a call itself, is foretold here, and held like the rest.

What the official spans say of each case stands in docs/conformance.md. Where that is no longer so the test fails:
`python -m tests.conformance --write` writes the page anew.
"""

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc.aio
import pytest
from grpc import StatusCode
from opentelemetry.instrumentation.grpc import aio_client_interceptors as official_interceptors
from opentelemetry.instrumentation.grpc import filters

from observability import Call, Outcome, aio_client_interceptors

from . import engines, expected
from .cases import BY_NAME, SOON
from .clients import stub
from .engines import PAGE, RIGHT, UNPLAYABLE, Cell, plainest
from .loop import run
from .messages import FIRST
from .play import call, play, staged
from .report import report
from .stage import Stage
from .vocabulary import Way, responses_stream
from .ways import ways

# Its asyncio interceptors await what blocking handlers return, and iterate what has no __aiter__.
pytestmark = pytest.mark.expects_errors(r"\[TypeError: .*(__aiter__|_MessageReceiver|'await' expression)")


@pytest.fixture(scope="module")
def page() -> engines.Verdicts:
    """Return what the page says."""
    return engines.read()


def expect(cell: Cell, page: engines.Verdicts) -> dict[str, object]:
    """
    Return what is to be reported: log and metrics as ever, spans in the words of the page, None where luck decides.

    A call over the limit is CANCELLED for the server, since the official interceptor, before ours, reads its handler.
    """
    case, row = cell.case, page[cell.way.arity, cell.case.name]
    codes = case.codes | ({"server": StatusCode.CANCELLED} if case.name == "limit" else {})
    spans = {f"{side} spans": row.get(cell.column(side)) for side in codes}
    return report(case.client, {side: expected.side(side, code) for side, code in codes.items()}) | spans


def see(cell: Cell) -> dict[str, object]:
    """Play a cell with the official interceptors; return what was reported."""
    played = engines.play_with("contrib", cell)
    sides = {side: played.recorder.side(side) for side in cell.case.codes}
    spans = {
        f"{side} spans": None if cell.lucky(side) else cell.verdict(side, seen.spans) for side, seen in sides.items()
    }
    return report(played.got, sides) | spans


@pytest.mark.parametrize("cell", list(engines.cells()), ids=str)
def test_call(cell: Cell, page: engines.Verdicts) -> None:
    """Log and metrics are right, whatever the official spans say; and those say what the page says that they do."""
    assert expect(cell, page) == see(cell)


OK = BY_NAME["ok"]


def _is_broken(way: Way) -> bool:
    """
    Return whether the official interceptors break even a call that is answered, on this way.

    The asyncio server awaits what a blocking handler returns, and iterates over what a handler that writes by hand
    returns; the asyncio client waits for the answer before a request can be written by hand.
    """
    writes_by_hand = way.server == "aio_context" and responses_stream(way.arity)
    return way.server == "aio_plain" or writes_by_hand or way.client == "aio_write"


def _other_ways() -> list[Way]:
    """
    Return the ways on which no cell is played.

    An asyncio channel of our own is refused: the official interceptors cannot be put around it.
    """
    played = {cell.way for cell in engines.cells() if cell.case is OK}
    return [way for way in ways(OK) if way not in played and "channel" not in way.client]


async def _collect() -> None:
    """Let go of what the official interceptors leave behind, where it cannot be running."""
    gc.collect()


@pytest.mark.parametrize("way", _other_ways(), ids="-".join)
@pytest.mark.filterwarnings(
    # What the official asyncio interceptors leave behind of the ways that they break: tasks and coroutines.
    "ignore:coroutine .* was never awaited:RuntimeWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
def test_every_other_way(way: Way) -> None:
    """On every way that they do not break, an answered call is OK; on all each side reports once what came of it."""
    case = replace(OK, caller=replace(OK.caller, timeout=SOON)) if way.client == "aio_write" else OK
    played = play(case, way, "contrib")
    run(_collect())
    sides = {side: played.recorder.side(side)._replace(spans=[]) for side in case.codes}
    [(code, _)] = sides["server"].lines
    codes = {"client": played.got, "server": StatusCode[code]}

    assert _is_broken(way) == (played.got is not StatusCode.OK)
    assert _is_broken(way) or codes["server"] is StatusCode.OK
    assert {side: expected.side(side, code)._replace(spans=[]) for side, code in codes.items()} == sides


def test_page_is_up_to_date(page: engines.Verdicts) -> None:
    """The page is what is written of its verdicts, for all cells that there are."""
    rows = {(cell.way.arity, cell.case.name) for cell in engines.cells()}
    rows |= {(arity, name) for name, arity, _ in UNPLAYABLE}

    assert rows == set(page)
    assert engines.render(page) == PAGE.read_text("utf-8")
    assert {RIGHT} == {row["native"] for row in page.values()}


def _unplayable(reason: str) -> list[object]:
    """List the cells that cannot be played for this reason."""
    ways = [
        (BY_NAME[name], plainest(BY_NAME[name], arity, server))
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
        assert [] == stage.recorder.lines


@pytest.mark.parametrize("cell", _unplayable("never cancelled on the wire"))
def test_official_call_is_not_cancelled_on_the_wire(cell: Cell) -> None:
    """
    The official asyncio client never lets a unary call's cancellation through: the server goes on, and answers.

    Nor does it let go of a client-streaming call that is dropped.
    """
    with staged(cell.case, cell.way, "contrib") as stage:
        got = call(stage)
        stage.over.set()
        stage.recorder.wait_for_lines("server")

    assert StatusCode.CANCELLED is got
    assert ["OK"] == [line["code"] for line in stage.recorder.lines if line["kind"] == "server"]


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
