"""The environment: what a variable does, and what a bad value of it does."""

import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from client.lines import fields
from client.spans import spans_of
from observability import SettingError, Telemetry, settings
from tests.package.process import NOWHERE, Words, sending
from tests.receiver import Receiver

# A bad value of each standard variable; the sampler's argument needs a good sampler, hence a second lot.
BAD = {
    "OTEL_SDK_DISABLED": "perhaps",
    "OTEL_RESOURCE_ATTRIBUTES": "no pairs",
    "OTEL_PROPAGATORS": "pigeon,tracecontext",
    "OTEL_TRACES_EXPORTER": "otlp,zipper",
    "OTEL_TRACES_SAMPLER": "always",
    "OTEL_TRACES_SAMPLER_ARG": "1.5",
    "OTEL_BSP_SCHEDULE_DELAY": "soon",
    "OTEL_BSP_EXPORT_TIMEOUT": "-1",
    "OTEL_BSP_MAX_QUEUE_SIZE": "100000000000000000000",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1e3",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:port",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "10s",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "zip",
    "OTEL_EXPORTER_OTLP_INSECURE": "yes",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "/no/such/file.pem",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY": "/no/such/key.pem",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "/no/such/certificate.pem",
    "OTEL_EXPORTER_OTLP_HEADERS": "no pairs",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "ftp://localhost:4317",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "carrier pigeon",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "0",
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "brotli",
    "OTEL_EXPORTER_OTLP_TRACES_INSECURE": "1",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": "/no/such/file.pem",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY": "/no/such/key.pem",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE": "/no/such/certificate.pem",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "=value",
    "OTEL_EXPORTER_PROMETHEUS_PORT": "70000",
}


@pytest.fixture(scope="module")
def misled() -> Iterator[Words]:
    """Give a process that was started with a bad value of every standard variable."""
    with Words(BAD) as words:
        words.log("started")
        words.stdout.wait_for("event=started", count=2)
        yield words


@pytest.fixture(scope="module")
def default() -> Iterator[Words]:
    """Give a process that was started with no variable set."""
    with Words({"OTEL_TRACES_EXPORTER": ""}) as words:
        yield words


def test_every_standard_variable_is_here() -> None:
    """These tests have a bad value for every standard variable that can have one."""
    assert set(settings.STANDARD) == set(BAD)


@pytest.mark.parametrize("name", BAD)
def test_bad_standard_value_is_one_warning(misled: Words, name: str) -> None:
    """A bad value of a standard variable is one warning, which names variable, value and what is allowed."""
    lines = [fields(line) for line in misled.stdout.wait_for(f'event="{name}=')]

    assert ["warning"] == [line["level"] for line in lines]
    assert re.fullmatch(
        rf"{name}='{re.escape(BAD[name])}' is not [^:]+.*: the default is used instead", lines[0]["event"]
    )


def test_bad_standard_values_cost_nothing_else(misled: Words) -> None:
    """There is no other warning, and nothing on stderr."""
    warnings = misled.stdout.lines(" level=warning ")

    assert len(BAD) == len(warnings)
    assert [] == misled.stderr.lines()


def test_default_in_place_of_a_bad_value(misled: Words, default: Words) -> None:
    """With every standard variable bad, tracing and /metrics are set up just as with none set."""
    assert default.tracing() == misled.tracing()
    assert misled.addresses["metrics"]
    assert ["OK"] == misled.call()


def test_batch_larger_than_the_queue() -> None:
    """A batch size that is larger than the queue is a bad value too: the SDK would not start."""
    with Words(sending(NOWHERE, OTEL_BSP_MAX_QUEUE_SIZE="10", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="20")) as words:
        [line] = words.stdout.wait_for(" level=warning ")
        tracing = words.tracing()

    assert (
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE='20' is not at most OTEL_BSP_MAX_QUEUE_SIZE: the default is used instead"
        == fields(line)["event"]
    )
    assert ("10", "10") == (tracing["queue"], tracing["batch"])


def test_good_standard_values_are_used() -> None:
    """Good values of the standard variables are used."""
    variables = {
        "OTEL_SERVICE_NAME": "tea",
        "OTEL_RESOURCE_ATTRIBUTES": "service.version=1.2.3,deployment=here",
        "OTEL_PROPAGATORS": "baggage",
        "OTEL_TRACES_SAMPLER": "always_off",
        **sending(NOWHERE, timeout=0.2),
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_HEADERS": "key=value",
        "OTEL_BSP_MAX_QUEUE_SIZE": "100",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "50",
        "OTEL_BSP_SCHEDULE_DELAY": "1000",
    }
    with Words(variables) as words:
        tracing = words.tracing()
        words.call()
        scrape = words.scrape()

    assert ("AlwaysOffSampler", "['baggage']") == (tracing["sampler"], tracing["fields"])
    assert ("127.0.0.1:1", "(('key', 'value'),)") == (tracing["_endpoint"], tracing["_headers"])
    assert ("100", "50", "1.0", "0.2") == tuple(tracing[key] for key in ("queue", "batch", "delay", "_timeout"))
    assert "deployment" in tracing["resource"]
    assert 'target_info{service_name="tea",service_version="1.2.3"} 1.0' in scrape
    assert [] == words.stdout.lines(" level=warning ")


