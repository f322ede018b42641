"""Frames that nobody should send: each call that was begun has one line, nothing is raised, and nobody else suffers."""

import contextlib
import random
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from client.lines import fields
from client.processes import Service
from tests.faults.conftest import Figure
from tests.faults.fuzz import MAKES, headers
from tests.faults.good_client import GoodClient
from tests.faults.targets import Target, service_a, service_b
from tests.support.h2 import ClosedError, Wire, dial

FRAMES = 2_000
SEED = 16
# What grpc logs of metadata that is no text, with a stack trace; the call goes on.
NO_TEXT = 'event="Invalid encoding on '
MESSAGE = b"\x0a\x05hello"


@pytest.fixture(scope="module")
def targets() -> Iterator[dict[str, Target]]:
    """Give both services."""
    with (
        Service("service-a", OTEL_TRACES_EXPORTER="none") as a,
        Service("service-b", "--service-a", a.address, OTEL_TRACES_EXPORTER="none") as b,
    ):
        yield {"A": service_a(a), "B": service_b(b)}


def trace_of(number: int) -> tuple[str, tuple[str, str]]:
    """Return a trace id, and the header that has it."""
    trace_id = f"{number + 1:032x}"
    return trace_id, ("traceparent", f"00-{trace_id}-00000000000000ff-01")


def hang_up(wire: Wire) -> None:
    """Say no more, and wait until the server has taken all, and closed the connection."""
    wire.polite = False
    with contextlib.suppress(OSError):
        wire.socket.shutdown(socket.SHUT_WR)
        while wire.socket.recv(2**16):
            pass


def begin(wire: Wire, path: str, traceparent: tuple[str, str]) -> int:
    """Begin a stream, and wait for its first answer, so that its handler surely runs; return its number."""
    stream = wire.call(path, traceparent, message=MESSAGE, end=False)
    answers = wire.streams[stream]
    wire.wait_for(lambda: bool(answers.data))
    return stream


@pytest.mark.parametrize("name", ["A", "B"])
def test_fuzz(targets: dict[str, Target], name: str, figure: Figure) -> None:
    """
    Each call that had begun when a frame came that nobody should send has one line; other calls have one at most.
    """
    target = targets[name]
    dice = random.Random(SEED)  # noqa: S311 - it has to give the same frames each time
    begun: list[str] = []
    perhaps: list[str] = []
    with GoodClient(name, target.address, timeout=5) as client:
        for number in range(FRAMES):
            trace_id, traceparent = trace_of(number)
            with dial(target.address) as wire, contextlib.suppress(ClosedError, BrokenPipeError, ConnectionResetError):
                kind = number % 4
                if kind == 0:
                    perhaps.append(trace_id)
                    wire.send(*headers(dice, wire, target.unary, traceparent))
                elif kind == 1:
                    wire.send(dice.choice(MAKES)(dice, wire, 1))
                else:
                    stream = begin(wire, target.chat, traceparent)
                    begun.append(trace_id)
                    wire.send(dice.choice(MAKES)(dice, wire, stream))
                hang_up(wire)
        client.wait_for(20)
    counts = target.counts()
    lines = Counter(fields(line)["trace_id"] for line in target.lines())

    figure(f"good client beside {FRAMES} frames that nobody should send to {name}", str(client), "≥ 99 %")
    figure(f"calls of {name} in which such a frame came, and their lines", f"{len(begun)}", "one each")
    figure(f"lines of gRPC's core that {name} wrote", f"{target.core_lines}", "—")
    assert dict.fromkeys(begun, 1) == {trace_id: lines[trace_id] for trace_id in begun}
    assert {0, 1} >= {lines[trace_id] for trace_id in perhaps}
    assert 1 == len({*counts.values()}), counts
    assert [] == [line for line in target.complaints() if NO_TEXT not in line]
    assert client.succeeded >= 0.99
