"""Both services as servers: their limits, and their end."""

import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc.error_details_pb2 import BadRequest  # type: ignore[import-untyped]  # it has no stubs
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from grpc_status import rpc_status
from hyperframe.frame import PingFrame

from client.lines import fields
from client.processes import ROOT, environment
from client.web import get, metrics
from protos.echo_pb2 import CallEchoRequest, EchoRepeatRequest, EchoRequest, EchoResponse, HealthCheckRequest
from protos.echo_pb2_grpc import CallEchoServiceStub, EchoServiceStub, HealthServiceStub
from tests.support import python
from tests.support.h2 import dial
from tests.support.process import Service
from tests.support.receiver import HungReceiver, Receiver
from tests.system.conftest import System
from tests.system.scripted import scripted_a, until_over

FOLDERS = ("service-a", "service-b")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@contextlib.contextmanager
def channel_to(service: Service) -> Iterator[grpc.Channel]:
    """Open a plain channel to a service."""
    with grpc.insecure_channel(service.address, [("grpc.max_receive_message_length", -1)]) as channel:
        yield channel


def check(channel: grpc.Channel, service: str = "") -> int:
    """Ask the standard health service once."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    status: int = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=2).status
    return status


def watch(channel: grpc.Channel, service: str = "") -> Iterator[int]:
    """Ask the standard health service to send every change."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return (answer.status for answer in stub.Watch(health_pb2.HealthCheckRequest(service=service)))