def test_sdk_disabled() -> None:
    """OTEL_SDK_DISABLED leaves spans and ids out, and lines and metrics as they are."""
    with Words({"OTEL_SDK_DISABLED": "true"}) as words:
        words.call()
        [line] = words.stdout.wait_for("kind=server")
        scrape = words.scrape()

    assert "OK" == fields(line)["code"]
    assert "trace_id" not in fields(line)
    assert 'grpc_server_handled_total{grpc_code="OK"' in scrape


def test_no_exporter() -> None:
    """OTEL_TRACES_EXPORTER=none sends nothing, says nothing of it, and leaves the ids on the lines."""
    with Receiver() as receiver, Words(sending(receiver.endpoint, OTEL_TRACES_EXPORTER="none")) as words:
        words.call()
        words.close()
        words.end()
        [line] = words.stdout.wait_for("kind=server")

    assert "trace_id" in fields(line)
    assert [] == receiver.spans()
    assert [] == words.stdout.lines(" level=warning ")


def test_console_exporter() -> None:
    """OTEL_TRACES_EXPORTER=console prints spans on stderr, so that stdout stays a log."""
    with Words({"OTEL_TRACES_EXPORTER": "console"}) as words:
        words.call()
        words.close()
        words.end()
        spans = json.loads(f"[{''.join(words.stderr.wait_for_end()).replace('}{', '},{')}]")
        lines = words.stdout.wait_for_end()

    assert {"SpanKind.SERVER", "SpanKind.CLIENT"} == {span["kind"] for span in spans}
    assert [] == [line for line in lines if " service=" not in line]


class _Handler(BaseHTTPRequestHandler):
    received: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        """Keep what was posted."""
        self.received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


def test_http_exporter() -> None:
    """OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf sends spans by HTTP."""
    received: list[tuple[str, bytes]] = []
    with HTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"received": received})) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            endpoint = f"http://127.0.0.1:{server.server_port}"
            with Words(sending(endpoint, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf")) as words:
                words.call()
                words.close()
        finally:
            server.shutdown()
            thread.join()

    spans = [span for _, body in received for span in spans_of(ExportTraceServiceRequest.FromString(body))]
    assert {"/v1/traces"} == {path for path, _ in received}
    assert {("words", "server"), ("words", "client")} == {(span.service, span.kind) for span in spans}


def test_http_without_the_extra() -> None:
    """Without the extra http, the protocol http/protobuf is one warning that names it, and grpc is used."""
    missing = "sys.modules['opentelemetry.exporter.otlp.proto.http.trace_exporter'] = None"
    with Words(sending(NOWHERE, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf"), before=missing) as words:
        [line] = words.stdout.wait_for(" level=warning ")
        tracing = words.tracing()

    assert (
        "OTEL_EXPORTER_OTLP_PROTOCOL='http/protobuf' needs the extra http, which is not installed: grpc is used"
        == fields(line)["event"]
    )
    assert "observability.encoding" == tracing["exporter"]


BAD_OURS = {
    "LOG_FORMAT": ("xml", "one of keyvalue, json"),
    "LOG_LEVEL": ("loud", "one of debug, info, warning, error, critical"),
    "OBSERVABILITY_TRACES": ("none", "one of native, contrib"),
    "OBSERVABILITY_LOG_CALLS": ("some", "all, failed or a number of milliseconds"),
}


def test_every_one_of_ours_is_here() -> None:
    """These tests have a bad value for each of our own variables, but the one of which every value is good."""
    assert set(settings.OURS) == {*BAD_OURS, "OBSERVABILITY_LOG_BAGGAGE"}


@pytest.mark.parametrize("name", BAD_OURS)
def test_bad_value_of_ours(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A bad value of our own variables is a SettingError that names it, its value and what is allowed."""
    value, allowed = BAD_OURS[name]
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingError) as caught:
        Telemetry.start("words")

    assert f"{name}={value!r} is not {allowed}" == str(caught.value)


@pytest.mark.parametrize("value", ["-1", "nan", "1 ms", "inf"])
def test_bad_number_of_milliseconds(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A number of milliseconds is a number, from 0 on."""
    monkeypatch.setenv("OBSERVABILITY_LOG_CALLS", value)

    with pytest.raises(SettingError):
        settings.check_settings()


@pytest.mark.parametrize("name", settings.OURS)
def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An empty variable is the default."""
    monkeypatch.setenv(name, "")

    assert settings.OURS[name][0] == settings.setting(name)


@pytest.mark.parametrize(("name", "value"), [("LOG_FORMAT", " JSON "), ("LOG_LEVEL", "Warning")])
def test_case_and_space_do_not_matter(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A value may be in either case, and have spaces around it."""
    monkeypatch.setenv(name, value)

    assert value.strip() == settings.setting(name)


def test_setting_error_is_a_value_error() -> None:
    """Whoever catches ValueError catches SettingError."""
    assert issubclass(SettingError, ValueError)
