"""Telemetry: from the environment to the three signals, and their bounded end."""

import contextlib
import json
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from client.lines import fields
from client.processes import environment
from observability import ListenError
from observability.logs.writer import LINE_LIMIT
from tests.support.ports import free_ports
from tests.support.process import NOWHERE, Words, sending
from tests.support.receiver import HungReceiver, Receiver


def value(scrape: str, name: str) -> float:
    """Return a sample's value, summed over its series."""
    return sum(float(number) for number in re.findall(rf"^{name}(?:\{{.*?\}})? (\S+)", scrape, re.MULTILINE))


def eventually(words: Words, name: str, enough: Callable[[float], bool]) -> float:
    """Scrape until a sample is as it should be, 10 s at most; return its value."""
    deadline = time.monotonic() + 10
    while not enough(found := value(words.scrape(), name)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def silent_listener() -> Iterator[str]:
    """Give the endpoint of a collector that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(scope="module")
def collected() -> Iterator[tuple[Words, Receiver]]:
    """Give a process whose spans are collected, after a call that succeeded and one that failed."""
    with (
        Receiver() as receiver,
        Words(sending(receiver.endpoint), log_name="W", version="1.2.3") as words,
    ):
        words.call("OK")
        words.call("NOT_FOUND")
        words.log("tea")
        words.stdout.wait_for("event=tea", count=2)
        yield words, receiver


Collected = tuple[Words, Receiver]


def test_spans_are_sent(collected: Collected) -> None:
    """Spans arrive at the collector, from the service of the given name and version."""
    spans = collected[1].wait_for(4)

    assert 4 == len(spans)
    assert {("words", "1.2.3")} == {(span.service, span.resource["service.version"]) for span in spans}


def test_lines_metrics_and_spans_agree(collected: Collected) -> None:
    """Lines, metrics and spans report the same of the calls."""
    words, receiver = collected
    lines = [fields(line) for line in words.stdout.lines(" kind=")]
    counts = re.findall(r'^grpc_(\w+?)_handled_total\{grpc_code="(\w+)".*\} 1\.0$', words.scrape(), re.MULTILINE)

    logged = {(line["kind"], line["code"]) for line in lines}
    assert logged == {(span.kind, span.code) for span in receiver.wait_for(4)} == set(counts)
    assert {line["span_id"] for line in lines} == {span.span_id for span in receiver.spans()}


def test_log_name(collected: Collected) -> None:
    """Every line is of the service by its log name."""
    assert {"W"} == {fields(line)["service"] for line in collected[0].stdout.lines()}


def test_scrape_names_the_service(collected: Collected) -> None:
    """target_info names the service and its version, once."""
    scrape = collected[0].scrape()

    assert ['target_info{service_name="words",service_version="1.2.3"} 1.0'] == re.findall(
        r"^target_info.*", scrape, re.MULTILINE
    )


def test_scrape_has_exemplars_that_name_the_trace(collected: Collected) -> None:
    """A bucket's exemplar names the trace of a call that its log line names too."""
    words, _ = collected
    exemplars = set(re.findall(r'trace_id="([0-9a-f]{32})"', words.scrape()))

    assert exemplars
    assert exemplars <= {fields(line)["trace_id"] for line in words.stdout.lines(" kind=")}


def test_scrape_says_what_telemetry_lost(collected: Collected) -> None:
    """/metrics says what telemetry itself has lost: nothing, so far."""
    scrape = collected[0].scrape()
    names = (
        "spans_dropped",
        "span_export_failures",
        "log_lines_dropped",
        "log_lines_limited",
        "log_values_cut",
        "observer_errors",
    )

    assert [f"observability_{name}_total 0.0" for name in names] == re.findall(
        r"^observability_.*", scrape, re.MULTILINE
    )


LOSING = """
import os

from observability import ServerInterceptor, Telemetry

nobody_reads, writer = os.pipe()
sys.stdout = os.fdopen(writer, "w")


def fails(call):
    raise ValueError("no observer")


interceptors = Telemetry.server_interceptors
Telemetry.server_interceptors = lambda self: [*interceptors(self), ServerInterceptor(fails)]
"""
MORE_THAN_WAITS = 2 * LINE_LIMIT + 1000
"""More lines than wait in the queue while as many are stuck on their way out."""


@pytest.fixture(scope="module")
def losing() -> Iterator[str]:
    """Give /metrics of a process that has lost something of each kind but spans; its calls succeed."""
    with Words(before=LOSING) as words:
        assert ["OK"] * 3 == words.call("OK", 3)
        words.log("x" * 2000, MORE_THAN_WAITS // 2)
        yield words.scrape()


def test_log_lines_that_nobody_reads_are_counted(losing: str) -> None:
    """Lines for which a stdout that nobody reads leaves no room are counted as dropped."""
    dropped = value(losing, "observability_log_lines_dropped_total")

    assert MORE_THAN_WAITS - 2 * LINE_LIMIT - 100 < dropped < MORE_THAN_WAITS


def test_log_values_that_are_cut_are_counted(losing: str) -> None:
    """Each value of 2 kB is truncated, and counted."""
    assert MORE_THAN_WAITS == value(losing, "observability_log_values_cut_total")


def test_observers_that_raise_are_counted(losing: str) -> None:
    """Each exception of an observer is counted."""
    assert 3 == value(losing, "observability_observer_errors_total")


def test_metrics_listen_on_this_machine_alone(collected: Collected) -> None:
    """/metrics listens on 127.0.0.1 unless a variable says otherwise."""
    assert collected[0].addresses["metrics"].startswith("127.0.0.1:")


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_metrics_listen_on_ipv6(host: str) -> None:
    """An IPv6 address in the environment may have brackets, and has them where its port follows: in the line too."""
    with Words({"OTEL_EXPORTER_PROMETHEUS_HOST": host}) as words:
        [line] = words.stdout.wait_for("event=metrics")
        scrape = words.scrape()
        warnings = words.stdout.lines("level=warning")

    assert words.addresses["metrics"].startswith("[::1]:")
    assert words.addresses["metrics"] == fields(line)["address"]
    assert scrape.endswith("# EOF\n")
    assert [] == warnings


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", {"debug", "info", "warning"}),
        ("warning", {"warning"}),
        ("warn", {"warning"}),
        ("WARN", {"warning"}),
        (" Warning ", {"warning"}),
        ("error", set()),
        ("critical", set()),
        ("FATAL", set()),
    ],
)
def test_log_level(level: str, expected: set[str]) -> None:
    """LOG_LEVEL filters the lines of calls and of the application alike."""
    with Words({"LOG_LEVEL": level}) as words:
        words.call("OK")
        words.call("NOT_FOUND")
        words.log("tea")
        words.close()
        words.end()
        lines = [fields(line) for line in words.stdout.wait_for_end()]

    assert expected - {"debug"} == {line["level"] for line in lines} - {"debug"}


