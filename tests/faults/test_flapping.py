"""An A that is killed and comes back, again and again, while B has callers."""

import signal
import time
from collections.abc import Iterator

import pytest

from client.processes import Service
from tests.faults.conftest import Figure
from tests.faults.good_client import GoodClient
from tests.faults.targets import Target, service_b
from tests.support.ports import free_ports

TIMES = 10
BACK = 2.0  # seconds until B's callers have answers, from when A listens, on a busy machine


@pytest.fixture
def port() -> str:
    """Give the port at which A comes and goes."""
    return str(free_ports(1)[0])


@pytest.fixture
def b(port: str) -> Iterator[Target]:
    """Give Service B, which looks for A at this port."""
    with Service("service-b", "--service-a", f"127.0.0.1:{port}", OTEL_TRACES_EXPORTER="none") as service:
        target = service_b(service)
        assert target.address
        yield target


def test_flapping(port: str, b: Target, figure: Figure) -> None:
    """
    B's callers see OK and UNAVAILABLE alone, and OK soon after A is back; every call is counted once.
    """
    took: list[float] = []
    before = b.megabytes
    with GoodClient("B", b.address, rps=80, timeout=5) as client:
        for _ in range(TIMES):
            with Service("service-a", "--port", port, OTEL_TRACES_EXPORTER="none") as a:
                _ = a.address
                back = time.monotonic()
                client.wait_for(1, "OK")
                took.append(time.monotonic() - back)
                client.wait_for(20)
                a.signal(signal.SIGKILL)
                a.wait()
            client.wait_for(20)
    counts = {kind: b.counts(kind) for kind in ("server", "client")}

    figure(f"callers of B while A is killed and started {TIMES} times", str(client), "OK and UNAVAILABLE alone")
    figure("from when A listens until B answers with OK", f"{max(took) * 1000:.0f} ms at most", f"≤ {BACK:.0f} s")
    figure("memory of B", f"{b.megabytes - before:+.0f} MB", "≤ +20 MB")
    assert {"OK", "UNAVAILABLE"} == {*client.codes}
    assert max(took) <= BACK
    assert b.megabytes - before <= 20
    assert {kind: dict.fromkeys(of_kind, len(client.seconds)) for kind, of_kind in counts.items()} == counts
    assert [] == b.complaints()
