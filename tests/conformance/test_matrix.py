"""
The outcome matrix: every outcome, on every way to make and to serve a call, is reported once on each side, and truly.

The sentences of the cases, in cases.py, are the specification; those here hold for all of them.
"""

from typing import NamedTuple

import grpc
import pytest
from grpc import StatusCode

from observability.client.channel import ObservedChannel

from . import expected
from .cases import AGREED, DIVERGING, HIDDEN, Case, Way, requests_stream, ways
from .play import Played, play
from .record import Record

AGREEMENT = 0.01
"""Milliseconds by which two signals may differ: a line and a span have been rounded."""


class Cell(NamedTuple):
    """One case on one way, and what came of it."""

    case: Case
    way: Way
    played: Played

    @property
    def codes(self) -> dict[str, StatusCode | None]:
        """What each side is to tell."""
        return {"client": self._client, "server": self.case.server}

    @property
    def _client(self) -> StatusCode | None:
        # While requests are still being written grpc.aio may tell its caller INTERNAL, whatever the server sends.
        way, got = self.way, self.played.got
        racy = self.case.early and way.client.startswith("aio_") and requests_stream(way.arity)
        return got if racy and got is StatusCode.INTERNAL else self.case.client


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((case, way), id=f"{case}-{'-'.join(way)}")
        for case in (*AGREED, *DIVERGING, *HIDDEN)
        for way in ways(case)
    ],
)
def cell(request: pytest.FixtureRequest) -> Cell:
    """Play one case on one way; every test below looks at the same call."""
    case, way = request.param
    return Cell(case, way, play(case, way))


def test_log_and_metrics(cell: Cell) -> None:
    """
    Each side has one line, one handled count and one observation, with one code, and nothing is left in flight.

    The client's code is the one that its caller gets.
    """
    record = cell.played.record

    assert cell.codes["client"] is cell.played.got
    assert {kind: expected.signals(code) for kind, code in cell.codes.items()} == {
        kind: record.signals(kind) for kind in cell.codes
    }


def test_spans(cell: Cell) -> None:
    """Each side has one span, with that code, a status by the conventions, and at most one exception."""
    record, error = cell.played.record, cell.case.error

    assert {kind: expected.spans(kind, code, error=error) for kind, code in cell.codes.items()} == {
        kind: record.spans(kind) for kind in cell.codes
    }


def test_trace(cell: Cell) -> None:
    """The lines and spans of both sides belong to one trace, where the server's span is the child of the client's."""
    record = cell.played.record
    lines = sorted(record.lines, key=lambda line: line["kind"])
    parents = [None, *(line["span_id"] for line in lines)]

    assert record.ancestry() == [
        (lines[0]["trace_id"], line["span_id"], parent) for line, parent in zip(lines, parents, strict=False)
    ]


def test_durations(cell: Cell) -> None:
    """The signals of a side agree on how long the call took, which is no longer than it did take."""
    durations = [cell.played.record.durations(kind) for kind, code in cell.codes.items() if code]

    assert all(max(side) - min(side) < AGREEMENT for side in durations)
    assert max(map(max, durations)) <= cell.played.milliseconds


def test_sync_channel() -> None:
    """The sync callers call through our own channel, which Telemetry puts around grpc's."""
    with Record().telemetry("native") as telemetry, grpc.insecure_channel("localhost:1") as plain:
        assert isinstance(telemetry.intercept_channel(plain), ObservedChannel)
