"""A minute of calls of every kind: who made them, who served them, and all that reports them have the same counts."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
import pytest

from protos.echo_pb2 import CallEchoRequest, EchoRepeatRequest, EchoRequest, HealthCheckRequest
from protos.echo_pb2_grpc import CallEchoServiceStub, EchoServiceStub, HealthServiceStub
from tests.faults.conftest import Figure
from tests.faults.targets import service_a, service_b
from tests.system.conftest import System, running_system

SECONDS = 60.0
CALLERS = 6
PAUSE = 0.1  # seconds between two calls of a caller
TOO_LONG = "x" * (64 * 1024 + 1)


@pytest.fixture
def system() -> Iterator[System]:
    """Give both services, and a receiver of their spans."""
    with running_system(OTEL_BSP_SCHEDULE_DELAY="200") as running:
        yield running


Kind = tuple[str, str, Callable[[], Any]]
"""A call to A or to B, the code with which it is to end, and what makes it; it surely reaches its service."""


def to_a(channel: grpc.Channel) -> Iterator[Kind]:
    """Yield each kind of call to A."""
    stub = EchoServiceStub(channel)
    hello, too_long = EchoRequest(msg="hello"), EchoRequest(msg=TOO_LONG)
    endless = EchoRepeatRequest(msg="x" * 9_000, times=10**6)
    for expected, call in {
        "OK": (
            lambda: stub.Echo(hello, timeout=5),
            lambda: HealthServiceStub(channel).Check(HealthCheckRequest(), timeout=5),
            lambda: list(stub.EchoRepeat(EchoRepeatRequest(msg="hello", times=20), timeout=5)),
            lambda: stub.EchoJoin(iter([hello] * 3), timeout=5),
            lambda: list(stub.EchoChat(iter([hello] * 3), timeout=5)),
        ),
        "INVALID_ARGUMENT": (
            lambda: stub.Echo(too_long, timeout=5),
            lambda: stub.EchoJoin(iter([hello, too_long]), timeout=5),
            lambda: list(stub.EchoRepeat(EchoRepeatRequest(msg="x", times=-1), timeout=5)),
        ),
        "CANCELLED": (lambda: left(stub.EchoRepeat(endless)), lambda: held(stub.EchoChat, hello, left)),
        "DEADLINE_EXCEEDED": (lambda: held(partial(stub.EchoChat, timeout=0.5), hello, list),),
        "UNIMPLEMENTED": (lambda: sent(channel, "/echo.v1.EchoService/Nothing"),),
        "INTERNAL": (lambda: sent(channel, "/echo.v1.EchoService/Echo"),),
    }.items():
        yield from (("A", expected, make) for make in call)


def to_b(channel: grpc.Channel) -> Iterator[Kind]:
    """Yield each kind of call to B."""
    stub = CallEchoServiceStub(channel)
    hello = CallEchoRequest(msg="hello")
    for expected, call in {
        "OK": (
            lambda: stub.CallEcho(hello, timeout=5),
            lambda: HealthServiceStub(channel).Check(HealthCheckRequest(), timeout=5),
            lambda: list(stub.CallEchoChat(iter([hello] * 3), timeout=5)),
        ),
        "INVALID_ARGUMENT": (lambda: stub.CallEcho(CallEchoRequest(msg=TOO_LONG), timeout=5),),
        "CANCELLED": (lambda: held(stub.CallEchoChat, hello, left),),
        "DEADLINE_EXCEEDED": (lambda: held(partial(stub.CallEchoChat, timeout=0.5), hello, list),),
        "UNIMPLEMENTED": (lambda: sent(channel, "/echo.v1.CallEchoService/Nothing"),),
        "INTERNAL": (lambda: sent(channel, "/echo.v1.CallEchoService/CallEcho"),),
    }.items():
        yield from (("B", expected, make) for make in call)


def left(answers: Any) -> None:
    """Take the first answer, and leave."""
    next(answers)
    answers.cancel()
    list(answers)


def held(call: Any, request: Any, act: Callable[[Any], Any]) -> None:
    """Begin a stream with one request, whose end does not come before the call's."""
    over = threading.Event()

    def requests() -> Iterator[Any]:
        yield request
        over.wait(10)

    try:
        act(call(requests()))
    finally:
        over.set()


def sent(channel: grpc.Channel, path: str) -> None:
    """Send a message that no method can parse."""
    call: Any = channel.unary_unary(path)
    call(b"\xff\xff", timeout=5)


def code_of(call: Callable[[], Any]) -> str:
    """Make a call; return its code."""
    try:
        call()
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


class Caller:
    """Makes calls of every kind, as its seed gives them, and counts them by service and code."""

    def __init__(self, a: str, b: str, seed: int) -> None:
        self._a, self._b = a, b
        self._dice = random.Random(seed)  # noqa: S311 - it has to give the same calls each time
        self.made: Counter[str] = Counter()
        self.unexpected: list[str] = []

    def __call__(self) -> None:
        """Make calls until the time is over."""
        end = time.monotonic() + SECONDS
        with grpc.insecure_channel(self._a) as a, grpc.insecure_channel(self._b) as b:
            kinds = [*to_a(a), *to_b(b)]
            while time.monotonic() < end:
                service, expected, call = self._dice.choice(kinds)
                code = code_of(call)
                self.made[service] += 1
                self.unexpected += [f"{service}: {code}, not {expected}"] * (code != expected)
                time.sleep(PAUSE)


def test_soak(system: System, figure: Figure) -> None:
    """Client, started, handled, histogram, lines and spans agree on how many calls there were, on each side of each."""
    a, b = service_a(system.a), service_b(system.b)
    callers = [Caller(a.address, b.address, seed) for seed in range(CALLERS)]
    memory = [a.megabytes, b.megabytes]
    threads = [threading.Thread(target=caller) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = sum((caller.made for caller in callers), Counter[str]())
    counts = {"B": b.counts(), "B to A": b.counts("client"), "A": a.counts()}
    relayed = counts["B to A"]["started"]
    total = {"B": made["B"], "B to A": relayed, "A": made["A"] + relayed}
    grown = [a.megabytes - memory[0], b.megabytes - memory[1]]
    system.receiver.wait_for(sum(total.values()), timeout=15)
    seen = Counter((span.service, span.kind) for span in system.receiver.spans())
    spans = {"B": seen["service-b", "server"], "B to A": seen["service-b", "client"], "A": seen["service-a", "server"]}

    for name, number in total.items():
        figure(f"calls of {name}", f"{number} made, {counts[name]}, {spans[name]} spans", "all the same")
    figure("memory of A and B", f"{grown[0]:+.0f} MB, {grown[1]:+.0f} MB", "≤ +20 MB")
    assert [] == [unexpected for caller in callers for unexpected in caller.unexpected]
    assert {name: dict.fromkeys(counts[name], number) for name, number in total.items()} == counts
    assert total == spans
    assert max(grown) <= 20
    assert [] == a.complaints() + b.complaints()
