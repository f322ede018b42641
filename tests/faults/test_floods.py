"""Floods: what a client that means harm does to the calls of one that does not."""

import json
import subprocess
import sys

import pytest

from client.processes import ROOT
from tests.faults.conftest import Figure
from tests.faults.floods import FLOODS
from tests.faults.good_client import GoodClient
from tests.faults.targets import Target

SECONDS = 2.0


@pytest.mark.parametrize("name", ["A", "B"])
@pytest.mark.parametrize("flood", FLOODS)
def test_flood(targets: dict[str, Target], flood: str, name: str, figure: Figure) -> None:
    """A good client's calls succeed beside a flood, every call is counted once, and memory stays as it was."""
    target = targets[name]
    before, cpu = target.megabytes, target.cpu_seconds
    with GoodClient(name, target.address) as client:
        command = [sys.executable, "-m", "tests.faults.floods", flood, target.address, target.unary, str(SECONDS)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
        cpu = target.cpu_seconds - cpu
    sent = json.loads(result.stdout)
    counts = target.counts()
    grown = target.megabytes - before

    figure(f"good client beside {flood}", str(client), "≥ 99 %")
    figure(f"{name} under {flood}", f"{sent}, {cpu / SECONDS:.0%} of a core, {grown:+.0f} MB", "≤ +20 MB")
    assert 1 == len({*counts.values()}), counts
    assert [] == target.complaints()
    assert grown <= 20
    assert client.succeeded >= 0.99
