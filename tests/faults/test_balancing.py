"""Several copies of Service A behind one target of B's: who gets which calls, and what the end of a copy costs."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from client.processes import Service
from tests.faults.conftest import Figure
from tests.faults.good_client import GoodClient
from tests.faults.targets import Target, service_a, service_b
from tests.faults.test_memory import leaving
from tests.support.freezing import freeze
from tests.support.h2 import Peer
from tests.support.ports import free_ports

COPIES = 3
RPS = 100.0
DRAIN = 1.0  # seconds
OUT = 2.0  # seconds until a frozen copy gets no more calls


def start_a(port: int) -> Service:
    """Start a copy that says that it is about to leave, as one does where there are others."""
    return Service("service-a", "--port", str(port), "--drain-delay", str(DRAIN), OTEL_TRACES_EXPORTER="none")


def echoes(copy: Service) -> int:
    """Return how many calls of B's a copy has answered."""
    return service_a(copy).total("grpc_server_handled_total", grpc_method="Echo")


@dataclass
class Copies:
    """Copies of Service A, and Service B, which knows them by one target."""

    ports: list[int]
    copies: list[Service]
    b: Target

    def end(self, number: int, signal_number: int) -> None:
        """End a copy, and start another in its place."""
        self.copies[number].signal(signal_number)
        self.copies[number].wait()
        self.copies[number] = start_a(self.ports[number])


@pytest.fixture(scope="module")
def system() -> Iterator[Copies]:
    """Give three copies, and B; a test puts another in the place of each that it ends."""
    ports = free_ports(COPIES)
    target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
    copies = [start_a(port) for port in ports]
    with Service("service-b", "--service-a", target, OTEL_TRACES_EXPORTER="none") as b:
        running = Copies(ports, copies, service_b(b))
        assert all(copy.address for copy in copies)
        try:
            yield running
        finally:
            for copy in running.copies:
                copy.signal(signal.SIGKILL)
                copy.wait()


@contextmanager
def client_of(system: Copies) -> Iterator[GoodClient]:
    """Call B from when its calls reach each copy."""
    with GoodClient("B", system.b.address, rps=RPS, timeout=5) as client:
        for copy in system.copies:
            until_used(copy, client)
        yield client


def until_used(copy: Service, client: GoodClient) -> None:
    """Wait until B's calls reach a copy."""
    used, deadline = echoes(copy), time.monotonic() + 30
    while used == echoes(copy):
        assert time.monotonic() < deadline, client
        client.wait_for(5)


def test_shares(system: Copies, figure: Figure) -> None:
    """Each of three copies gets a third of the calls."""
    with client_of(system) as client:
        before = [echoes(copy) for copy in system.copies]
        client.wait_for(400)
    counts = [echoes(copy) - used for copy, used in zip(system.copies, before, strict=True)]
    shares = [count / sum(counts) for count in counts]

    figure("calls of three copies", ", ".join(f"{share:.1%}" for share in shares), "33 ± 5 % each")
    assert {"OK"} == {*client.codes}, client.failed[-5:]
    assert all(abs(share - 1 / COPIES) <= 0.05 for share in shares)


def test_rolling_restart(system: Copies, figure: Figure) -> None:
    """When one copy after the other is restarted, under load, no call fails, and every try is reported."""
    before = {kind: system.b.counts(kind)["lines"] for kind in ("client", "server")}
    with client_of(system) as client:
        for number in range(COPIES):
            system.end(number, signal.SIGTERM)
            until_used(system.copies[number], client)
    counts = {kind: system.b.counts(kind) for kind in before}
    calls = {kind: of_kind["lines"] - before[kind] for kind, of_kind in counts.items()}

    figure(f"{COPIES} copies restarted under {RPS:.0f} calls a second", str(client), "no call fails")
    figure(f"{COPIES} copies restarted: calls tried again", str(calls["client"] - calls["server"]), "—")
    assert {"OK"} == {*client.codes}, client.failed[-5:]
    assert client.codes.total() == calls["server"]
    assert all(len({*of_kind.values()}) == 1 for of_kind in counts.values()), counts


def test_draining_copy(system: Copies, figure: Figure) -> None:
    """A copy that says that it is not serving gets no more calls, though it would answer them."""
    copy = system.copies[0]
    with client_of(system) as client:
        copy.signal(signal.SIGTERM)
        begun, used = time.monotonic(), -1
        while used != (used := echoes(copy)):
            client.wait_for(10)
        seconds = time.monotonic() - begun
    system.end(0, signal.SIGTERM)

    figure("from a copy's NOT_SERVING until it gets no calls", f"{seconds * 1000:.0f} ms", f"≤ {DRAIN:.0f} s")
    assert {"OK"} == {*client.codes}
    assert seconds <= DRAIN


