"""Signals to services that are PID 1 and still starting, at every moment."""

import itertools
import signal
import time

import pytest

from tests.faults.conftest import Figure
from tests.support.starting import Starting

STEP = 0.04  # seconds


@pytest.mark.parametrize(
    ("service", "number"),
    [("service-a", signal.SIGTERM), ("service-b", signal.SIGTERM), ("service-a", signal.SIGINT)],
    ids=["A-SIGTERM", "B-SIGTERM", "A-SIGINT"],
)
def test_signal_at_every_moment(service: str, number: signal.Signals, pid_1: list[str], figure: Figure) -> None:
    """A signal ends a service within a second, with status 0 and without a word, every 40 ms until it listens."""
    ends = []
    for step in itertools.count():
        with Starting(service, pid_1) as starting:
            time.sleep(step * STEP)
            listens = starting.listens
            ends.append(starting.end(number))
        if listens:
            break

    slowest = max(seconds for _, _, seconds in ends)
    figure(f"{service}, {number.name} at {len(ends)} moments: slowest end", f"{slowest * 1000:.0f} ms", "< 1 s")
    assert {(0, "")} == {(status, said) for status, said, _ in ends}
    assert len(ends) > 10
    assert slowest < 1