def test_json_lines() -> None:
    """LOG_FORMAT=json gives the same keys in the same order after the time, and numbers as numbers."""
    with Words({"LOG_FORMAT": "json"}) as words:
        words.call("NOT_FOUND")
        words.log("tea")
        [text] = words.stdout.wait_for('"kind": "server"')
        own = [json.loads(line) for line in words.stdout.wait_for('"tea"', count=2)]
    line = json.loads(text)

    keys = "time service endpoint status error latency_ms level kind method code peer deadline_ms trace_id span_id"
    assert keys.split() == list(line)
    assert [float, int] == [type(line[key]) for key in ("latency_ms", "deadline_ms")]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert [["time", "service", "level", "event", "by"], ["time", "service", "level", "event", "logger", "by"]] == [
        list(line) for line in own
    ]


@pytest.mark.parametrize(
    ("calls", "expected"),
    [("failed", {"NOT_FOUND"}), ("60000", {"NOT_FOUND"}), ("0.001", {"OK", "NOT_FOUND"}), ("all", {"OK", "NOT_FOUND"})],
)
def test_log_calls(calls: str, expected: set[str]) -> None:
    """OBSERVABILITY_LOG_CALLS leaves out the lines of calls that succeeded, or in time, and no other lines."""
    with Words({"OBSERVABILITY_LOG_CALLS": calls}) as words:
        words.call("OK")
        words.call("NOT_FOUND")
        words.log("tea")
        words.close()
        words.end()
        lines = [fields(line) for line in words.stdout.wait_for_end()]

    assert expected == {line["code"] for line in lines if "code" in line}
    assert 2 == len([line for line in lines if line.get("event") == "tea"])