def test_killed_copy(system: Copies, figure: Figure) -> None:
    """When copies are killed under load, the calls that they had are answered by others: no call fails."""
    with client_of(system) as client:
        for copy in system.copies[1:]:
            copy.signal(signal.SIGKILL)
            client.wait_for(60)
    for number in range(1, COPIES):
        system.end(number, signal.SIGKILL)

    figure("two of three copies killed", str(client), "no call fails")
    assert {"OK"} == {*client.codes}, client.failed[-5:]


def test_frozen_copy(system: Copies, figure: Figure) -> None:
    """A copy that freezes costs its share of calls at most, and none after two seconds; it is used once it is back."""
    copy = system.copies[0]
    with client_of(system) as client:
        freeze(copy)
        begun, calls = time.monotonic(), client.codes.total()
        while time.monotonic() < begun + OUT:
            client.wait_for(1)
        calls = client.codes.total() - calls
        client.wait_for(100, "OK")
        copy.signal(signal.SIGCONT)
        until_used(copy, client)
    share = len(client.failed) / calls
    last = max((when for when, _ in client.failed), default=begun) - begun

    figure("one of three copies frozen: lost calls", f"{share:.1%} of those in {OUT:.0f} s", "≤ 33 %")
    figure("one of three copies frozen: the last lost call", f"{last:.1f} s after it froze", f"≤ {OUT:.0f} s")
    assert share <= 1 / COPIES
    assert last <= OUT, client.failed[-5:]


HOSTS = 'mount --bind "$0" /etc/hosts && exec "$@"'


def with_hosts(hosts: Path) -> type[Service]:
    """Return what starts a service for which this file is /etc/hosts."""

    def start(arguments: list[str], **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(["unshare", "-rm", "sh", "-c", HOSTS, str(hosts), *arguments], **options)

    return type("ServiceWithHosts", (Service,), {"start": staticmethod(start)})


def test_new_copies(tmp_path: Path, figure: Figure) -> None:
    """Copies that are new behind a name are found while those that there were are well."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    if subprocess.run(
        ["unshare", "-rm", "sh", "-c", HOSTS, hosts, "true"], check=False, capture_output=True
    ).returncode:
        pytest.skip("no mount namespaces here, in which a name may have other addresses")
    [port] = free_ports(1)
    took = []
    with ExitStack() as stack:

        def add(number: int) -> Service:
            copy = Service("service-a", "--host", f"127.0.0.{number}", "--port", str(port), OTEL_TRACES_EXPORTER="none")
            stack.enter_context(copy)
            assert copy.address
            with hosts.open("a") as file:
                file.write(f"127.0.0.{number} service-a.test\n")
            return copy

        add(1)
        b = with_hosts(hosts)("service-b", "--service-a", f"service-a.test:{port}", OTEL_TRACES_EXPORTER="none")
        stack.enter_context(b)
        client = stack.enter_context(GoodClient("B", b.address, rps=RPS))
        client.wait_for(20)
        for number in range(2, COPIES + 1):
            copy = add(number)
            added = time.monotonic()
            until_used(copy, client)
            took.append(time.monotonic() - added)

    figure("new copies behind a name: until they are used", f"{max(took):.1f} s at most", "≤ 2 s")
    assert {"OK"} == {*client.codes}
    assert max(took) <= 2


@pytest.mark.parametrize("copies", [1, 3])
def test_copies_that_leave_at_once_and_stay(copies: int, figure: Figure) -> None:
    """Copies that let every connection go at once, and keep it open, cost B little, whether or not it has calls."""
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(leaving)) for _ in range(copies)]
        target = "ipv4:" + ",".join([*(peer.address for peer in peers), *["127.0.0.1:1"] * (copies == 1)])
        service = stack.enter_context(Service("service-b", "--service-a", target, OTEL_TRACES_EXPORTER="none"))
        b = service_b(service)
        with GoodClient("B", b.address, rps=20, timeout=5) as client:
            client.wait_for(20)
            before, cpu, start = b.megabytes, b.cpu_seconds, time.monotonic()
            client.wait_for(60)
            used = (b.cpu_seconds - cpu) / (time.monotonic() - start)
            grown = b.megabytes - before
        connections = sum(peer.connections for peer in peers)

    figure(f"{copies} copies that let each connection go", f"{used:.0%} of a core, {grown:+.0f} MB", "≤ 25 %, ≤ +10 MB")
    figure(f"{copies} copies that let each connection go: connections", str(connections), "—")
    assert grown <= 10
    assert used <= 0.25
