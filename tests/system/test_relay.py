"""How Service B calls Service A: what it asks, how long it waits, and what it says of a failure."""

import contextlib
import itertools
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import (  # type: ignore[import-untyped]  # it has no stubs
    BadRequest,
    DebugInfo,
    ErrorInfo,
    RequestInfo,
)
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # as above
from hyperframe.frame import RstStreamFrame

from client.lines import fields
from programs.status import details_of, refuse
from protos.echo_pb2 import CallEchoRequest, EchoRequest, EchoResponse
from protos.echo_pb2_grpc import CallEchoServiceStub
from tests.support.freezing import freeze
from tests.support.h2 import Peer, Wire, answering
from tests.support.ports import free_ports
from tests.support.process import Service
from tests.system.conftest import System
from tests.system.scripted import Echo, EchoChat, ScriptedA, scripted_a, until_over

INSIDE = "connect to 10.1.2.3:8080 as root"
FAILED = "Service A failed"
SILENT = {
    grpc.StatusCode.UNAVAILABLE: "failed to connect to all addresses",
    grpc.StatusCode.DEADLINE_EXCEEDED: "Service A did not answer in time",
}
FAILURES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
CALLS: dict[str, Callable[[CallEchoServiceStub, str], Any]] = {
    "CallEcho": lambda stub, msg: stub.CallEcho(CallEchoRequest(msg=msg), timeout=5),
    "CallEchoChat": lambda stub, msg: list(stub.CallEchoChat(iter([CallEchoRequest(msg=msg)]), timeout=5)),
}
EITHER_CALL = pytest.mark.parametrize("method", CALLS)
INTERNAL_ERROR, REFUSED_STREAM, CANCEL = 2, 7, 8  # error codes: RFC 9113, section 7

Answer: TypeAlias = Callable[[Wire, int], None]
"""Answers a call, by its stream."""


def reset(code: int) -> Answer:
    """Return an answer that resets the stream."""
    return lambda wire, stream: wire.send(RstStreamFrame(stream, code))


def http_status(status: str) -> Answer:
    """Return an answer of headers alone, with this status of HTTP's."""
    return lambda wire, stream: wire.send(*wire.header_frames(stream, [(":status", status)], end=True))


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


def failure_of(stub: CallEchoServiceStub, msg: str = "hello", method: str = "CallEcho") -> Any:
    """Make a call that fails; return its failure, which is both a grpc.RpcError and a grpc.Call."""
    with pytest.raises(grpc.RpcError) as caught:
        CALLS[method](stub, msg)
    return caught.value


def reason_of(failure: Any) -> str:
    """Return what B says of A in a failure's details."""
    (info,) = details_of(failure, ErrorInfo)
    assert "echo.v1" == info.domain
    return str(info.reason)


def aborting_with(abort: Callable[[str, grpc.ServicerContext], None]) -> tuple[Echo, EchoChat]:
    """Return how an A answers that ends each call so, by what the first message says."""

    def echo(request: EchoRequest, context: grpc.ServicerContext) -> EchoResponse:
        abort(request.msg, context)
        raise AssertionError

    def chat(requests: Iterator[EchoRequest], context: grpc.ServicerContext) -> Iterator[EchoResponse]:
        yield echo(next(requests), context)

    return echo, chat


@pytest.fixture(scope="module")
def aborting() -> Iterator[tuple[Service, CallEchoServiceStub]]:
    """Give a Service B whose A ends each call with the code that the message names, and its inside in all else."""

    def abort(code: str, context: grpc.ServicerContext) -> None:
        context.send_initial_metadata((("x-inside", INSIDE),))
        refuse(context, grpc.StatusCode[code], INSIDE, DebugInfo(detail=INSIDE))

    with scripted_a(*aborting_with(abort)) as service_a, b_before(service_a.address) as service_b:
        yield service_b


@EITHER_CALL
@pytest.mark.parametrize("code", FAILURES, ids=lambda code: code.name)
def test_codes_of_a(aborting: tuple[Service, CallEchoServiceStub], code: grpc.StatusCode, method: str) -> None:
    """B passes on A's code, with a text and details of its own; what A said is in B's log."""
    service_b, stub = aborting
    # A that ends a call which nobody here has cancelled does not answer it.
    expected = grpc.StatusCode.UNAVAILABLE if code is grpc.StatusCode.CANCELLED else code

    failure = failure_of(stub, code.name, method)

    assert (expected, SILENT.get(expected, FAILED)) == (failure.code(), failure.details())
    assert ("SERVICE_A_UNAVAILABLE" if expected in SILENT else "SERVICE_A_ERROR") == reason_of(failure)
    assert INSIDE not in str([*failure.initial_metadata(), *failure.trailing_metadata()])
    (request,) = details_of(failure, RequestInfo)
    server, client = sorted(
        map(fields, service_b.stdout.wait_for(request.request_id, count=2)), key=lambda line: line["kind"], reverse=True
    )
    assert (expected.name, f"StatusCode.{expected.name}: {failure.details()}") == (server["code"], server["error"])
    assert (code.name, f"StatusCode.{code.name}: {INSIDE}") == (client["code"], client["error"])


