"""Zero code: what grpc's functions make is observed, once, beside others, until it is undone."""

import asyncio
import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry.instrumentation import grpc as official

from client.lines import fields
from client.processes import ROOT, environment
from observability import (
    AioObservedChannel,
    AioServerInterceptor,
    ClientInterceptor,
    HideExceptions,
    ObservedChannel,
    ServerInterceptor,
    aio_client_interceptors,
)
from observability.instrumentor import GrpcObservability, take_over
from observability.testing import RecordedTelemetry
from tests.support.process import sending
from tests.support.receiver import Receiver
from tests.support.rpc import AIO_ECHOES, ECHOES, LOCAL, method, service

ARITIES = ("unary", "client_stream", "server_stream", "bidi_stream")
FUNCTIONS = [
    (grpc, "server"),
    (grpc, "insecure_channel"),
    (grpc, "secure_channel"),
    (grpc, "intercept_channel"),
    (grpc.aio, "server"),
    (grpc.aio, "insecure_channel"),
    (grpc.aio, "secure_channel"),
]


def functions() -> list[Any]:
    """Return grpc's functions, as they are now."""
    return [getattr(module, name) for module, name in FUNCTIONS]


class Ran:
    """What a program has reported under `opentelemetry-instrument`: lines, counts and spans."""

    def __init__(self, mode: str, **variables: str) -> None:
        with Receiver() as receiver:
            result = subprocess.run(
                [
                    Path(sys.executable).with_name("opentelemetry-instrument"),
                    sys.executable,
                    ROOT / "tests" / "support" / "programs" / "plain.py",
                    mode,
                ],
                env=environment(OTEL_SERVICE_NAME="plain", **sending(receiver.endpoint) | variables),
                capture_output=True,
                encoding="utf-8",
                check=False,
                timeout=60,
            )
            self.spans = receiver.spans()
        assert 0 == result.returncode, result.stderr
        self.stderr = result.stderr.splitlines()
        self.lines = [fields(line) for line in self.stderr if " kind=" in line]
        self.counts = {(name, type_): value for name, type_, value in json.loads(result.stdout)}

    def calls(self) -> list[dict[str, int]]:
        """Return how many calls of each side its lines, its counts and its spans have."""
        counts = Counter[str]()
        for (name, _), value in self.counts.items():
            counts[name.split("_")[1]] += int(value)
        return [
            dict(Counter(line["kind"] for line in self.lines)),
            dict(counts),
            dict(Counter(span.kind for span in self.spans)),
        ]


ONCE = {"server": 8, "client": 8}  # four arities, two stacks


@pytest.mark.parametrize("mode", ["plain", "explicit", "provider"])
def test_each_call_is_reported_once(mode: str) -> None:
    """Every call of a program that has never heard of us is a line, a count and a span on each side, and no more."""
    ran = Ran(mode)

    assert [ONCE] * 3 == ran.calls()
    assert ["explicit" if mode == "explicit" else "plain"] * 16 == [line["service"] for line in ran.lines]
    assert {(line["trace_id"], line["span_id"]) for line in ran.lines} == {
        (span.trace_id, span.span_id) for span in ran.spans
    }
    assert [] == [line for line in ran.stderr if " kind=" not in line and "chttp2_transport" not in line]


def test_calls_without_a_channel() -> None:
    """So is a call of grpc.experimental, which makes its channel itself; a used port costs /metrics alone."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ran = Ran("experimental", OTEL_SDK_DISABLED="true", OTEL_EXPORTER_PROMETHEUS_PORT=port)

    assert [*[{"server": 9, "client": 9}] * 2, {}] == ran.calls()
    assert 1 == len([line for line in ran.stderr if f"cannot listen on 127.0.0.1:{port}: address already" in line])


def test_disabled() -> None:
    """OTEL_PYTHON_DISABLED_INSTRUMENTATIONS turns it off by its name, and leaves OpenTelemetry's own on."""
    ran = Ran("provider", OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="grpc_observability_kit")

    assert [{}, {}] == ran.calls()[:2]
    assert ran.spans
    assert all("rpc.system" in span.attributes for span in ran.spans)  # ours is named rpc.system.name


