"""How Service B calls Service A: what it asks, how long it waits, and what it says of a failure."""

import contextlib
import itertools
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RequestInfo  # type: ignore[import-untyped]  # it has no stubs
from grpc_status import rpc_status

from client.lines import fields
from client.processes import Service
from protos.echo_pb2 import CallEchoRequest, EchoRequest, EchoResponse
from protos.echo_pb2_grpc import CallEchoServiceStub
from tests.support.freezing import freeze
from tests.support.ports import free_ports
from tests.system.conftest import System
from tests.system.scripted import ScriptedA, scripted_a, until_over

INSIDE = "connect to 10.1.2.3:8080 as root"
FIXED = {
    grpc.StatusCode.UNAVAILABLE: "failed to connect to all addresses",
    grpc.StatusCode.DEADLINE_EXCEEDED: "Service A did not answer in time",
    grpc.StatusCode.UNKNOWN: "Service A failed",
    grpc.StatusCode.INTERNAL: "Service A failed",
    grpc.StatusCode.UNIMPLEMENTED: "Service A failed",
    grpc.StatusCode.DATA_LOSS: "Service A failed",
}
FAILURES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@contextlib.contextmanager
def calling(service_b: Service) -> Iterator[CallEchoServiceStub]:
    """Give a plain stub of Service B."""
    with grpc.insecure_channel(service_b.address) as channel:
        yield CallEchoServiceStub(channel)


@contextlib.contextmanager
def b_before(service_a: str, *options: str) -> Iterator[tuple[Service, CallEchoServiceStub]]:
    """Run a Service B that calls this address, and give a stub of it."""
    with Service("service-b", "--service-a", service_a, *options) as service_b, calling(service_b) as stub:
        yield service_b, stub


def failure_of(stub: CallEchoServiceStub, msg: str = "hello", timeout: float = 5) -> Any:
    """Make a call that fails; return its failure, which is both a grpc.RpcError and a grpc.Call."""
    with pytest.raises(grpc.RpcError) as caught:
        stub.CallEcho(CallEchoRequest(msg=msg), timeout=timeout)
    return caught.value


@pytest.fixture(scope="module")
def aborting() -> Iterator[tuple[Service, CallEchoServiceStub]]:
    """Give a Service B whose A ends each call with the code that the message names."""

    def abort(request: EchoRequest, context: grpc.ServicerContext) -> EchoResponse:
        context.abort(grpc.StatusCode[request.msg], INSIDE)

    with scripted_a(abort) as service_a, b_before(service_a.address) as service_b:
        yield service_b


@pytest.mark.parametrize("code", FAILURES, ids=lambda code: code.name)
def test_codes_of_a(aborting: tuple[Service, CallEchoServiceStub], code: grpc.StatusCode) -> None:
    """B passes on A's code, and A's text but for the codes whose text would show A's inside."""
    service_b, stub = aborting

    failure = failure_of(stub, code.name)

    assert (code, FIXED.get(code, INSIDE)) == (failure.code(), failure.details())
    status = rpc_status.from_call(failure)
    reason, request = ErrorInfo(), RequestInfo()
    assert status is not None
    assert status.details[0].Unpack(reason)
    assert status.details[1].Unpack(request)
    silent = code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert ("echo.v1", "SERVICE_A_UNAVAILABLE" if silent else "SERVICE_A_ERROR") == (reason.domain, reason.reason)
    (line,) = service_b.stdout.wait_for(request.request_id, " kind=server ")
    assert code.name == fields(line)["code"]


@pytest.mark.parametrize(
    ("caller", "least", "most"),
    [(0.4, 0.1, 0.36), (0.9, 0.6, 0.85), (10.0, 0.7, 1.0), (None, 0.7, 1.0)],
    ids=["a-tenth-less", "50-ms-less", "patient-caller", "caller-without-deadline"],
)
def test_budget(caller: float | None, least: float, most: float) -> None:
    """A gets its caller's remaining time less a tenth and 50 ms at most, and a second at most."""
    with scripted_a() as service_a, b_before(service_a.address) as (_, stub):
        stub.CallEcho(CallEchoRequest(msg="hello"))  # once everything is connected, time passes for nothing else
        stub.CallEcho(CallEchoRequest(msg="hello"), timeout=caller)

    # On the wire a deadline is rounded up, to 10 ms at most here.
    assert service_a.time_left is not None
    assert least <= service_a.time_left <= most + 0.01