@EITHER_CALL
def test_refusal_of_a(system: System, method: str) -> None:
    """A message that A refuses, as its contract says, is refused in A's words, and with its BadRequest."""
    with calling(system.b) as stub:
        failure = failure_of(stub, "x" * (64 * 1024 + 1), method)

    (refusal,) = details_of(failure, BadRequest)
    text = "longer than 65536 bytes"
    assert (grpc.StatusCode.INVALID_ARGUMENT, f"msg: {text}") == (failure.code(), failure.details())
    assert [("msg", text)] == [(violation.field, violation.description) for violation in refusal.field_violations]
    assert "SERVICE_A_ERROR" == reason_of(failure)


def status_of(text: str, detail: bytes) -> bytes:
    """Return an INVALID_ARGUMENT with this text and these bytes for a BadRequest."""
    packed = AnyMessage(type_url="type.googleapis.com/google.rpc.BadRequest", value=detail)
    status: bytes = Status(code=3, message=text, details=[packed]).SerializeToString()
    return status


LONG = BadRequest(field_violations=[{"description": INSIDE * 40}]).SerializeToString()
MISLEADING: dict[str, tuple[str, bytes]] = {
    "no-status": (INSIDE, b"\xff" * 20),
    "no-detail": (INSIDE, status_of(INSIDE, b"\xff" * 20)),
    "other-text": (INSIDE, status_of("msg: too long", b"")),
    "long-text": (INSIDE * 40, status_of(INSIDE * 40, b"")),
    "long-detail": (INSIDE, status_of(INSIDE, LONG)),
}


@pytest.fixture(scope="module")
def misleading() -> Iterator[CallEchoServiceStub]:
    """Give a stub of a Service B whose A refuses with the text and the details of a status that the message names."""

    def abort(name: str, context: grpc.ServicerContext) -> None:
        text, status = MISLEADING[name]
        context.set_trailing_metadata((("grpc-status-details-bin", status),))
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)

    with scripted_a(*aborting_with(abort)) as service_a, b_before(service_a.address) as (_, stub):
        yield stub


@EITHER_CALL
@pytest.mark.parametrize("name", MISLEADING)
def test_refusal_unlike_the_contract(misleading: CallEchoServiceStub, name: str, method: str) -> None:
    """Details that are none, contradict the status or have many kB let none of A's words pass."""
    failure = failure_of(misleading, name, method)

    assert (grpc.StatusCode.INVALID_ARGUMENT, FAILED) == (failure.code(), failure.details())
    assert "SERVICE_A_ERROR" == reason_of(failure)
    assert [] == list(details_of(failure, BadRequest))


@EITHER_CALL
@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (reset(CANCEL), grpc.StatusCode.UNAVAILABLE, SILENT[grpc.StatusCode.UNAVAILABLE]),
        (reset(REFUSED_STREAM), grpc.StatusCode.UNAVAILABLE, SILENT[grpc.StatusCode.UNAVAILABLE]),
        (reset(INTERNAL_ERROR), grpc.StatusCode.INTERNAL, FAILED),
        (http_status("401"), grpc.StatusCode.UNAUTHENTICATED, FAILED),
        (http_status("403"), grpc.StatusCode.PERMISSION_DENIED, FAILED),
        (http_status("404"), grpc.StatusCode.UNIMPLEMENTED, FAILED),
    ],
    ids=["cancelled", "refused", "internal-error", "401", "403", "404"],
)
def test_words_of_grpc(answer: Answer, code: grpc.StatusCode, text: str, method: str) -> None:
    """What grpc says of an A that answers no call is in B's log alone; a call that A's grpc cancels is UNAVAILABLE."""
    with Peer(answering(answer)) as peer, b_before(peer.address) as (service_b, stub):
        failure = failure_of(stub, "hello", method)
        lines = [fields(line) for line in service_b.stdout.wait_for(" method=", count=2)]

    assert (code, text) == (failure.code(), failure.details())
    assert ("SERVICE_A_UNAVAILABLE" if code in SILENT else "SERVICE_A_ERROR") == reason_of(failure)
    (client,) = [line for line in lines if "client" == line["kind"]]
    assert "eceived" in client["error"]  # a header or RST_STREAM


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

    assert took < 1.2
    assert SILENT[failure.code()] == failure.details()
    assert "SERVICE_A_UNAVAILABLE" == reason_of(failure)


