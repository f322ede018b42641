"""Starvation: what becomes of other people's calls while a client holds as many as it may, and lets none of them go."""

from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.echo_pb2 import HealthCheckRequest
from protos.echo_pb2_grpc import HealthServiceStub
from tests.faults.conftest import Figure
from tests.faults.good_client import GoodClient
from tests.faults.holders import holding
from tests.faults.targets import Target

CALLS = 120
HELD = [
    *(("A", "without a message", "/echo.v1.EchoService/Echo", connections) for connections in (1, 4, 20)),
    *(("A", "unread answers", "/echo.v1.EchoService/EchoRepeat", connections) for connections in (1, 4, 20)),
    *(("B", "without a message", "/echo.v1.CallEchoService/CallEcho", connections) for connections in (1, 4, 20)),
    ("B", "without a message", "/echo.v1.CallEchoService/CallEchoChat", 1),
    *(("A", "unread chats", "/echo.v1.EchoService/EchoChat", connections) for connections in (1, 4, 20)),
    *(("B", "unread chats", "/echo.v1.CallEchoService/CallEchoChat", connections) for connections in (1, 4, 20)),
]
MAX_CHATS = 200
"""How many chats Service B takes at once."""


class HealthChecks:
    """Asks a service for its health over a connection of its own, each time both ways; keeps what failed."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.count = 0
        self.failures: list[grpc.StatusCode] = []
        standard: Any = health_pb2_grpc.HealthStub(channel)
        own = HealthServiceStub(channel)
        self._calls = (
            lambda: standard.Check(health_pb2.HealthCheckRequest(), timeout=2),
            lambda: own.Check(HealthCheckRequest(), timeout=2),
        )

    def ask(self) -> None:
        """Ask once."""
        for call in self._calls:
            self.count += 1
            try:
                call()
            except grpc.RpcError as error:
                self.failures.append(error.code())


@pytest.mark.parametrize(
    ("name", "kind", "path", "connections"),
    HELD,
    ids=[f"{name}-{kind}-{path.split('/')[-1]}-{connections}" for name, kind, path, connections in HELD],
)
def test_held_calls(  # noqa: PLR0913, PLR0917 - what is held where
    targets: dict[str, Target], name: str, kind: str, path: str, connections: int, figure: Figure
) -> None:
    """A good client's calls and the health checks succeed beside held calls, and a metric shows what is held."""
    target = targets[name]
    before, asked = target.megabytes, 100 * connections
    if "CallEchoChat" in path:
        asked = min(asked, MAX_CHATS)
    with holding(kind, target.address, path, connections) as holder:
        target.busy_workers(lambda busy: busy > 0.8 * asked)
        with grpc.insecure_channel(target.address) as channel, GoodClient(name, target.address, rps=100) as client:
            checks = HealthChecks(channel)
            for _ in range(CALLS // 5):
                client.wait_for(5)
                checks.ask()
        megabytes = target.megabytes
        # The client's last call may be over for it alone, and calls that are refused may not be over for the holder.
        held = target.busy_workers(lambda busy: busy == holder.calls())
        holds = holder.calls()
    free = target.busy_workers(lambda busy: busy == 0)
    counts = target.counts()

    healthy = f"{checks.count - len(checks.failures)} of {checks.count} health checks"
    figure(
        f"{held} calls held on {connections} connections: {kind}",
        f"{client}; {healthy}; {megabytes - before:+.0f} MB",
        "≥ 99 %, all health checks",
    )
    assert holds == held > 0.8 * asked
    assert [] == checks.failures
    assert client.succeeded >= 0.99
    assert 0 == free
    assert 1 == len({*counts.values()}), counts
    assert [] == target.complaints()
