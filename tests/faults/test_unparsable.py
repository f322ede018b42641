"""Requests that cannot be parsed: a server keeps nothing of them, and their connection goes on."""

import itertools
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

from client.lines import fields
from client.processes import Service
from tests.faults.conftest import Figure
from tests.faults.targets import service_a
from tests.support.rpc import method

CALLS, AT_ONCE = 10_000, 4
WARM_UP = 2_000
"""Calls after which what a service keeps in queues and pools no longer grows."""
HELLO = b"\x0a\x05hello"
RUBBISH = b"\x0a\x7f"
"""A field that is longer than what follows."""
GOAL = 2.0

Make = Callable[[grpc.Channel], None]


def echo(channel: grpc.Channel) -> None:
    """Ask for nothing that can be read."""
    method(channel, "unary", "/echo.v1.EchoService/Echo")(RUBBISH, timeout=10)


def join(channel: grpc.Channel) -> None:
    """Do so in the middle of a stream."""
    method(channel, "client_stream", "/echo.v1.EchoService/EchoJoin")(iter([HELLO, RUBBISH, HELLO]), timeout=10)


def chat(channel: grpc.Channel) -> None:
    """Do so in the middle of a conversation."""
    list(method(channel, "bidi_stream", "/echo.v1.EchoService/EchoChat")(iter([HELLO, RUBBISH, HELLO]), timeout=10))


KINDS: tuple[Make, ...] = (echo, join, chat)


def codes(channel: grpc.Channel, make: Make, count: int) -> Counter[str]:
    """Make so many calls, a few at once, as long as they are answered; return how many ended with which code."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        shares = [pool.submit(codes_of_share, channel, make, count // AT_ONCE) for _ in range(AT_ONCE)]
        return sum((share.result() for share in shares), Counter())


def codes_of_share(channel: grpc.Channel, make: Make, count: int) -> Counter[str]:
    """Make so many calls, one after another."""
    ended: Counter[str] = Counter()
    for _ in itertools.repeat(None, count):
        try:
            make(channel)
            ended["OK"] += 1
        except grpc.RpcError as error:
            ended[error.code().name] += 1
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                break
    return ended


def test_unparsable(figure: Figure) -> None:
    """10,000 such calls of each kind on one connection cost A no memory, each is reported, and A ends as ever."""
    with Service("service-a", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1") as service:
        target = service_a(service)
        grown = {}
        with grpc.insecure_channel(target.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            ended = sum((codes(channel, make, WARM_UP) for make in KINDS), Counter())
            for make in KINDS:
                before = target.megabytes
                ended += codes(channel, make, CALLS)
                grown[make.__name__] = target.megabytes - before
            counts = target.counts()
        peers = {fields(line)["peer"] for line in target.lines()}
        complaints = target.complaints()
        began = time.monotonic()
        service.signal(signal.SIGTERM)
        status = service.wait()
        took = time.monotonic() - began

    for name, megabytes in grown.items():
        figure(f"A after {CALLS:,} of {name}", f"{megabytes:+.1f} MB", f"≤ +{GOAL:g} MB")
    figure("its end", f"{took:.2f} s, with a collector that is not there", "≤ 2 s")
    assert {"INTERNAL": len(KINDS) * (WARM_UP + CALLS)} == ended
    assert dict.fromkeys(counts, ended["INTERNAL"]) == counts
    assert 1 == len(peers)
    assert [] == complaints
    assert max(grown.values()) <= GOAL
    assert 0 == status
    assert took <= 2