def refusal_of(call: Any) -> Any:
    """Make a call that fails; return its failure, which is both a grpc.RpcError and a grpc.Call."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def blamed_field(failure: Any) -> str:
    """Return the field that an INVALID_ARGUMENT blames."""
    assert grpc.StatusCode.INVALID_ARGUMENT is failure.code()
    status = rpc_status.from_call(failure)
    assert status is not None
    details = BadRequest()
    assert status.details[0].Unpack(details)
    (violation,) = details.field_violations
    field: str = violation.field
    return field


def test_longest_msg(system: System) -> None:
    """A echoes a msg of 64 KiB of UTF-8, and refuses one byte more."""
    longest = "é" * (32 * 1024)
    with channel_to(system.a) as channel:
        stub = EchoServiceStub(channel)
        echoed = stub.Echo(EchoRequest(msg=longest), timeout=5).echo
        refused = refusal_of(lambda: stub.Echo(EchoRequest(msg=longest + "x"), timeout=5))

    assert longest == echoed
    assert "msg" == blamed_field(refused)


def test_limit_of_msg_can_be_set() -> None:
    """--max-msg-bytes is the longest msg, in every method."""
    with Service("service-a", "--max-msg-bytes", "3") as service, channel_to(service) as channel:
        stub = EchoServiceStub(channel)
        calls = (
            lambda: stub.Echo(EchoRequest(msg="four"), timeout=5),
            lambda: list(stub.EchoRepeat(EchoRepeatRequest(msg="four", times=1), timeout=5)),
            lambda: stub.EchoJoin(iter([EchoRequest(msg="one"), EchoRequest(msg="four")]), timeout=5),
            lambda: list(stub.EchoChat(iter([EchoRequest(msg="four")]), timeout=5)),
        )

        assert ["msg"] * 4 == [blamed_field(refusal_of(call)) for call in calls]


def test_negative_times(system: System) -> None:
    """A refuses to echo less than no times."""
    with channel_to(system.a) as channel:
        stub = EchoServiceStub(channel)
        refused = refusal_of(lambda: list(stub.EchoRepeat(EchoRepeatRequest(msg="x", times=-1), timeout=5)))

    assert "times" == blamed_field(refused)


def test_joined_text_is_bounded() -> None:
    """What A joins has a limit, however many messages it is made of."""
    with Service("service-a", "--max-joined-bytes", "1000") as service, channel_to(service) as channel:
        stub = EchoServiceStub(channel)
        joined = stub.EchoJoin((EchoRequest(msg="x" * 99) for _ in range(10)), timeout=5).echo
        refused = refusal_of(lambda: stub.EchoJoin((EchoRequest(msg="x" * 99) for _ in range(11)), timeout=5))

    assert 999 == len(joined)
    assert "msg" == blamed_field(refused)


@pytest.mark.parametrize("folder", FOLDERS)
def test_connections_are_bounded(folder: str) -> None:
    """--max-connections is how many there are: one more is closed at once, and taken when another has left."""
    local = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]
    with Service(folder, "--max-connections", "2") as service:
        host, port = service.address.split(":")
        with contextlib.ExitStack() as silent:
            for _ in range(2):
                silent.enter_context(socket.create_connection((host, int(port))))
            with grpc.insecure_channel(service.address, local) as channel:
                refused = refusal_of(lambda: HealthServiceStub(channel).Check(HealthCheckRequest(), timeout=5))
        with grpc.insecure_channel(service.address, local) as channel:
            answer = HealthServiceStub(channel).Check(HealthCheckRequest(), timeout=5, wait_for_ready=True)

    assert grpc.StatusCode.UNAVAILABLE is refused.code()
    assert "ok" == answer.status


def test_connections_have_an_age() -> None:
    """A connection of --max-connection-age takes no new calls, and those on it end after the grace."""
    ages = ("--max-connection-age", "0.2", "--max-connection-age-grace", "0.2")
    over = threading.Event()
    with Service("service-a", *ages) as service, channel_to(service) as channel:
        stub = EchoServiceStub(channel)
        chat = stub.EchoChat(until(over, EchoRequest(msg="one")))
        assert "one" == next(chat).echo
        cut_off = refusal_of(lambda: next(chat))
        over.set()

        assert grpc.StatusCode.UNAVAILABLE is cut_off.code()
        assert "hello" == stub.Echo(EchoRequest(msg="hello"), timeout=5, wait_for_ready=True).echo


@pytest.mark.parametrize("folder", FOLDERS)
def test_largest_request(folder: str) -> None:
    """--max-request-bytes is the largest message that a service takes."""
    with Service(folder, "--max-request-bytes", "2000") as service, channel_to(service) as channel:
        call: Any = channel.unary_unary("/echo.v1.HealthService/Check")
        refused = refusal_of(lambda: call(bytes(3000), timeout=5))

    assert grpc.StatusCode.RESOURCE_EXHAUSTED is refused.code()


def test_concurrency_limit() -> None:
    """--max-concurrent-rpcs is how many calls there may be at once; one more is refused at once."""
    with Service("service-a", "--max-concurrent-rpcs", "2") as service, channel_to(service) as channel:
        stub = EchoServiceStub(channel)
        over = threading.Event()
        chats = [stub.EchoChat(until(over, EchoRequest(msg="hello"))) for _ in range(2)]
        for chat in chats:
            next(chat)
        refused = refusal_of(lambda: stub.Echo(EchoRequest(msg="hello"), timeout=5))
        over.set()

    assert grpc.StatusCode.RESOURCE_EXHAUSTED is refused.code()


def until(over: threading.Event, *requests: Any) -> Iterator[Any]:
    """Yield these requests, and end when it is over."""
    yield from requests
    over.wait()


@pytest.mark.parametrize("folder", FOLDERS)
def test_watchers_hold_no_threads(folder: str) -> None:
    """As many open Health.Watch streams as there are threads, and twice as many, keep no call waiting."""
    with Service(folder, "--max-workers", "2") as service, channel_to(service) as channel:
        watches = [watch(channel) for _ in range(4)]
        assert [SERVING] * 4 == [next(statuses) for statuses in watches]

        assert SERVING == check(channel)
        assert "ok" == HealthServiceStub(channel).Check(HealthCheckRequest(), timeout=2).status


@pytest.mark.parametrize(
    ("folder", "path"), [("service-a", "/echo.v1.EchoService/Echo"), ("service-b", "/echo.v1.CallEchoService/CallEcho")]
)
def test_health_beside_calls_that_hold_all_threads(folder: str, path: str) -> None:
    """While calls whose request never comes hold every thread, both health services answer."""
    with (
        Service(folder, "--max-workers", "2") as service,
        dial(service.address) as wire,
        channel_to(service) as channel,
    ):
        for _ in range(4):
            wire.call(path, message=None, end=False)
        wire.send(PingFrame(0, b"all sent"))
        wire.wait_for(lambda: wire.pongs > 0)

        assert SERVING == check(channel)
        assert "ok" == HealthServiceStub(channel).Check(HealthCheckRequest(), timeout=2).status


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("service-a", ""),
        ("service-a", "echo.v1.EchoService"),
        ("service-a", "echo.v1.HealthService"),
        ("service-b", ""),
        ("service-b", "echo.v1.CallEchoService"),
        ("service-b", "echo.v1.HealthService"),
    ],
)
def test_standard_health(system: System, folder: str, name: str) -> None:
    """The standard health service knows the server as a whole, and each of its services."""
    with channel_to(system.a if folder == "service-a" else system.b) as channel:
        assert SERVING == check(channel, name)


@pytest.mark.parametrize(("folder", "own"), [("service-a", "EchoService"), ("service-b", "CallEchoService")])
def test_reflection(folder: str, own: str) -> None:
    """--reflection lists the services; without it nothing does."""
    with Service(folder, "--reflection") as service, channel_to(service) as channel:
        listed = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    with Service(folder) as service, channel_to(service) as channel:
        refused = refusal_of(lambda: ProtoReflectionDescriptorDatabase(channel).get_services())

    assert {
        f"echo.v1.{own}",
        "echo.v1.HealthService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "grpc.reflection.v1.ServerReflection",
    } == listed
    assert grpc.StatusCode.UNIMPLEMENTED is refused.code()


def reflect(channel: grpc.Channel, *requests: ServerReflectionRequest) -> list[ServerReflectionResponse]:
    """Ask for reflection as v1, whose messages are those of v1alpha on the wire."""
    call: Any = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )
    return list(call(iter(requests), timeout=5))


@pytest.mark.parametrize(("folder", "own"), [("service-a", "EchoService"), ("service-b", "CallEchoService")])
def test_reflection_v1(folder: str, own: str) -> None:
    """Reflection speaks v1 too: it lists the services, and describes each of them, itself included."""
    with Service(folder, "--reflection") as service, channel_to(service) as channel:
        (listed,) = reflect(channel, ServerReflectionRequest(list_services=""))
        names = [service.name for service in listed.list_services_response.service]
        described = reflect(channel, *(ServerReflectionRequest(file_containing_symbol=name) for name in names))
    with Service(folder) as service, channel_to(service) as channel:
        refused = refusal_of(lambda: reflect(channel, ServerReflectionRequest(list_services="")))

    assert {f"echo.v1.{own}", "grpc.reflection.v1.ServerReflection"} <= set(names)
    for name, response in zip(names, described, strict=True):
        files = [FileDescriptorProto.FromString(f) for f in response.file_descriptor_response.file_descriptor_proto]
        assert name in {f"{file.package}.{service.name}" for file in files for service in file.service}
    assert grpc.StatusCode.UNIMPLEMENTED is refused.code()


@pytest.mark.parametrize("folder", FOLDERS)
def test_liveness_and_readiness(folder: str) -> None:
    """Both are SERVING; while the service drains, readiness is not, and liveness still is; List says the same."""
    own = "echo.v1.EchoService" if folder == "service-a" else "echo.v1.CallEchoService"
    with Service(folder, "--drain-delay", "30") as service, channel_to(service) as channel:
        before = [check(channel, name) for name in ("liveness", "readiness")]
        statuses = watch(channel, "readiness")
        next(statuses)
        service.signal(signal.SIGTERM)
        draining = next(statuses)
        alive = check(channel, "liveness")
        stub: Any = health_pb2_grpc.HealthStub(channel)
        listed = stub.List(cast("Any", health_pb2).HealthListRequest(), timeout=5).statuses
        service.signal(signal.SIGTERM)

    assert [SERVING, SERVING] == before
    assert (NOT_SERVING, SERVING) == (draining, alive)
    assert {"", "liveness", "readiness", "echo.v1.HealthService", own} == set(listed)
    assert SERVING == listed["liveness"].status


@pytest.mark.parametrize("folder", FOLDERS)
def test_used_port(system: System, folder: str) -> None:
    """A gRPC port that is in use is reported in one line, with exit status 1."""
    result = start_in_vain(folder, "--port", system.a.address.rpartition(":")[2])

    assert (f"cannot listen on {system.a.address}: address already in use\n", 1) == (result.stderr, result.returncode)


def test_health_port() -> None:
    """At --health-port there are health checks and nothing else, to the end of the drain."""
    with Service("service-a", "--health-port", "0", "--drain-delay", "5") as service:
        _ = service.address
        [line] = service.stdout.wait_for("health without TLS")
        with grpc.insecure_channel(fields(line)["address"]) as channel:
            before = [check(channel, name) for name in ("readiness", "liveness", "echo.v1.EchoService")]
            refused = refusal_of(lambda: EchoServiceStub(channel).Echo(EchoRequest(msg="hello"), timeout=5))
            changes = watch(channel, "readiness")
            first = next(changes)
            service.signal(signal.SIGTERM)
            drained = [next(changes), check(channel, "liveness")]

    assert [SERVING] * 3 == before
    assert grpc.StatusCode.UNIMPLEMENTED is refused.code()
    assert SERVING == first
    assert [NOT_SERVING, SERVING] == drained


def test_reuse_port() -> None:
    """With --reuse-port two processes of A share a port and its connections, each with a /metrics of its own."""
    with (
        Service("service-a", "--reuse-port") as first,
        Service("service-a", "--reuse-port", "--port", first.address.rpartition(":")[2]) as second,
    ):
        assert first.address == second.address
        answered = {first.metrics_url: 0.0, second.metrics_url: 0.0}
        assert 2 == len(answered)
        for _ in range(100):  # all of which go to one of two once in 2^99 runs
            with grpc.insecure_channel(first.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                EchoServiceStub(channel).Echo(EchoRequest(msg="hello"), timeout=5)
            answered = {url: echoes(url) for url in answered}
            if all(answered.values()):
                break

    assert all(answered.values()), answered


def echoes(url: str) -> float:
    """Return how many calls of Echo a process has served, by its /metrics."""
    found = re.search(r'grpc_server_handled_total{grpc_code="OK",grpc_method="Echo",.*} (\S+)', get(url))
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("folder", FOLDERS)
def test_used_metrics_port(system: System, folder: str) -> None:
    """A /metrics port that is in use is reported in one line, with exit status 1."""
    address = system.a.metrics_url.removeprefix("http://").removesuffix("/metrics")

    result = start_in_vain(folder, "--port", "0", OTEL_EXPORTER_PROMETHEUS_PORT=address.rpartition(":")[2])

    assert (f"cannot listen on {address}: address already in use\n", 1) == (result.stderr, result.returncode)


def start_in_vain(folder: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Start a service that fails to start; return what became of it."""
    variables = {"OTEL_EXPORTER_PROMETHEUS_PORT": "0", **variables}
    return python.run("app.py", *options, folder=ROOT / folder, variables=variables)


