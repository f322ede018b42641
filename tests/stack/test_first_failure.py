"""The first failure of each kind is seen: in every panel, rule and link that looks at what it changes."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from client.processes import Service
from protos.echo_pb2 import CallEchoRequest, EchoRepeatRequest, EchoRequest
from protos.echo_pb2_grpc import CallEchoServiceStub, EchoServiceStub
from tests.stack.dashboards import Panel, linked_queries, panels
from tests.stack.prometheus import Labels, Prometheus
from tests.stack.stack import CALL_ECHO, ECHO, targets
from tests.stack.traffic import TOO_LONG
from tests.stack.waiting import eventually
from tests.support.ports import free_ports

NOWHERE = "127.0.0.1:1"
TOO_LARGE = b"x" * (4 * 1024 * 1024 + 1)
SLOW = 0.25  # seconds; what takes longer is slow to the latency objective
ONCE = pytest.approx(1.0, rel=0.2)  # increase() says a little more than what it saw
# Panels of what a failed call leaves as it was, or of what fails apart from calls.
UNTOUCHED = {"Alerts firing", "Version", "Up", "In flight", "Handlers running", "Log lines lost", "Observer errors"}
# There is no Collector here; test_stack.py looks at what it has lost.
PANELS = [panel for panel in panels() if panel.dashboard != "collector"]
OF_COLLECTOR = {"instance:otelcol_lost:sum", "CollectorLosesSpans", "CollectorQueueFilling", "CollectorDown"}
COUNTS = ("_total", "_bucket", "_count")
SERVED = 'sum(grpc_server_handled_total{grpc_service=~"echo.*"})'

# What is there when the rules have seen both services fail, and both have lost spans.
NOTICED = [
    "count(job:grpc_server_errors:ratio_rate30d) == 2",
    "count(observability_span_export_failures_total > 0) == 2",
]


@dataclass(frozen=True, slots=True)
class FirstFailures:
    """A Prometheus that scraped two services before and after their first calls, most of which failed."""

    prometheus: Prometheus
    before: float
    after: float

    def growth(self, expression: str) -> dict[Labels, float]:
        """Return by how much each series that an expression selects has changed, one that was not there from zero."""
        changes: dict[Labels, float] = {}
        for selector in self.prometheus.selectors(expression):
            was = self.prometheus.values(selector, self.before)
            now = self.prometheus.values(selector, self.after)
            changes |= {labels: value - was.get(labels, 0) for labels, value in now.items()}
        return {labels: change for labels, change in changes.items() if change}

    def shows(self, expression: str) -> bool:
        """Return whether an expression's answer is another one after the failures."""
        return self.prometheus.values(expression, self.before) != self.prometheus.values(expression, self.after)

    def hidden(self, expression: str) -> dict[Labels, float]:
        """Return what increase() makes of the selected counters that grew from zero, of those where it is wrong."""
        hidden: dict[Labels, float] = {}
        for selector in self.prometheus.selectors(expression):
            was = self.prometheus.values(selector, self.before)
            increases = self.prometheus.values(f"increase({selector}[10m])", self.after)
            for labels, change in self.growth(selector).items():
                name = dict(labels)["__name__"]
                increase = increases.get(labels - {("__name__", name)}, 0.0)
                if name.endswith(COUNTS) and not was.get(labels) and increase / change != ONCE:
                    hidden[labels] = increase
        return hidden


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirstFailures]:
    """Scrape two services that nobody has called, and again after one failed call of each kind."""
    folder = tmp_path_factory.mktemp("first")
    [port] = free_ports(1)
    # No collector takes their spans, which is a loss of telemetry, a first one as well.
    lost = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{NOWHERE}", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with (
        Service("service-a", "--max-workers", "1", **lost) as a,
        Service("service-b", SERVICE_A_ADDRESS=NOWHERE, **lost) as b,
        Prometheus(folder / "prometheus", port, targets(a, b), pace=5) as prometheus,
    ):
        scraped = 'count(sum_over_time(up{job=~"service-.*"}[1m]) >= 2) == 2'
        assert eventually(lambda: prometheus.query(scraped))
        assert ["0"] == [sample["value"][1] for sample in prometheus.query(SERVED)]
        before = time.time()
        made = fail(a, b)
        assert [] == prometheus.without_data([f"{SERVED} == {made}", *NOTICED])
        yield FirstFailures(prometheus, before, time.time())