@pytest.mark.parametrize("engine", ["native", "contrib"])
def test_log_baggage(engine: str) -> None:
    """OBSERVABILITY_LOG_BAGGAGE names the entries of a call's baggage that stand on its line, with either engine."""
    with Words({"OBSERVABILITY_LOG_BAGGAGE": " tenant, user ,", "OBSERVABILITY_TRACES": engine}) as words:
        words.call(baggage="tenant=acme,secret=s3cret")
        [line] = words.stdout.wait_for("kind=server")

    assert "acme" == fields(line)["tenant"]
    assert {"user", "secret"}.isdisjoint(fields(line))


def test_flush_at_close_loses_nothing() -> None:
    """After close every line is written and every span has arrived."""
    with Receiver() as receiver:
        variables = sending(receiver.endpoint, OTEL_BSP_SCHEDULE_DELAY="60000")
        with Words(variables, flush_seconds=5.0) as words:
            words.call("OK", 300)
            words.close()
            spans = receiver.spans()
            words.end()
            lines = [line for line in words.stdout.wait_for_end() if " kind=" in line]

    assert (600, 600) == (len(spans), len(lines))


def test_flush() -> None:
    """After a flush every line is written and every span has arrived, and telemetry goes on."""
    with Receiver() as receiver, Words(sending(receiver.endpoint, OTEL_BSP_SCHEDULE_DELAY="60000")) as words:
        words.call("OK", 10)
        out, _ = words.flush(10)
        spans, lines = receiver.spans(), words.stdout.wait_for(" kind=", count=20)
        words.call("OK", 10)
        again, _ = words.flush(10)

    assert (True, True) == (out, again)
    assert (20, 20, 40) == (len(spans), len(lines), len(receiver.spans()))


@pytest.mark.parametrize("listens", [True, False])
def test_flush_that_fails(listens: bool) -> None:  # noqa: FBT001 - a parameter
    """A flush is bounded, and says that spans are not out, be the collector hung or missing."""
    with silent_listener() as hung:
        variables = sending(hung if listens else NOWHERE, timeout=30 if listens else 0.2)
        with Words(variables | {"OTEL_BSP_SCHEDULE_DELAY": "60000"}, flush_seconds=0.1) as words:
            words.call("OK")
            out, seconds = words.flush(2 if listens else 10)

    assert not out
    assert seconds < 9


def test_flush_without_anything_to_send() -> None:
    """A flush of telemetry that sends and logs nothing has nothing to wait for."""
    with Words({"OTEL_SDK_DISABLED": "true"}, logging=False) as words:
        words.call("OK")
        out, _ = words.flush(10)

    assert out


def test_end_without_close() -> None:
    """A process that ends without closing its telemetry loses nothing either."""
    with Receiver() as receiver, Words(sending(receiver.endpoint, OTEL_BSP_SCHEDULE_DELAY="60000")) as words:
        words.call("OK", 10)
        status = words.end()
        lines = [line for line in words.stdout.wait_for_end() if " kind=" in line]
        stderr = words.stderr.wait_for_end()

    assert (0, [], 20, 20) == (status, stderr, len(lines), len(receiver.spans()))


@pytest.mark.parametrize("listens", [True, False])
def test_close_is_bounded(listens: bool) -> None:  # noqa: FBT001 - a parameter
    """Close takes as long as it may and no longer, be the collector hung or missing."""
    with (
        silent_listener() as hung,
        Words(sending(hung if listens else NOWHERE, timeout=30), flush_seconds=0.3) as words,
    ):
        words.call("OK", 200)
        seconds = words.close()
        start = time.monotonic()
        status = words.end()
        ended = time.monotonic() - start

    assert 0.25 < seconds < 1.0
    assert 0 == status
    assert ended < 2.0


def test_missing_collector_is_one_warning_and_its_return_one_line() -> None:
    """Spans that cannot be sent are one warning, whatever the number of batches, and one line when they can again."""
    [port] = free_ports(1)
    with Words(sending(f"http://127.0.0.1:{port}", timeout=0.2)) as words:
        for failures in range(3):
            words.call("OK")
            eventually(words, "observability_span_export_failures_total", float(failures).__lt__)
        lost = value(words.scrape(), "observability_spans_dropped_total")
        [line] = words.stdout.lines(" level=warning ")
        with Receiver(f"127.0.0.1:{port}") as receiver:
            while not receiver.spans():
                words.call("OK")
            [back] = words.stdout.wait_for("spans are exported again")

    assert lost >= 3
    assert {"level": "info", "logger": "observability"}.items() <= fields(back).items()
    assert "spans cannot be exported and are lost" == fields(line)["event"]
    assert f"http://127.0.0.1:{port}" == fields(line)["endpoint_url"]


