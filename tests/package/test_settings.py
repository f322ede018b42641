"""The environment: what a variable does, and what an invalid value of it does."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from client.lines import fields
from client.spans import spans_of
from observability import SettingError, Telemetry, settings
from tests.support.certificate import CERTIFICATE, KEY
from tests.support.invalid_values import NEVER_SHOWN, OURS, STANDARD, complaint
from tests.support.process import NOWHERE, Words, sending
from tests.support.receiver import Receiver

BAD = {name: value for name, (value, _) in STANDARD.items()}


@pytest.fixture(scope="module")
def misled() -> Iterator[Words]:
    """Give a process that was started with an invalid value of every standard variable."""
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
    """These tests have an invalid value for every standard variable that can have one."""
    assert set(settings.STANDARD) == set(BAD)


@pytest.mark.parametrize("name", BAD)
def test_invalid_standard_value_is_one_warning(misled: Words, name: str) -> None:
    """An invalid value of a standard variable is one warning, which names variable, value and what is allowed."""
    (line,) = [fields(line) for line in misled.stdout.wait_for(f'event="{name}=')]

    assert "warning" == line["level"]
    assert line["event"].startswith(complaint(name))
    assert line["event"].endswith(": the default is used instead")


def test_invalid_standard_values_cost_nothing_else(misled: Words) -> None:
    """There is no other warning, and nothing on stderr."""
    warnings = misled.stdout.lines(" level=warning ")

    assert len(BAD) == len(warnings)
    assert NEVER_SHOWN not in "".join(warnings)
    assert [] == misled.stderr.lines()


def test_default_in_place_of_an_invalid_value(misled: Words, default: Words) -> None:
    """With every standard variable invalid, tracing and /metrics are set up just as with none set."""
    assert default.tracing() == misled.tracing()
    assert misled.addresses["metrics"]
    assert ["OK"] == misled.call()


@pytest.mark.parametrize(
    ("queue", "batch", "warnings", "used"),
    [
        ("10", "20", ["OTEL_BSP_MAX_EXPORT_BATCH_SIZE='20' is not at most OTEL_BSP_MAX_QUEUE_SIZE, which is 10"], "10"),
        (
            "many",
            "4096",
            [
                "OTEL_BSP_MAX_QUEUE_SIZE='many' is not a whole number from 1 to 1000000000",
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE='4096' is not at most OTEL_BSP_MAX_QUEUE_SIZE, which is 2048",
            ],
            "2048",
        ),
        ("-5", "100", ["OTEL_BSP_MAX_QUEUE_SIZE='-5' is not a whole number from 1 to 1000000000"], "2048"),
    ],
    ids=["larger than the queue", "larger than the default", "beside a bad one"],
)
def test_batch_beside_the_queue(queue: str, batch: str, warnings: list[str], used: str) -> None:
    """A batch size is invalid where it is larger than the queue that is used: the SDK would not start."""
    variables = sending(NOWHERE, OTEL_BSP_MAX_QUEUE_SIZE=queue, OTEL_BSP_MAX_EXPORT_BATCH_SIZE=batch)
    with Words(variables) as words:
        words.log("started")
        words.stdout.wait_for("event=started", count=2)
        logged = [fields(line)["event"] for line in words.stdout.lines(" level=warning ")]
        tracing = words.tracing()

    assert [f"{text}: the default is used instead" for text in warnings] == logged
    assert used == tracing["queue"]


@pytest.mark.parametrize("prefix", ["OTEL_EXPORTER_OTLP", "OTEL_EXPORTER_OTLP_TRACES"])
@pytest.mark.parametrize(("given", "missing"), [("KEY", "CERTIFICATE"), ("CERTIFICATE", "KEY")])
def test_half_of_mutual_tls(tmp_path: Path, prefix: str, given: str, missing: str) -> None:
    """
    A client's key without its certificate, or the other way round, is one warning; gRPC would end the process.
    """
    path = tmp_path / "localhost.pem"
    path.write_text(KEY + CERTIFICATE)
    variables = {f"{prefix}_CERTIFICATE": str(path), f"{prefix}_CLIENT_{given}": str(path)}
    with Words({**sending("https://127.0.0.1:1"), **variables}, flush_seconds=0.1) as words:
        [line] = words.stdout.wait_for(" level=warning ")
        codes = words.call()

    assert (
        f"{prefix}_CLIENT_{given}='{path}' is not used without {prefix}_CLIENT_{missing}: the default is used instead"
        == fields(line)["event"]
    )
    assert ["OK"] == codes


@pytest.mark.parametrize("host", ["nowhere.invalid", "8.8.8.8", "[::1", "[nowhere]"])
def test_invalid_host_of_metrics(host: str) -> None:
    """A host that this machine cannot listen on is one warning, and /metrics listens on 127.0.0.1."""
    with Words({"OTEL_EXPORTER_PROMETHEUS_HOST": host}) as words:
        [line] = words.stdout.wait_for(" level=warning ")
        scrape = words.scrape()

    assert fields(line)["event"].startswith(f"OTEL_EXPORTER_PROMETHEUS_HOST='{host}' is not an address of this machine")
    assert words.addresses["metrics"].startswith("127.0.0.1:")
    assert "target_info" in scrape


def test_host_of_metrics_that_are_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that serves no /metrics looks no host up, and logs nothing of it."""
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_HOST", "nowhere.invalid")

    with settings.standard_settings(settings.TRACING):
        assert "nowhere.invalid" == os.environ["OTEL_EXPORTER_PROMETHEUS_HOST"]