@pytest.mark.parametrize("folder", FOLDERS)
@SIGNALS
def test_idle_end(folder: str, number: int) -> None:
    """SIGTERM and SIGINT end an idle service within 3 s, with exit status 0, even with open Health.Watch streams."""
    with Service(folder) as service, channel_to(service) as channel:
        statuses = watch(channel)
        assert SERVING == next(statuses)
        start = time.monotonic()
        service.signal(number)

        assert 0 == service.wait()
        assert time.monotonic() - start < 3


@pytest.mark.parametrize("folder", FOLDERS)
def test_end_as_watchers_leave(folder: str) -> None:
    """Health.Watch streams that end in the moment of SIGTERM do not keep a service from its end."""
    with Service(folder) as service:
        with channel_to(service) as channel:
            watches = [watch(channel) for _ in range(4)]
            assert [SERVING] * 4 == [next(statuses) for statuses in watches]
        service.signal(signal.SIGTERM)

        assert 0 == service.wait(3)


def test_end_with_hung_collector() -> None:
    """A collector that takes spans and never answers keeps nobody from ending within 3 s, with exit status 0."""
    with HungReceiver() as receiver, Service("service-a", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint) as service:
        with channel_to(service) as channel:
            for _ in range(3000):  # more than its queue holds
                EchoServiceStub(channel).Echo(EchoRequest(msg="hello"), timeout=5)
        start = time.monotonic()
        service.signal(signal.SIGTERM)

        assert 0 == service.wait()
        assert time.monotonic() - start < 3