def test_lost_spans_are_counted_exactly() -> None:
    """Every span that a failed export lost is counted, and every failed batch."""
    variables = {"OTEL_BSP_SCHEDULE_DELAY": "60000", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10"}
    with Words(sending(NOWHERE, timeout=0.2, **variables)) as words:
        words.call("OK", 20)  # two spans each
        lost = eventually(words, "observability_spans_dropped_total", lambda found: found >= 40)
        failures = value(words.scrape(), "observability_span_export_failures_total")

    assert (40, 4) == (lost, failures)


def test_dropped_spans_are_counted_exactly() -> None:
    """Spans that did not fit into the queue while the collector hung are counted."""
    with HungReceiver() as receiver:
        variables = {"OTEL_BSP_MAX_QUEUE_SIZE": "10", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10"}
        with Words(sending(receiver.endpoint, timeout=60, **variables), flush_seconds=0.1) as words:
            words.call("OK", 5)
            sent = len(receiver.wait_for(1))
            words.call("OK", 45)
            dropped = eventually(words, "observability_spans_dropped_total", lambda found: found >= 100 - sent - 10)

    assert 100 - sent - 10 == dropped


@pytest.mark.parametrize("takes", [True, False])
def test_hung_collector_changes_no_call(takes: bool) -> None:  # noqa: FBT001 - a parameter
    """Calls are as they are when the collector hangs, before and after it has taken a batch."""
    with HungReceiver() as receiver, silent_listener() as silent:
        endpoint = receiver.endpoint if takes else silent
        with Words(sending(endpoint, timeout=60), flush_seconds=0.1) as words:
            codes = words.call("OK", 300)

    assert ["OK"] * 300 == codes


OWN_PROVIDER = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, ConsoleSpanExporter
class Exporter(ConsoleSpanExporter):
    def shutdown(self):
        print("shut down", file=sys.stderr, flush=True)
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(Exporter(out=sys.stderr, formatter=lambda span: span.name + "\\n")))
trace.set_tracer_provider(provider)
"""


def test_provider_that_is_set_already() -> None:
    """A tracer provider that is set already is used, and its shutdown left to its owner."""
    with Words(before=OWN_PROVIDER) as words:
        words.call()
        words.close()
        words.stderr.wait_for("test.v1.Words/Unary", count=2)
        before_the_end = words.stderr.lines()
        words.end()
        afterwards = words.stderr.wait_for_end()

    assert ["test.v1.Words/Unary"] * 2 == before_the_end
    assert ["shut down"] == afterwards[2:]


OWN_LOGGING = """
import logging, structlog
structlog.configure(
    processors=[structlog.processors.JSONRenderer()], logger_factory=structlog.PrintLoggerFactory(sys.stdout)
)
logging.basicConfig(level=logging.INFO, format="mine: %(message)s", stream=sys.stdout)
"""


def test_logging_of_the_application() -> None:
    """logging=False leaves structlog and logging as they are; the calls' lines go to structlog's logger."""
    with Words(before=OWN_LOGGING, logging=False) as words:
        words.call()
        words.log("tea")
        words.close()
        words.end()
        lines = words.stdout.wait_for_end()
    calls = [json.loads(line) for line in lines if '"event": "call"' in line]

    assert [("words", "OK"), ("words", "OK")] == [(line["service"], line["code"]) for line in calls]
    assert "mine: tea" in lines
    assert '{"by": "structlog", "event": "tea"}' in lines


def test_used_metrics_port() -> None:
    """A metrics port that is taken is a ListenError that names it, before anything listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        expected = f"ListenError: cannot listen on {address}: address already in use"
        with pytest.raises(RuntimeError, match=expected), Words(metrics_port=taken.getsockname()[1]):
            pass


@pytest.mark.parametrize(
    ("variables", "options", "expected"),
    [
        ({}, {"metrics_port": None}, False),
        ({"OTEL_EXPORTER_PROMETHEUS_PORT": "0"}, {"metrics_port": None}, True),
        ({"OTEL_EXPORTER_PROMETHEUS_PORT": "0"}, {"metrics_port": 1}, True),
        ({"OTEL_EXPORTER_PROMETHEUS_PORT": "0"}, {"serve_metrics": False}, False),
    ],
    ids=["neither", "environment alone", "environment first", "not wanted"],
)
def test_metrics_port(variables: dict[str, str], options: dict[str, Any], expected: bool) -> None:  # noqa: FBT001 - a parameter
    """The environment's port comes first, then the argument's; without either, or if not wanted, nothing listens."""
    with Words(variables, **options) as words:
        assert expected == bool(words.addresses["metrics"])
        assert ["OK"] == words.call()


def test_close_frees_the_metrics_port_and_may_be_repeated() -> None:
    """Close stops listening; a second close does nothing."""
    with Words() as words:
        words.close()
        again = words.close()
        host, _, port = words.addresses["metrics"].rpartition(":")
        with socket.create_server((host, int(port))):
            pass

    assert again < 0.2


def test_unknown_service() -> None:
    """A service that no imported module defines is named."""
    with (
        pytest.raises(RuntimeError, match=r"ValueError: service 'shop\.v1\.Tea' is not known"),
        Words(services=["shop.v1.Tea"]),
    ):
        pass


@pytest.mark.parametrize("engine", ["native", "contrib"])
@pytest.mark.parametrize("excluded", ["test.v1.Words", " test.v1.Words , other.v1.Service"])
def test_excluded_services(excluded: str, engine: str) -> None:
    """OTEL_PYTHON_GRPC_EXCLUDED_SERVICES leaves the spans of the services it names out, and their lines in."""
    variables = {"OTEL_PYTHON_GRPC_EXCLUDED_SERVICES": excluded, "OBSERVABILITY_TRACES": engine}
    with Receiver() as receiver, Words(sending(receiver.endpoint) | variables) as words:
        words.call()
        words.close()
        [line] = words.stdout.wait_for("kind=server")

    assert [] == receiver.spans()
    assert "trace_id" not in fields(line)


@pytest.mark.parametrize("engine", ["native", "contrib"])
def test_own_calls_of_the_exporter_are_not_reported(engine: str) -> None:
    """The exporter's own calls to the collector have no line, no metric and no span."""
    with Receiver() as receiver, Words(sending(receiver.endpoint, OBSERVABILITY_TRACES=engine)) as words:
        words.call()
        words.close()
        spans = receiver.wait_for(2)
        words.end()
        lines = words.stdout.wait_for_end()

    assert 2 == len(spans)
    assert [] == [line for line in lines if "TraceService" in line]


@pytest.mark.parametrize("engine", ["native", "contrib"])
def test_lines_carry_the_ids_of_their_spans(engine: str) -> None:
    """Under both engines each line carries the ids of the span of its side."""
    with Receiver() as receiver, Words(sending(receiver.endpoint, OBSERVABILITY_TRACES=engine)) as words:
        words.call()
        spans = receiver.wait_for(2)
        lines = [fields(line) for line in words.stdout.wait_for(" kind=", count=2)]

    assert {(span.kind, span.trace_id, span.span_id) for span in spans} == {
        (line["kind"], line["trace_id"], line["span_id"]) for line in lines
    }


@pytest.mark.parametrize(("streams", "said"), [(">&-", "3"), ("<&- >&-", "3"), ("2>&-", ""), (">&- 2>&-", "")])
def test_no_stdout(streams: str, said: str) -> None:
    """A process that has no stdout loses its lines, which are counted, and nothing else."""
    program = """
import sys
from observability import Telemetry
import logging

with Telemetry.start("words", logging=True) as telemetry:
    for _ in range(3):
        logging.getLogger("words").warning("tea")
    telemetry.log_writer.flush()
    if sys.stderr:
        print(telemetry.log_writer.dropped, file=sys.stderr)
"""
    result = subprocess.run(
        ["/bin/sh", "-c", f"exec {shlex.quote(sys.executable)} -c {shlex.quote(program)} {streams}"],
        env=environment(OTEL_TRACES_EXPORTER="none"),
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )

    assert (said, 0) == (result.stderr.strip(), result.returncode)
    assert (0 if ">&-" in streams.split() else 3) == result.stdout.count("event=tea")


def test_target_info_of_the_application() -> None:
    """A target_info that the registry has already stays."""
    before = "import prometheus_client; prometheus_client.REGISTRY.set_target_info({'mine': 'yes'})"
    with Words(before=before) as words:
        scrape = words.scrape()

    assert ['target_info{mine="yes"} 1.0'] == re.findall(r"^target_info.*", scrape, re.MULTILINE)


def test_listen_error_is_an_os_error() -> None:
    """ListenError is an OSError."""
    assert issubclass(ListenError, OSError)