@pytest.mark.parametrize("form", ["{}", "dns:{}", "dns:///{}", "ipv4:{}"])
def test_endpoint_without_a_scheme(form: str) -> None:
    """With grpc, an endpoint may be any address that gRPC connects to; OTEL_EXPORTER_OTLP_INSECURE makes it plain."""
    with Receiver() as receiver:
        variables = sending(form.format(f"127.0.0.1:{receiver.port}"), OTEL_EXPORTER_OTLP_INSECURE="true")
        with Words(variables) as words:
            words.call()
            words.close()
            warnings = words.stdout.lines(" level=warning ")

    assert [] == warnings
    assert {"server", "client"} == {span.kind for span in receiver.spans()}


@pytest.mark.parametrize(
    ("endpoint", "insecure"),
    [("localhost:4317", "False"), ("https://localhost:4317", "False"), ("http://localhost:4317", "True")],
)
def test_endpoint_without_a_scheme_is_secure(endpoint: str, insecure: str) -> None:
    """An endpoint is reached by TLS unless its URL says http: the exporter's own rule."""
    with Words(sending(endpoint)) as words:
        assert insecure == words.tracing()["_insecure"]


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://localhost:4317",
        "https://collector.example/",
        "http://[::1]:4317",
        "collector",
        "collector:4317",
        "[::1]:4317",
        "dns:collector:4317",
        "dns:///collector:4317",
        "ipv6:[::1]:4317",
        "unix:relative/socket",
        "unix:/absolute/socket",
        "unix:///absolute/socket",
        "unix-abstract:name",
    ],
)
def test_valid_endpoints(endpoint: str) -> None:
    """Every form of an address that OTLP's exporter passes to gRPC unchanged is valid."""
    assert settings.STANDARD["OTEL_EXPORTER_OTLP_ENDPOINT"](endpoint) is None


@pytest.mark.parametrize(
    "endpoint",
    [
        "http//localhost:4317",
        "http:/localhost:4317",
        "http://",
        "http://localhost:port",
        "http://localhost:70000",
        "localhost:port",
        "localhost:70000",
        "local host:4317",
        "localhost:4317/v1/traces",
        "dns://8.8.8.8/collector:4317",  # the exporter would connect to 8.8.8.8
        "unix://socket",
        "unix:",
    ],
)
def test_invalid_endpoints(endpoint: str) -> None:
    """What is no address, or would be taken for another, is invalid."""
    assert settings.STANDARD["OTEL_EXPORTER_OTLP_ENDPOINT"](endpoint) is not None


@pytest.mark.parametrize(
    ("endpoint", "protocol"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"),
    ],
)
def test_http_needs_a_url(endpoint: str, protocol: str) -> None:
    """With http/protobuf, an endpoint without a scheme is one warning."""
    variables = {"OTEL_TRACES_EXPORTER": "otlp", endpoint: "localhost:4318", protocol: "http/protobuf"}
    with Words(variables) as words:
        [line] = words.stdout.wait_for(" level=warning ")
        tracing = words.tracing()

    assert (
        f"{endpoint}='localhost:4318' is not a URL such as http://localhost:4317: the default is used instead"
        == fields(line)["event"]
    )
    assert "http://localhost:4318/v1/traces" == tracing["_endpoint"]


