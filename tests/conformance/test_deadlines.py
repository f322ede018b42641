"""Deadlines of seconds: their time on the wire is rounded up, and so the caller gives up before the server's own."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from grpc import StatusCode

from . import expected
from .cases import AGREED, Case, Way
from .play import play
from .record import Observers, Span

WAYS = (Way("unary", "sync", "future"), Way("server_stream", "aio", "aio_iterate"))
"""One for each side of each stack."""
DEADLINE, CANCEL = (next(case for case in AGREED if case.name == name) for name in ("deadline", "cancel"))
LATE = Case(
    "cancel_at_last",
    "A caller that cancels by hand within the last 2 % of its time is CANCELLED, and the server cannot tell.",
    client=StatusCode.CANCELLED,
    server=StatusCode.DEADLINE_EXCEEDED,
    act=DEADLINE.act,
    end="cancel_at_last",
    timeout=9.0,  # 10 s would be 10.1 on the wire, which is half of the margin
)


CUT_OFF = {
    "cancel": (StatusCode.CANCELLED, StatusCode.CANCELLED),
    "deadline": (StatusCode.DEADLINE_EXCEEDED, StatusCode.DEADLINE_EXCEEDED),
    "cancel_at_last": (StatusCode.CANCELLED, StatusCode.DEADLINE_EXCEEDED),
}
"""The codes that the client and the server are to tell, by case."""

Recorder = dict[str, tuple[Observers, list[Span]]]


def _told(case: Case, way: Way) -> Recorder:
    """Return all that the client and the server say."""
    record = play(case, way).record
    return {kind: record.everything(kind) for kind in ("client", "server")}


def _expected(case: Case) -> Recorder:
    """Return what they are to say."""
    return {
        kind: expected.everything(kind, code)
        for kind, code in zip(("client", "server"), CUT_OFF[case.name], strict=True)
    }


def test_long_deadlines() -> None:
    """
    A missed deadline of 1.501 or 10.03 s is DEADLINE_EXCEEDED on both sides, for all that rounding hides.

    On the wire they are 1.51 and 10.1 s. A caller that cancels by hand just before is taken for one that gave up.
    """
    cases = (replace(DEADLINE, timeout=1.501), replace(DEADLINE, timeout=10.03), LATE)

    with ThreadPoolExecutor(len(cases) * len(WAYS)) as side_by_side:
        recorder = {
            (case.name, case.timeout, way): side_by_side.submit(_told, case, way) for case in cases for way in WAYS
        }

    assert {(case.name, case.timeout, way): _expected(case) for case in cases for way in WAYS} == {
        key: future.result() for key, future in recorder.items()
    }


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_cancelled_in_time(way: Way) -> None:
    """A caller that cancels by hand well before its deadline is CANCELLED for the server as well."""
    case = replace(CANCEL, timeout=30.0)

    assert _expected(case) == _told(case, way)
