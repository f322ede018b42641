"""Deadlines of seconds: their time on the wire is rounded up, and so the caller gives up before the server's own."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from grpc import StatusCode

from tests.support.recorder import Side

from . import expected
from .cases import BY_NAME
from .play import play
from .vocabulary import Caller, Case, Way

WAYS = (Way("unary", "sync", "future"), Way("server_stream", "aio", "aio_iterate"))
"""One for each side of each stack."""
DEADLINE, CANCEL = BY_NAME["deadline"], BY_NAME["cancel"]
LATE = Case(
    "cancel_at_last",
    "A caller that cancels by hand within the last 2 % of its time is CANCELLED, and the server cannot know.",
    client=StatusCode.CANCELLED,
    server=StatusCode.DEADLINE_EXCEEDED,
    caller=Caller(end="cancel_at_last", timeout=9.0),  # 10 s would be 10.1 on the wire, which is half of the margin
    handler=DEADLINE.handler,
)


def _seen(case: Case, way: Way) -> dict[str, Side]:
    """Play a case; return all that the client and the server report."""
    recorder = play(case, way).recorder
    return {side: recorder.side(side) for side in case.codes}


def _expected(case: Case) -> dict[str, Side]:
    """Return what they are to report."""
    return {side: expected.side(side, code) for side, code in case.codes.items()}


def _within(case: Case, seconds: float) -> Case:
    return replace(case, caller=replace(case.caller, timeout=seconds))


def test_long_deadlines() -> None:
    """
    A missed deadline of 1.501 or 10.03 s is DEADLINE_EXCEEDED on both sides, for all that rounding hides.

    On the wire they are 1.51 and 10.1 s. A caller that cancels by hand just before is taken for one that gave up.
    """
    cases = (_within(DEADLINE, 1.501), _within(DEADLINE, 10.03), LATE)

    with ThreadPoolExecutor(len(cases) * len(WAYS)) as side_by_side:
        seen = {
            (case.name, case.caller.timeout, way): side_by_side.submit(_seen, case, way)
            for case in cases
            for way in WAYS
        }

    assert {(case.name, case.caller.timeout, way): _expected(case) for case in cases for way in WAYS} == {
        key: future.result() for key, future in seen.items()
    }


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_cancelled_in_time(way: Way) -> None:
    """A caller that cancels by hand well before its deadline is CANCELLED for the server as well."""
    case = _within(CANCEL, 30.0)

    assert _expected(case) == _seen(case, way)