def test_drain_delay() -> None:
    """Before it refuses calls, a service says NOT_SERVING for the drain delay and still answers."""
    with Service("service-a", "--drain-delay", "1") as service, channel_to(service) as channel:
        statuses = watch(channel)
        assert SERVING == next(statuses)
        service.signal(signal.SIGTERM)

        assert NOT_SERVING == next(statuses)
        assert "hello" == EchoServiceStub(channel).Echo(EchoRequest(msg="hello"), timeout=5).echo
        assert 0 == service.wait()


@SIGNALS
def test_call_in_flight_survives_the_end(number: int) -> None:
    """A call that is being served when the signal comes loses nothing: answer, both lines, counts and both spans."""
    entered, go_on, over = threading.Event(), threading.Event(), threading.Event()

    def slowly(request: EchoRequest, _context: grpc.ServicerContext) -> EchoResponse:
        entered.set()
        go_on.wait(5)
        return EchoResponse(echo=request.msg)

    with (
        Receiver() as receiver,
        scripted_a(slowly, echo_each) as service_a,
        Service(
            "service-b", "--service-a", service_a.address, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint
        ) as service_b,
    ):
        with channel_to(service_b) as channel:
            stub = CallEchoServiceStub(channel)
            # As long as the chat goes on, so does the service, and its counts can be asked for.
            chat = stub.CallEchoChat(until(over, CallEchoRequest(msg="one")))
            next(chat)
            statuses = watch(channel)
            assert SERVING == next(statuses)
            call = stub.CallEcho.future(CallEchoRequest(msg="hello"), timeout=5)
            assert entered.wait(5)
            service_b.signal(number)
            assert NOT_SERVING == next(statuses)
            go_on.set()
            answer = call.result()
            service_b.stdout.wait_for(" kind=server ", " endpoint=/call-echo ")  # it is reported, so it is counted
            counts = set(metrics(service_b.metrics_url))
            over.set()
            assert [] == list(chat)
        status = service_b.wait()
        lines = [fields(line) for line in service_b.stdout.wait_for_end() if " endpoint=" in line]
        spans = receiver.spans()

    call_echo, echo = ("server", "echo.v1.CallEchoService/CallEcho", "OK"), ("client", "echo.v1.EchoService/Echo", "OK")
    chats = {(kind, f"{method}Chat", code) for kind, method, code in (call_echo, echo)}
    assert ("hello", 0) == (answer.service_a.echo, status)
    assert sorted({call_echo, echo} | chats) == sorted((line["kind"], line["method"], line["code"]) for line in lines)
    assert sorted({call_echo, echo} | chats) == sorted((span.kind, span.name, span.code) for span in spans)
    assert {
        f'grpc_{kind}_handled_total{{grpc_code="{code}",grpc_method="{method}",grpc_service="{service}",'
        f'grpc_type="unary"}} 1.0'
        for kind, (service, method), code in ((k, m.split("/"), c) for k, m, c in (call_echo, echo))
    } <= counts


