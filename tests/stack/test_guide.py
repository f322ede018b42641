"""What docs/observability.md shows is what Jaeger, Prometheus and the logs answer."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from client.lines import PAIR, fields
from client.processes import ROOT, Service
from tests.stack.prometheus import Prometheus
from tests.stack.stack import Stack, call_echo, client, targets
from tests.stack.waiting import eventually
from tests.support.freezing import freeze
from tests.support.ports import free_ports

GUIDE = (ROOT / "docs" / "observability.md").read_text()
# A row of a trace: its branch, who calls or serves what, the code, and start and length in milliseconds.
ROW = re.compile(
    r"^(\W*(?:client|service-[ab]) [→←] echo\.v1\.\S+) +([A-Z_]+) +([\d.,]+) ms +([\d.,]+) ms", re.MULTILINE
)
# How a call ends that is taken up after its caller has given up: the second where that took a moment longer.
LATE = {"CANCELLED", "DEADLINE_EXCEEDED"}
# Those in a line of text, and those in separate lines, which are no commands and no log lines.
QUERIES = [
    *re.findall(r"`([a-z_]+\{[^`]+\})`", GUIDE),
    *re.findall(r"^ {7}(?![$…└])(\S.*?)(?: {2,}#.*)?$", GUIDE, re.MULTILINE),
]
OF_ALERTS = [query for query in QUERIES if "ALERTS" in query]


@dataclass(frozen=True, slots=True)
class Frozen:
    """A call while A was frozen: its trace id, its log lines, and the alerts that came of more such calls."""

    trace_id: str
    lines: list[dict[str, str]]
    alerts: list[str]


@pytest.fixture(scope="module")
def frozen(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Frozen]:
    """Freeze an A that is called through B, for one call and then until Prometheus has noticed."""
    folder, otlp = tmp_path_factory.mktemp("frozen"), stack.jaeger.otlp
    [port] = free_ports(1)
    with (
        Service("service-a", OTEL_EXPORTER_OTLP_ENDPOINT=otlp) as a,
        Service("service-b", SERVICE_A_ADDRESS=a.address, OTEL_EXPORTER_OTLP_ENDPOINT=otlp) as b,
        Prometheus(folder / "prometheus", port, targets(a, b)) as prometheus,
    ):
        call_echo("hello", service_b=b.address, otlp=otlp)
        with stopped(a):
            _, trace_id = call_echo("hello", service_b=b.address, otlp=otlp)
        lines = [*a.stdout.wait_for(trace_id), *b.stdout.wait_for(trace_id, count=2)]

        def noticed() -> list[str]:
            call_echo("hello", service_b=b.address, otlp=otlp)
            return [query for query in OF_ALERTS if prometheus.query(query)]

        with stopped(a):
            alerts = eventually(noticed, lambda found: found == OF_ALERTS)
        yield Frozen(trace_id, [fields(line) for line in lines], alerts)


@contextmanager
def stopped(service: Service) -> Iterator[None]:
    """Freeze a service meanwhile."""
    freeze(service)
    try:
        yield
    finally:
        service.signal(signal.SIGCONT)


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize("query", [query for query in QUERIES if query not in OF_ALERTS])
def test_queries(stack: Stack, query: str) -> None:
    """Each query of the guide returns data under traffic."""
    assert [] == stack.prometheus.without_data([query])


def test_queries_of_alerts(frozen: Frozen) -> None:
    """Each query of the guide that asks for an alert returns data when there is one."""
    assert OF_ALERTS == frozen.alerts != []


def test_trace_of_a_frozen_service(stack: Stack, frozen: Frozen) -> None:
    """The trace of a call to a frozen A is the one that the guide shows: A takes it up when B has given up."""
    stack.jaeger.trace(frozen.trace_id, spans=4)
    shown = client("trace", frozen.trace_id, "--jaeger", stack.jaeger.url, otlp=stack.jaeger.otlp).stdout
    real, documented = ROW.findall(shown), ROW.findall(re.sub(r"^ {4}", "", GUIDE, flags=re.MULTILINE))

    assert 4 == len(documented)
    assert [title for title, *_ in documented] == [title for title, *_ in real]
    for rows in (real, documented):
        *callers, (_, code, start, _) = rows
        assert ["DEADLINE_EXCEEDED"] * 3 == [caller[1] for caller in callers]
        assert code in LATE
        assert milliseconds(start) > sum(map(milliseconds, callers[-1][2:]))


def test_lines_of_a_frozen_service(frozen: Frozen) -> None:
    """The log lines of a call to a frozen A are those that the guide shows, but for how long it took."""
    documented = [dict(PAIR.findall(line)) for line in re.findall(r"^ +…( service=.*)$", GUIDE, re.MULTILINE)]
    a, *b = [
        {name: value.strip('"') for name, value in line.items() if not name.endswith("_ms")} for line in documented
    ]

    for line, real in zip(b, frozen.lines[1:], strict=True):
        # gRPC's words for it are these, or say in brackets that they are why the stream is gone.
        error = re.sub(r"Stream removed \((.*)\)", r"\1", real["error"])
        assert line.items() <= {**real, "error": error}.items()
    assert frozen.lines[0]["code"] in LATE
    assert {"service": "A", "endpoint": "/echo", "status": "error", "kind": "server"}.items() <= a.items()
    assert a.keys() <= frozen.lines[0].keys()


def milliseconds(text: str) -> float:
    """Return a number that a person reads as a number."""
    return float(text.replace(",", ""))


def test_search_by_code(stack: Stack) -> None:
    """What the guide writes into the Tags of Jaeger's Search finds the traces with a call of that code."""
    [(tag, code)] = re.findall(r"`(rpc\.status_code)=(\w+)`", GUIDE)
    variables = {"SERVICE_A_ADDRESS": "127.0.0.1:1", "OTEL_EXPORTER_OTLP_ENDPOINT": stack.jaeger.otlp}
    with Service("service-b", **variables) as b:
        _, failed = call_echo("hello", service_b=b.address, otlp=stack.jaeger.otlp)
    _, succeeded = call_echo("hello", service_b=stack.b.address, otlp=stack.jaeger.otlp)
    stack.jaeger.trace(succeeded, spans=4)
    found = eventually(lambda: stack.jaeger.search("service-b", **{tag: code}), lambda found: failed in found)

    assert failed in found
    assert succeeded not in found