def test_service_a_timeout() -> None:
    """--service-a-timeout is the most that A gets."""
    with scripted_a() as service_a, b_before(service_a.address, "--service-a-timeout", "0.2") as (_, stub):
        stub.CallEcho(CallEchoRequest(msg="hello"))

    assert service_a.time_left is not None
    assert service_a.time_left <= 0.21


@pytest.mark.parametrize("caller", [30.0, None])
def test_stream_has_its_callers_deadline(caller: float | None) -> None:
    """A stream to A has its caller's deadline alone, and none if the caller gave none."""
    with scripted_a(chat=lambda *_: iter(())) as service_a, b_before(service_a.address) as (_, stub):
        list(stub.CallEchoChat(iter(()), timeout=caller))

    assert service_a.time_left is not None
    if caller is None:
        assert service_a.time_left > 1e9  # grpc#26236: no deadline
    else:
        assert 25 < service_a.time_left <= 30.1


def test_a_frozen(own_system: System) -> None:
    """With A frozen, B answers within A's time and 0.2 s."""
    with calling(own_system.b) as stub:
        stub.CallEcho(CallEchoRequest(msg="hello"), timeout=5)
        freeze(own_system.a)
        start = time.monotonic()

        failure = failure_of(stub)

    assert time.monotonic() - start < 1.2
    assert (grpc.StatusCode.DEADLINE_EXCEEDED, "Service A did not answer in time") == (
        failure.code(),
        failure.details(),
    )


@contextlib.contextmanager
def refusing() -> Iterator[str]:
    """Give an address that refuses connections."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{probe.getsockname()[1]}"


@contextlib.contextmanager
def resetting() -> Iterator[str]:
    """Give an address that ends each connection at once."""

    def reset() -> None:
        with contextlib.suppress(OSError):
            while True:
                listener.accept()[0].close()

    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=reset)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextlib.contextmanager
def swallowing() -> Iterator[str]:
    """Give an address that answers no attempt to connect: its queue is full."""
    with contextlib.ExitStack() as ends:
        listener = ends.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", 0), backlog=0)))
        for _ in range(4):
            waiting = ends.enter_context(contextlib.closing(socket.socket()))
            waiting.settimeout(0)
            waiting.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def unresolvable() -> Iterator[str]:
    """Give a name that no name server knows."""
    yield "service-a.invalid:8080"


@pytest.mark.parametrize("gone", [refusing, resetting, swallowing, unresolvable])
def test_a_did_not_answer(gone: "contextlib.AbstractContextManager[str]") -> None:
    """However A fails to answer, B reports it in time, with the fixed text of its code and no inner address."""
    with gone() as address, b_before(address) as (_, stub):  # type: ignore[operator]  # the functions above
        start = time.monotonic()
        failure = failure_of(stub)
        took = time.monotonic() - start
        status = rpc_status.from_call(failure)

    reason = ErrorInfo()
    assert took < 1.2
    assert FIXED[failure.code()] == failure.details()
    assert status is not None
    assert status.details[0].Unpack(reason)
    assert "SERVICE_A_UNAVAILABLE" == reason.reason


@pytest.mark.parametrize("seconds", [1, 5, 20])
def test_back_after_an_outage(seconds: float) -> None:
    """After A was killed and is back, B reaches it within a second, however long it was away."""
    [port] = map(str, free_ports(1))
    with Service("service-a", "--port", port) as first:
        address = first.address
        with b_before(address) as (_, stub):
            stub.CallEcho(CallEchoRequest(msg="hello"), timeout=5)
            first.signal(signal.SIGKILL)
            first.wait()
            end = time.monotonic() + seconds
            while time.monotonic() < end:  # a caller that keeps trying drives grpc's back-off up
                assert grpc.StatusCode.UNAVAILABLE == failure_of(stub).code()
                time.sleep(0.1)
            with Service("service-a", "--port", port) as second:
                assert address == second.address
                back = time.monotonic()
                while not answers(stub):
                    time.sleep(0.01)
                took = time.monotonic() - back

    assert took < 1


def answers(stub: CallEchoServiceStub) -> bool:
    """Return whether a call succeeds."""
    with contextlib.suppress(grpc.RpcError):
        stub.CallEcho(CallEchoRequest(msg="hello"), timeout=1)
        return True
    return False


def over_within(service_a: ScriptedA, start: float) -> float:
    """Wait for the end of A's call; return how long after the start it came, in seconds."""
    assert service_a.over.wait(5)
    return service_a.over_at - start