@EITHER_CALL
def test_failures_keep_no_streams(method: str) -> None:
    """Calls that fail leave their connection free for more, though each is a stream and B takes but ten at once."""
    with refusing() as address, b_before(address, "--max-concurrent-streams", "10") as (_, stub):
        texts = {failure_of(stub, method=method).details() for _ in range(40)}

    assert {SILENT[grpc.StatusCode.UNAVAILABLE]} == texts


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
    """When B's caller cancels, A's call is over within 0.2 s, and all of B's lines say CANCELLED."""
    with scripted_a(until_over) as service_a, b_before(service_a.address) as (service_b, stub):
        call = stub.CallEcho.future(CallEchoRequest(msg="hello"))
        assert service_a.entered.wait(5)

        start = time.monotonic()
        call.cancel()

        assert over_within(service_a, start) < 0.2
        assert ["CANCELLED"] * 2 == codes_of(service_b)


def codes_of(service_b: Service) -> list[str]:
    """Wait for B's two lines of a call; return their codes."""
    return [fields(line)["code"] for line in service_b.stdout.wait_for(" method=", count=2)]


def test_deadline_reaches_a() -> None:
    """When B's caller gives up, A's call is over within 0.2 s of that."""
    patient = ("--service-a-timeout", "30")
    with scripted_a(until_over) as service_a, b_before(service_a.address, *patient) as (_, stub):
        start = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            stub.CallEcho(CallEchoRequest(msg="hello"), timeout=0.5)

        assert over_within(service_a, start) < 0.7
    assert grpc.StatusCode.DEADLINE_EXCEEDED == caught.value.code()


def test_cancelled_chat_reaches_a() -> None:
    """
    A chat that its caller cancels is cancelled for A too, within 0.2 s, and on all of B's lines.

    A does not get the end of its requests.
    """
    more = threading.Event()
    with scripted_a(chat=echo_each) as service_a, b_before(service_a.address) as (service_b, stub):
        answers = stub.CallEchoChat(itertools.chain([CallEchoRequest(msg="one")], waiting(more)))
        next(answers)

        start = time.monotonic()
        answers.cancel()

        assert over_within(service_a, start) < 0.2
        assert ["CANCELLED"] * 2 == codes_of(service_b)
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

    def fail(requests: Iterator[EchoRequest], context: grpc.ServicerContext) -> Iterator[EchoResponse]:
        yield EchoResponse(echo=next(requests).msg)
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")

    more = threading.Event()
    with scripted_a(chat=fail) as service_a, b_before(service_a.address) as (service_b, stub):
        answers = stub.CallEchoChat(itertools.chain([CallEchoRequest(msg="last words")], waiting(more)), timeout=5)
        first = next(answers)
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        more.set()
        codes = codes_of(service_b)

    assert ("last words", grpc.StatusCode.RESOURCE_EXHAUSTED, FAILED) == (
        first.service_a.echo,
        caught.value.code(),
        caught.value.details(),
    )
    assert ["RESOURCE_EXHAUSTED"] * 2 == codes
    assert [] == service_b.stderr.lines()


def test_chats_at_once() -> None:
    """--max-chats is how many chats there are at once: one more is refused, and no other call; there is room later."""
    more = threading.Event()
    with scripted_a(chat=echo_each) as service_a, b_before(service_a.address, "--max-chats", "1") as (_, stub):
        answers = stub.CallEchoChat(itertools.chain([CallEchoRequest(msg="one")], waiting(more)))
        next(answers)
        refused = failure_of(stub, method="CallEchoChat")
        CALLS["CallEcho"](stub, "hello")
        more.set()
        assert [] == list(answers)
        after = first_chat(stub)

    assert (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many chats at once") == (refused.code(), refused.details())
    assert "hello" == after.service_a.echo


def first_chat(stub: CallEchoServiceStub, seconds: float = 5.0) -> Any:
    """Return the answer to the first chat for which B has room."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return CALLS["CallEchoChat"](stub, "hello")[0]
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED or time.monotonic() > deadline:
                raise


def test_chats_have_their_own_connections(system: System) -> None:
    """No call that answers once is on a connection to A that has chats, which their callers may hold."""
    with calling(system.b) as stub:
        for method in (*CALLS, *CALLS):
            CALLS[method](stub, f"apart-{method}")
    peers = {
        method: {fields(line)["peer"] for line in system.a.stdout.wait_for(f"endpoint={endpoint} ", count=2)}
        for method, endpoint in (("CallEcho", "/echo"), ("CallEchoChat", "/echo-chat"))
    }

    assert all(peers.values())
    assert peers["CallEcho"].isdisjoint(peers["CallEchoChat"])


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