def echo_each(requests: Iterator[EchoRequest], _context: grpc.ServicerContext) -> Iterator[EchoResponse]:
    """Echo each message as it comes."""
    for request in requests:
        yield EchoResponse(echo=request.msg)


@SIGNALS
def test_stream_in_flight_survives_the_end(number: int) -> None:
    """A chat that is going on when the signal comes is heard to its end, within the grace."""
    over = threading.Event()
    with Service("service-a") as service, channel_to(service) as channel:
        chat = EchoServiceStub(channel).EchoChat(until(over, EchoRequest(msg="one")))
        assert "one" == next(chat).echo
        service.signal(number)
        assert service.stdout.wait_for("nothing", timeout=0.2) == []
        over.set()

        assert [] == list(chat)
        assert 0 == service.wait()
        assert ["OK"] == [fields(line)["code"] for line in service.stdout.wait_for_end() if "/echo-chat" in line]


@SIGNALS
def test_grace_has_an_end(number: int) -> None:
    """What is still going on after the grace is cut off, and the exit status is still 0."""
    over = threading.Event()
    with Service("service-a", "--grace", "0.3") as service, channel_to(service) as channel:
        chat = EchoServiceStub(channel).EchoChat(until(over, EchoRequest(msg="one")))
        next(chat)
        start = time.monotonic()
        service.signal(number)

        refused = refusal_of(lambda: next(chat))
        assert refused.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        assert 0 == service.wait()
        assert time.monotonic() - start < 3
        over.set()


