"""What docs/observability.md shows is what Jaeger, Prometheus and the logs answer."""

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from client.lines import fields
from client.processes import ROOT, Service
from tests.stack.programs import free_ports
from tests.stack.prometheus import Prometheus
from tests.stack.stack import CALL_ECHO, ECHO, Stack, call_echo, client, targets
from tests.stack.waiting import eventually

GUIDE = (ROOT / "docs" / "observability.md").read_text()
ROW = re.compile(r"^(\W*)(client|service-[ab]) ([→←]) (echo\.v1\.\S+) +(\S+)", re.MULTILINE)
# Those in a line of text, and those in lines of their own, which are no commands and no log lines.
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
    """Freeze an A that is called through B, until Prometheus has noticed; let it go on."""
    folder, otlp = tmp_path_factory.mktemp("frozen"), stack.jaeger.otlp
    [port] = free_ports(1)
    with (
        Service("service-a", OTEL_EXPORTER_OTLP_ENDPOINT=otlp) as a,
        Service("service-b", SERVICE_A_ADDRESS=a.address, OTEL_EXPORTER_OTLP_ENDPOINT=otlp) as b,
        Prometheus(folder / "prometheus", port, targets(a, b)) as prometheus,
    ):
        call_echo("hello", service_b=b.address, otlp=otlp)
        a.signal(signal.SIGSTOP)
        _, trace_id = call_echo("hello", service_b=b.address, otlp=otlp)

        def noticed() -> list[str]:
            call_echo("hello", service_b=b.address, otlp=otlp)
            return [query for query in OF_ALERTS if prometheus.query(query)]

        alerts = eventually(noticed, lambda found: found == OF_ALERTS)
        a.signal(signal.SIGCONT)
        lines = [*a.stdout.wait_for(trace_id), *b.stdout.wait_for(trace_id, count=2)]
        yield Frozen(trace_id, [fields(line) for line in lines], alerts)


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

    assert [
        ("", "client", "→", CALL_ECHO, "DEADLINE_EXCEEDED"),
        ("└─ ", "service-b", "←", CALL_ECHO, "DEADLINE_EXCEEDED"),
        ("   └─ ", "service-b", "→", ECHO, "DEADLINE_EXCEEDED"),
        ("      └─ ", "service-a", "←", ECHO, "CANCELLED"),
    ] == ROW.findall(shown)
    assert ROW.findall(shown) == ROW.findall(re.sub(r"^ {4}", "", GUIDE, flags=re.MULTILINE))


def test_lines_of_a_frozen_service(frozen: Frozen) -> None:
    """The log lines of a call to a frozen A are those that the guide shows, but for how long it took."""
    told = [re.findall(r'(\w+)=("[^"]*"|\S+)', line) for line in re.findall(r"^ +… (service=.*)$", GUIDE, re.MULTILINE)]
    shown = [{name: value.strip('"') for name, value in line if not name.endswith("_ms")} for line in told]

    assert 3 == len(shown)
    assert [] == [line for line, real in zip(shown, frozen.lines, strict=True) if not line.items() <= real.items()]


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