@pytest.mark.parametrize(
    ("variables", "fact", "expected"),
    [
        ({"OTEL_SDK_DISABLED": " true"}, "provider", "NoOpTracerProvider"),
        ({"OTEL_TRACES_SAMPLER": " always_off "}, "sampler", "AlwaysOffSampler"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " http://localhost:1 "}, "_endpoint", "localhost:1"),
        ({"OTEL_EXPORTER_OTLP_INSECURE": " true ", "OTEL_EXPORTER_OTLP_ENDPOINT": "there:1"}, "_insecure", "True"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": " 3 "}, "_timeout", "3.0"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": " HTTP/protobuf"}, "_endpoint", "http://localhost:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": " GZIP "}, "_compression", str(int(grpc.Compression.Gzip))),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": "none"}, "_compression", str(int(grpc.Compression.NoCompression))),
        (
            {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "None"},
            "_compression",
            str(int(grpc.Compression.NoCompression)),
        ),
        (
            {"OTEL_EXPORTER_OTLP_COMPRESSION": "none", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "gzip"},
            "_compression",
            str(int(grpc.Compression.Gzip)),
        ),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "  "}, "queue", "2048"),
    ],
    ids=str,
)
def test_what_is_valid_is_used(variables: dict[str, str], fact: str, expected: str) -> None:
    """A value in another case or with spaces around it is valid, and used without a warning."""
    with Words({"OTEL_TRACES_EXPORTER": "otlp", **variables}) as words:
        words.log("started")
        words.stdout.wait_for("event=started", count=2)
        tracing = words.tracing()
        warnings = words.stdout.lines(" level=warning ")

    assert [] == warnings
    assert expected == tracing[fact]


def test_environment_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables are left as they were found: valid, invalid and empty."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", " always_on")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "perhaps")
    monkeypatch.setenv("OTEL_PROPAGATORS", "")
    before = dict(os.environ)

    with settings.standard_settings():
        inside = dict(os.environ)

    assert "always_on" == inside["OTEL_TRACES_SAMPLER"]
    assert set() == {"OTEL_SDK_DISABLED", "OTEL_PROPAGATORS"} & inside.keys()
    assert before == os.environ


@contextlib.contextmanager
def as_somebody() -> Iterator[None]:
    """Be an ordinary user: root may read everything."""
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if me == 0:
            os.seteuid(me)


@pytest.mark.parametrize(("mode", "expected"), [(0, "a file that can be read"), (0o444, None)])
def test_file_that_cannot_be_read(mode: int, expected: str | None) -> None:
    """A certificate that we may not read is an invalid value: the SDK would not start."""
    with tempfile.NamedTemporaryFile() as certificate:
        Path(certificate.name).chmod(mode)
        with as_somebody():
            allowed = settings.STANDARD["OTEL_EXPORTER_OTLP_CERTIFICATE"](certificate.name)

    assert expected == allowed


def test_valid_standard_values_are_used() -> None:
    """Valid values of the standard variables are used."""
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
    """OTEL_TRACES_EXPORTER=none sends nothing, without a warning, and leaves the ids on the lines."""
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
    assert "127.0.0.1:1" == tracing["_endpoint"]


def test_every_one_of_ours_is_here() -> None:
    """These tests have an invalid value for each of our own variables but the one of which every value is valid."""
    assert set(settings.OURS) == {*OURS, "OBSERVABILITY_LOG_BAGGAGE"}


@pytest.mark.parametrize("name", OURS)
def test_invalid_value_of_ours(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An invalid value of our own variables is a SettingError that names it, its value and what is allowed."""
    value, allowed = OURS[name]
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingError) as caught:
        Telemetry.start("words")

    assert f"{name}={value!r} is not {allowed}" == str(caught.value)


@pytest.mark.parametrize("value", ["-1", "nan", "1 ms", "inf"])
def test_invalid_number_of_milliseconds(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A number of milliseconds is a number, from 0 on."""
    monkeypatch.setenv("OBSERVABILITY_LOG_CALLS", value)

    with pytest.raises(SettingError):
        settings.Settings.read()


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
    """SettingError is a ValueError."""
    assert issubclass(SettingError, ValueError)
