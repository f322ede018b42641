"""What docs/scale.md quotes is what is simulated, and what services have."""

import pytest

from benchmarks import simulation
from benchmarks.capacity import counted, page
from benchmarks.fleet import fleet
from benchmarks.simulation import (
    ANSWERED,
    RETRIES,
    Play,
    Policy,
    Storm,
    amplified,
    markdown,
    one_connection,
    round_robin,
    tables,
    worst_copy,
)
from client.processes import ROOT, Service

PAGE = (ROOT / "docs" / "scale.md").read_text()


def test_tables_of_the_page() -> None:
    """
    Every table of the simulation stands in the page as it comes out.
    """
    missing = [table[0] for table in tables() if markdown(table) not in PAGE]

    assert [] == missing


def test_series_of_the_page() -> None:
    """
    The page says how many series a pod has, as its /metrics has them once it has started.
    """
    with (
        Service("service-a", OTEL_TRACES_EXPORTER="none") as a,
        Service("service-b", SERVICE_A_ADDRESS=a.address, OTEL_TRACES_EXPORTER="none") as b,
    ):
        pages = {"Service A": page(a), "Service B": page(b)}

    assert markdown(counted(pages)) in PAGE


def test_fleets_of_the_page() -> None:
    """
    What the page says of fleets follows from what it says that was measured.
    """
    assert markdown(fleet(PAGE)) in PAGE


def test_worst_copy() -> None:
    """
    Where each caller calls every copy once, each gets its share; where all calls go to one, that gets them all.
    """
    assert 1.0 == worst_copy(7, 10, round_robin)
    assert 10.0 == worst_copy(1, 10, one_connection)


def test_storm_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    While half of the copies are enough no call is lost, and none is tried again.
    """
    monkeypatch.setattr(simulation, "CAPACITY", 2 * simulation.OFFERED)

    assert {Storm(1.0, 0.0, 0.0)} == {Play(policy, ANSWERED).storm() for policy in RETRIES.values()}


def test_retries_of_retries() -> None:
    """
    Three services that each try three times call one that always fails 27 times; with budgets, once.
    """
    assert 27.0 == amplified(3, 1.0, Policy(3))
    assert 1.0 == pytest.approx(amplified(3, 1.0, Policy(3, budget=True)), rel=0.01)
