"""Restarts of Service A under load: what B's callers see of them."""

import itertools
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from client.processes import Service
from protos.echo_pb2 import CallEchoRequest
from protos.echo_pb2_grpc import CallEchoServiceStub
from tests.faults.conftest import Figure
from tests.faults.good_client import GoodClient
from tests.faults.targets import service_b
from tests.support.ports import free_ports

RESTARTS = 15
RPS = 200.0


@contextmanager
def chatting(address: str) -> Iterator[Counter[str]]:
    """Chat over Service B, one chat after the other, until the end; gives how many ended with each code."""
    codes: Counter[str] = Counter()
    over = threading.Event()

    def chat(stub: CallEchoServiceStub) -> None:
        while not over.wait(0.02):
            try:
                # Each is long enough to be there when A ends, and short enough for some to begin while it does.
                for _ in stub.CallEchoChat(itertools.repeat(CallEchoRequest(msg="hello"), 20), timeout=10):
                    pass
                codes["OK"] += 1
            except grpc.RpcError as error:
                codes[error.code().name] += 1

    with grpc.insecure_channel(address) as channel:
        threads = [threading.Thread(target=chat, args=[CallEchoServiceStub(channel)]) for _ in range(2)]
        for thread in threads:
            thread.start()
        yield codes
        over.set()
        for thread in threads:
            thread.join()


def start_a(port: str, number: int) -> Service:
    """Start Service A; each second one lets no call end that goes on when it stops."""
    return Service("service-a", "--port", port, "--grace", "0" if number % 2 else "5", OTEL_TRACES_EXPORTER="none")


def test_restarts_of_a(figure: Figure) -> None:
    """While A restarts 15 times, B's callers see OK and UNAVAILABLE alone, and B reports what they see."""
    [port] = map(str, free_ports(1))
    a = start_a(port, 0)
    with Service("service-b", "--service-a", f"127.0.0.1:{port}", OTEL_TRACES_EXPORTER="none") as service:
        b = service_b(service)
        with GoodClient("B", b.address, rps=RPS, timeout=5) as client, chatting(b.address) as chats:
            for number in range(1, RESTARTS + 1):
                client.wait_for(40, "OK")
                a.signal(signal.SIGTERM)
                a.wait()
                a = start_a(port, number)
            client.wait_for(40, "OK")
        a.stop()
        counts, codes, made = b.counts(), b.codes(), b.codes("client")

    figure(f"{RESTARTS} restarts of A: unary calls", str(client), "OK and UNAVAILABLE alone")
    figure(f"{RESTARTS} restarts of A: chats", str(dict(chats)), "OK and UNAVAILABLE alone")
    figure(f"{RESTARTS} restarts of A: calls that A's grpc cancelled", str(made["CANCELLED"]), "UNAVAILABLE to callers")
    assert {"OK", "UNAVAILABLE"} == client.codes.keys()
    assert {"OK", "UNAVAILABLE"} == chats.keys()
    assert {"OK", "UNAVAILABLE", "CANCELLED"} >= made.keys()
    # On a busy machine B's grpc refuses streams by itself, of which nothing shows.
    seen = client.codes + chats
    assert (seen["OK"], {"OK", "UNAVAILABLE"}) == (codes["OK"], {*codes})
    assert seen["UNAVAILABLE"] >= codes["UNAVAILABLE"] > 0
    assert len({*counts.values()}) == 1, counts