@pytest.fixture
def recorded() -> Iterator[RecordedTelemetry]:
    """Record what is observed until the test's end, and leave grpc's functions as they were."""
    before = functions()
    instrumentor = GrpcObservability()
    with RecordedTelemetry() as recorded:
        instrumentor.instrument(telemetry=recorded.telemetry)
        yield recorded
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
    assert before == functions()


def serve_and_call(observe: Callable[[grpc.Channel], grpc.Channel] = lambda channel: channel, **options: Any) -> None:
    """Make a server with these options, and a call of it through a channel that is observed like this."""
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers=[service(unary=ECHOES["unary"])], **options)
        address = f"127.0.0.1:{server.add_insecure_port(LOCAL)}"
        server.start()
        with observe(grpc.insecure_channel(target=address)) as channel:
            method(channel, "unary")(b"a", timeout=10)
        server.stop(None).wait()


def sides(recorded: RecordedTelemetry) -> list[str]:
    """Return the sides that have a line, in order of their names."""
    return sorted(line["kind"] for line in recorded.lines())


def passing() -> Any:
    """Return a client's interceptor that passes everything on."""

    class Passing(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            return continuation(client_call_details, request)

    return Passing()


def test_instrument(recorded: RecordedTelemetry) -> None:
    """What is made by hand is observed as what a program makes."""
    serve_and_call()

    assert ["client", "server"] == sides(recorded)


def test_uninstrument(recorded: RecordedTelemetry) -> None:
    """The functions of grpc are as they were, and what was made before stays observed."""
    server = grpc.server(ThreadPoolExecutor(2), handlers=[service(unary=ECHOES["unary"])])
    address = f"127.0.0.1:{server.add_insecure_port(LOCAL)}"
    channel = grpc.insecure_channel(address)
    GrpcObservability().uninstrument()
    serve_and_call()
    nothing = recorded.lines()
    server.start()
    method(channel, "unary")(b"a", timeout=10)
    channel.close()
    server.stop(None).wait()

    assert [] == nothing
    assert ["client", "server"] == sides(recorded)


def test_others_that_replace_the_same_functions(recorded: RecordedTelemetry) -> None:
    """A function that somebody has replaced since stays theirs, and ours inside of it does nothing any more."""
    ours = grpc.insecure_channel

    def theirs(*args: Any, **kwargs: Any) -> grpc.Channel:
        return ours(*args, **kwargs)

    grpc.insecure_channel = theirs
    try:
        GrpcObservability().uninstrument()
        assert grpc.insecure_channel is theirs
        serve_and_call()
    finally:
        grpc.insecure_channel = ours.__wrapped__  # type: ignore[attr-defined]  # what it was

    assert [] == recorded.lines()


def test_explicit_server(recorded: RecordedTelemetry) -> None:
    """A server with an interceptor of ours is left to that."""
    by_hand = recorded.telemetry.server_interceptors()
    serve_and_call(interceptors=by_hand)

    assert ["client", "server"] == sides(recorded)


def test_interceptors_are_behind_those_that_hide(recorded: RecordedTelemetry) -> None:
    """Ours comes first, but for HideExceptions: the line has the exception, and the caller does not."""

    def behavior(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        raise ValueError("no bread")

    with ThreadPoolExecutor(2) as pool:
        interceptors: Any = (each for each in [HideExceptions()])
        server = grpc.server(pool, [service(unary=behavior)], interceptors)
        address = f"127.0.0.1:{server.add_insecure_port(LOCAL)}"
        server.start()
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError, match="internal error"):
            method(channel, "unary")(b"a", timeout=10)
        server.stop(None).wait()

    [line] = recorded.lines(kind="server")
    assert "ValueError: no bread" == line["error"]


@pytest.mark.parametrize("way", ["intercept_channel", "observed", "interceptor"])
def test_explicit_channel(recorded: RecordedTelemetry, way: str) -> None:
    """A channel that is observed by hand is so once."""
    reporter = recorded.telemetry.reporter
    ways: dict[str, Callable[[grpc.Channel], grpc.Channel]] = {
        "intercept_channel": recorded.telemetry.intercept_channel,
        "observed": lambda channel: ObservedChannel(channel, reporter),
        "interceptor": lambda channel: grpc.intercept_channel(
            grpc.intercept_channel(channel, passing()), ClientInterceptor(reporter)
        ),
    }
    serve_and_call(ways[way])

    assert ["client", "server"] == sides(recorded)


def test_interceptors_of_others(recorded: RecordedTelemetry) -> None:
    """Ours stays around other people's interceptors: a retry of theirs is a part of the call."""

    class Twice(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            continuation(client_call_details, request).result()
            return continuation(client_call_details, request)

    serve_and_call(lambda channel: grpc.intercept_channel(channel, Twice()))

    assert ["client", "server", "server"] == sides(recorded)


@pytest.mark.parametrize("way", ["plain", "interceptors", "observed"])
def test_asyncio(recorded: RecordedTelemetry, way: str) -> None:
    """On asyncio each call is reported once too, however the channel is observed."""
    reporter = recorded.telemetry.reporter

    async def run() -> None:
        by_hand = [] if way == "plain" else [AioServerInterceptor(reporter)]
        server = grpc.aio.server(handlers=[service(unary=AIO_ECHOES["unary"])], interceptors=by_hand)
        address = f"127.0.0.1:{server.add_insecure_port(LOCAL)}"
        await server.start()
        given = (each for each in aio_client_interceptors(reporter)) if way == "interceptors" else None
        channel = grpc.aio.insecure_channel(address, None, None, given)  # type: ignore[arg-type]  # any iterable
        async with AioObservedChannel(channel, reporter) if way == "observed" else channel as used:
            await method(used, "unary")(b"a", timeout=10)
        await server.stop(None)

    asyncio.run(run())

    assert ["client", "server"] == sides(recorded)


OFFICIAL: list[Any] = [
    official.GrpcInstrumentorServer,
    official.GrpcInstrumentorClient,
    official.GrpcAioInstrumentorServer,
    official.GrpcAioInstrumentorClient,
]


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_official_instrumentors(first: str) -> None:
    """OpenTelemetry's own are turned off, in whatever order they were turned on: each call has one span."""
    before = functions()
    with RecordedTelemetry() as recorded:
        if first == "ours":
            GrpcObservability().instrument(telemetry=recorded.telemetry)
        for each in OFFICIAL:
            each().instrument(tracer_provider=recorded.tracer_provider)
        if first == "theirs":
            GrpcObservability().instrument(telemetry=recorded.telemetry)
        take_over()
        serve_and_call()
        spans = recorded.spans()
        GrpcObservability().uninstrument()

    assert ["CLIENT", "SERVER"] == sorted(span.kind.name for span in spans)
    assert before == functions()


def test_official_instrumentors_alone() -> None:
    """Where ours is off, theirs stay on."""
    instrumentor = OFFICIAL[0]()
    instrumentor.instrument()
    take_over()
    is_on = instrumentor.is_instrumented_by_opentelemetry
    instrumentor.uninstrument()

    assert is_on


@pytest.mark.expects_errors("calls are not reported: ")
@pytest.mark.parametrize(("name", "value"), [("LOG_FORMAT", "nonsense"), ("OBSERVABILITY_TRACES", "contrib")])
def test_invalid_setting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str
) -> None:
    """An invalid setting is one error that names it, and nothing is observed."""
    before = functions()
    monkeypatch.setenv(name, value)
    GrpcObservability().instrument()
    serve_and_call()
    after = functions()
    GrpcObservability().uninstrument()

    assert before == after
    assert 1 == len([line for line in caplog.messages if name in line and value in line])


def test_unknown_option() -> None:
    """An option that there is none of is refused."""
    with pytest.raises(TypeError, match="instrument\\(\\) takes telemetry, and not tracer_provider"):
        GrpcObservability().instrument(tracer_provider=None)


def test_server_interceptor_is_ours() -> None:
    """What is recognised as ours is so on both stacks and both sides."""
    from observability.calls.observation import Observing  # noqa: PLC0415 - what the test is about

    ours = [ServerInterceptor(), AioServerInterceptor(), ClientInterceptor(), *aio_client_interceptors()]

    assert all(isinstance(each, Observing) for each in ours)
