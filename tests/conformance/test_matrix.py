"""
The outcome matrix: every outcome, on every way to make and to serve a call, is reported once on each side, and truly.

The sentences of the cases, in cases.py, are the specification; what is expected here holds for all of them.
"""

import grpc
import pytest
from grpc import StatusCode

from observability.client.channel import ObservedChannel
from tests.support.recorder import Recorder

from . import expected
from .cases import CASES, SOON
from .play import Played, play
from .report import report
from .vocabulary import Case, Way, requests_stream, responses_stream
from .ways import ways

AGREEMENT = 0.01
"""Milliseconds by which two signals may differ: a line and a span have been rounded."""


def expect(case: Case, way: Way, played: Played) -> dict[str, object]:
    """Return what is to be reported of a case on this way."""
    codes = case.codes | {"client": _client(case, way, played.got)}
    sent, received = (2 if stream(way.arity) else 1 for stream in (requests_stream, responses_stream))
    return report(
        codes["client"],
        {side: expected.side(side, code, error=case.error) for side, code in codes.items()},
        ancestry=_ancestry_of_lines(played.recorder),
        uneven_durations={},
        messages={"client": (sent, received), "server": (received, sent)} if case.delivers_all else {},
    )


def see(case: Case, played: Played) -> dict[str, object]:
    """
    Return what was reported.

    `ancestry` is the trace, the span and the parent of each span: one trace, in which the server's span is the child of
    the client's, and both are those of the lines. `uneven_durations` are those of a side whose signals disagree, or say
    that the call took longer than it did. `messages` are how many a side has sent and received, where all arrive.
    """
    recorder = played.recorder
    return report(
        played.got,
        {side: recorder.side(side) for side in case.codes},
        ancestry=recorder.ancestry(),
        uneven_durations=_uneven_durations(case, played),
        messages={side: recorder.messages(side) for side in case.codes if case.delivers_all},
    )


def _client(case: Case, way: Way, got: StatusCode) -> StatusCode | None:
    """Return the client's code: while it is still writing grpc.aio may report INTERNAL, whatever the server sends."""
    # On a busy machine it still is when a deadline comes soon.
    writing = case.caller.still_writing or case.caller.timeout == SOON
    racy = writing and way.client.startswith("aio_") and requests_stream(way.arity)
    return got if racy and got is StatusCode.INTERNAL else case.client


def _ancestry_of_lines(recorder: Recorder) -> list[tuple[str, str, str | None]]:
    lines = sorted(recorder.lines, key=lambda line: line["kind"])
    parents = [None, *(line["span_id"] for line in lines)]
    return [(lines[0]["trace_id"], line["span_id"], parent) for line, parent in zip(lines, parents, strict=False)]


def _uneven_durations(case: Case, played: Played) -> dict[str, list[float]]:
    durations = {side: played.recorder.durations(side) for side, code in case.codes.items() if code}
    return {
        side: lengths
        for side, lengths in durations.items()
        if max(lengths) - min(lengths) >= AGREEMENT or max(lengths) > played.milliseconds
    }


@pytest.mark.parametrize(
    ("case", "way"),
    [pytest.param(case, way, id=f"{case}-{'-'.join(way)}") for case in CASES for way in ways(case)],
)
def test_call(case: Case, way: Way) -> None:
    """A call is reported as its case says, by all signals of both sides, which agree with each other."""
    played = play(case, way)

    assert expect(case, way, played) == see(case, played)


def test_sync_channel() -> None:
    """The sync callers call through our own channel, which Telemetry puts around grpc's."""
    with Recorder().telemetry("native") as telemetry, grpc.insecure_channel("localhost:1") as plain:
        assert isinstance(telemetry.intercept_channel(plain), ObservedChannel)