def fail(a: Service, b: Service) -> int:
    """Make a call of each kind that fails, and one that is slow; return how many calls the services were asked."""
    with grpc.insecure_channel(a.address) as to_a, grpc.insecure_channel(b.address) as to_b, open_requests() as request:
        echo, call_echo = EchoServiceStub(to_a), CallEchoServiceStub(to_b)
        raw: Callable[..., Any] = to_a.unary_unary
        chat = echo.EchoChat(request(), timeout=5)
        next(chat)
        chat.cancel()
        failing: list[tuple[str, Callable[[], Any]]] = [
            ("INVALID_ARGUMENT", lambda: echo.Echo(EchoRequest(msg=TOO_LONG), timeout=5)),
            ("INVALID_ARGUMENT", lambda: list(echo.EchoRepeat(EchoRepeatRequest(times=-1), timeout=5))),
            ("INTERNAL", lambda: raw(f"/{ECHO}")(b"no protobuf", timeout=5)),
            ("RESOURCE_EXHAUSTED", lambda: raw("/echo.v1.HealthService/Check")(TOO_LARGE, timeout=5)),
            ("DEADLINE_EXCEEDED", lambda: echo.EchoJoin(request(), timeout=0.2)),
            ("UNAVAILABLE", lambda: call_echo.CallEcho(CallEchoRequest(msg="hello"), timeout=5)),
            ("UNAVAILABLE", lambda: list(call_echo.CallEchoChat(iter([CallEchoRequest(msg="hello")]), timeout=5))),
        ]
        codes = [failed(call) for _, call in failing]
        assert [code for code, _ in failing] == codes
        # A has one thread, so that a call waits while another one goes on.
        chat = echo.EchoChat(request(), timeout=5)
        next(chat)
        slow = echo.Echo.future(EchoRequest(msg="hello"), timeout=5)
        time.sleep(4 * SLOW)
        chat.cancel()
        assert slow.result().echo == "hello"
    return 1 + len(failing) + 2


def failed(call: Callable[[], Any]) -> str:
    """Make a call; return the code with which it failed."""
    with pytest.raises(grpc.RpcError) as error:
        call()
    return str(error.value.code().name)


@contextlib.contextmanager
def open_requests() -> Iterator[Callable[[], Iterator[EchoRequest]]]:
    """Give streams of requests that have one, and no end before this one's."""
    over = threading.Event()

    def requests() -> Iterator[EchoRequest]:
        yield EchoRequest(msg="hello")
        over.wait()

    try:
        yield requests
    finally:
        over.set()


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_panels(failures: FirstFailures, panel: Panel) -> None:
    """
    A panel shows each first failure that changes what it looks at, and counts it as one.
    """
    asked = [query.expression for query in panel.queries]
    touched = [expression for expression in asked if failures.growth(expression)]

    assert (panel.title in UNTOUCHED) == (not touched)
    assert [] == [expression for expression in touched if not failures.shows(expression)]
    assert [{}] * len(asked) == [failures.hidden(expression) for expression in asked]


@pytest.mark.parametrize("kind", ["record", "alert"])
def test_rules(failures: FirstFailures, kind: str) -> None:
    """
    Every recording rule and every alert on services sees the first failure, but for the alert that one is gone.
    """
    rules = {rule["query"]: rule["name"] for rule in failures.prometheus.rules(kind)}
    touched = [expression for expression in rules if failures.growth(expression)]
    unseen = {name for expression, name in rules.items() if expression not in touched}

    assert (OF_COLLECTOR | {"TargetDown"}) & set(rules.values()) == unseen
    assert [] == [expression for expression in touched if not failures.shows(expression)]
    assert [{}] * len(rules) == [failures.hidden(expression) for expression in rules]


@pytest.mark.parametrize("method", [ECHO, CALL_ECHO])
def test_links(failures: FirstFailures, method: str) -> None:
    """
    What a span's links ask of its method shows the method's first failure.
    """
    asked = linked_queries({"rpc.method": method})
    touched = [expression for expression in asked if failures.growth(expression)]

    assert touched
    assert [] == [expression for expression in touched if not failures.shows(expression)]
    assert [{}] * len(asked) == [failures.hidden(expression) for expression in asked]