def test_cancelling_reaches_a() -> None:
    """When B's caller cancels, A's call is over within 0.2 s."""
    with scripted_a(until_over) as service_a, b_before(service_a.address) as (_, stub):
        call = stub.CallEcho.future(CallEchoRequest(msg="hello"))
        assert service_a.entered.wait(5)

        start = time.monotonic()
        call.cancel()

        assert over_within(service_a, start) < 0.2


def test_deadline_reaches_a() -> None:
    """When B's caller gives up, A's call is over within 0.2 s of that."""
    patient = ("--service-a-timeout", "30")
    with scripted_a(until_over) as service_a, b_before(service_a.address, *patient) as (_, stub):
        start = time.monotonic()
        failure = failure_of(stub, timeout=0.5)

        assert over_within(service_a, start) < 0.7
    assert grpc.StatusCode.DEADLINE_EXCEEDED == failure.code()


def test_cancelled_chat_reaches_a() -> None:
    """A chat that its caller cancels is cancelled for A too, within 0.2 s: A does not get the end of its requests."""
    more = threading.Event()
    with scripted_a(chat=echo_each) as service_a, b_before(service_a.address) as (_, stub):
        answers = stub.CallEchoChat(itertools.chain([CallEchoRequest(msg="one")], waiting(more)))
        next(answers)

        start = time.monotonic()
        answers.cancel()

        assert over_within(service_a, start) < 0.2
    more.set()
    assert service_a.cancelled


def echo_each(requests: Iterator[EchoRequest], _context: grpc.ServicerContext) -> Iterator[EchoResponse]:
    """Echo each message as it comes."""
    for request in requests:
        yield EchoResponse(echo=request.msg)


def waiting(event: threading.Event) -> Iterator[CallEchoRequest]:
    """Yield nothing, as long as the event is not there."""
    event.wait()
    yield from ()


def test_end_of_a_ends_the_chat() -> None:
    """A chat ends when A ends it, though its caller has more to say."""

    def fail(_requests: Iterator[EchoRequest], context: grpc.ServicerContext) -> Iterator[EchoResponse]:
        yield EchoResponse(echo="last words")
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")

    more = threading.Event()
    with scripted_a(chat=fail) as service_a, b_before(service_a.address) as (service_b, stub):
        answers = stub.CallEchoChat(waiting(more), timeout=5)
        first = next(answers)
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        more.set()
        lines = service_b.stdout.wait_for("-chat ", count=2)

    assert ("last words", grpc.StatusCode.RESOURCE_EXHAUSTED, "enough") == (
        first.service_a.echo,
        caught.value.code(),
        caught.value.details(),
    )
    assert ["RESOURCE_EXHAUSTED"] * 2 == [fields(line)["code"] for line in lines]
    assert [] == service_b.stderr.lines()


def test_back_pressure() -> None:
    """An A that does not read holds its caller's messages back: B does not pile them up."""
    sent = itertools.count()
    total = 0
    slow = threading.Event()

    def unread(_requests: Iterator[EchoRequest], _context: grpc.ServicerContext) -> Iterator[EchoResponse]:
        slow.wait()
        yield from ()

    def endless() -> Iterator[CallEchoRequest]:
        nonlocal total
        for total in sent:  # noqa: B007 - it is read outside
            yield CallEchoRequest(msg="x" * 10_000)

    with scripted_a(chat=unread) as service_a, b_before(service_a.address) as (_, stub):
        answers = stub.CallEchoChat(endless())
        assert service_a.entered.wait(5)
        before = -1
        while before != total < 5_000:  # until the sender is held back
            before = total
            time.sleep(0.3)
        answers.cancel()
        slow.set()

    # What fits into the windows and buffers of two connections, some 4 MB each, more on a busy machine; not 50 MB.
    assert total < 5_000
