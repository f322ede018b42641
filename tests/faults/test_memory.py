"""What little it takes to fill a service's memory, and what becomes of it."""

import json
import time

import pytest
from hyperframe.frame import GoAwayFrame, SettingsFrame

from client.processes import Service
from tests.faults.conftest import Figure
from tests.faults.good_client import GoodClient
from tests.faults.holders import holding
from tests.faults.targets import service_a, service_b
from tests.support.h2 import PREFACE, Peer, Wire
from tests.system.conftest import run_client

SECONDS = 6.0
LAST_OF_ALL = 2**31 - 1  # streams: the connection is about to end, and every call on it goes on


def leaving(wire: Wire) -> None:
    """Take a connection, let it go at once, and stay."""
    wire.greet()
    wire.send(GoAwayFrame(0, last_stream_id=LAST_OF_ALL))
    wire.hold()


def gone(wire: Wire) -> None:
    """Do the same in one go, so that no call is on the connection before it is over."""
    wire.receive_exactly(len(PREFACE))
    wire.send(SettingsFrame(0), GoAwayFrame(0, last_stream_id=LAST_OF_ALL))
    wire.hold()


def test_a_that_leaves_at_once_and_stays(figure: Figure) -> None:
    """B's calls to an A that lets every connection go at once, and keeps it open, fail soon and cost little."""
    with (
        Peer(leaving) as peer,
        Service("service-b", "--service-a", peer.address, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1") as service,
    ):
        target = service_b(service)
        with GoodClient("B", service.address, rps=20, timeout=5) as client:
            client.wait_for(20)
            before, cpu, start = target.megabytes, target.cpu_seconds, time.monotonic()
            client.wait_for(round(SECONDS * 20))
            used = (target.cpu_seconds - cpu) / (time.monotonic() - start)
            grown = target.megabytes - before

        figure("calls", str(client), "none hangs")
        figure("B", f"{used:.0%} of a core, {grown:+.0f} MB of {before:.0f}", "≤ 25 %, ≤ +10 MB")
    assert grown <= 10
    assert used <= 0.25


def test_client_of_one_that_leaves_at_once_and_stays(figure: Figure) -> None:
    """The client's call to such a peer fails at once, and not at its deadline."""
    with Peer(gone) as peer:
        result = run_client("echo", "hello", "--timeout", "30", SERVICE_A_ADDRESS=peer.address)
        answer = json.loads(result.stdout)

    figure("client", answer["error"], "UNAVAILABLE")
    assert ("unavailable", 1) == (answer["service_a"], result.returncode)
    assert "StatusCode.UNAVAILABLE" in answer["error"]


@pytest.mark.parametrize("name", ["A", "B"])
@pytest.mark.parametrize(("kind", "grown"), [("half a message", 80), ("a part of 4 MB", 20)])
def test_unfinished_messages(name: str, kind: str, grown: int, figure: Figure) -> None:
    """400 messages on four connections that are never whole take little memory, and most of it is free afterwards."""
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    with (
        Service("service-a", **variables) as a,
        Service("service-b", "--service-a", a.address, **variables) as b,
    ):
        target = service_a(a) if name == "A" else service_b(b)
        with GoodClient(name, target.address) as client:
            client.wait_for(20)
            before = target.megabytes
            with holding(kind, target.address, target.unary, 4):
                client.wait_for(60)
                during = target.megabytes - before
            target.busy_workers(lambda busy: busy == 0)
            after = target.megabytes - before
        assert [] == target.complaints()

    figure(
        f"{name}, 400 unfinished messages: {kind}",
        f"{during:+.0f} MB, {after:+.0f} MB afterwards; {client}",
        f"≤ +{grown} MB",
    )
    assert during <= grown
    assert client.succeeded >= 0.99
