"""`python client load` makes the traffic that it was asked for, and sums it up."""

import re

from tests.system.conftest import System


def test_load(system: System) -> None:
    """The calls that were asked for are made, those that are to fail do so, and the exit status is 0."""
    result = system.client("load", "--rps", "50", "--duration", "1s", "--errors", "10%")

    assert 0 == result.returncode
    assert ["45"] == re.findall(r"OK +(\d+)", result.stdout)
    assert ["5"] == re.findall(r"INVALID_ARGUMENT +(\d+)", result.stdout)
    assert {"rate", "p50", "p95", "p99"} <= set(result.stdout.split())
    assert "50/50" in result.stderr


def test_load_with_failures(own_system: System) -> None:
    """Calls that fail though they were not meant to make the exit status 1."""
    own_system.a.stop()

    result = own_system.client("load", "--rps", "50", "--duration", "200ms")

    assert 1 == result.returncode
    assert ["10"] == re.findall(r"UNAVAILABLE +(\d+)", result.stdout)