@SIGNALS
def test_second_signal(number: int) -> None:
    """A second signal ends a service at once, whatever is going on."""
    patient = ("--grace", "60", "--service-a-timeout", "60")
    with (
        scripted_a(until_over) as service_a,
        Service("service-b", *patient, "--service-a", service_a.address) as service_b,
        channel_to(service_b) as channel,
    ):
        statuses = watch(channel)
        assert SERVING == next(statuses)
        call = CallEchoServiceStub(channel).CallEcho.future(CallEchoRequest(msg="hello"))
        assert service_a.entered.wait(5)
        service_b.signal(number)
        assert NOT_SERVING == next(statuses)
        start = time.monotonic()
        service_b.signal(number)

        assert 0 != service_b.wait()
        assert time.monotonic() - start < 1
        call.cancel()


def test_nobody_reads_stdout() -> None:
    """A stdout that nobody reads stops no call; the lines that do not fit are counted, and the end is in time."""
    messages = 3_500  # of three lines each: 8,192 wait, some 250 are in the pipe, and as many are being written
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", "0"],
        cwd=ROOT / "tests/system/talkative",
        env=environment(OTEL_EXPORTER_PROMETHEUS_PORT="0", OTEL_TRACES_EXPORTER="none"),
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    with process:
        assert process.stdout is not None
        addresses: dict[str, str] = {}
        while {"metrics", "listening"} - addresses.keys():
            line = fields(process.stdout.readline().rstrip("\n"))
            addresses[line["event"]] = line["address"]
        with grpc.insecure_channel(addresses["listening"]) as channel:
            stub = EchoServiceStub(channel)
            answers = sum(1 for _ in stub.EchoChat(EchoRequest(msg="hello") for _ in range(messages)))
            echo = stub.Echo(EchoRequest(msg="hello"), timeout=2).echo
        scrape = metrics(f"http://{addresses['metrics']}/metrics")
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        status = process.wait(10)
        took = time.monotonic() - start
        written = len(process.stdout.readlines())

    (dropped,) = [line.split()[1] for line in scrape if line.startswith("observability_log_lines_dropped_total ")]
    assert (messages, "hello") == (answers, echo)
    assert 0 < float(dropped) <= 3 * messages - written
    assert 0 == status
    assert took < 3
