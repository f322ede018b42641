"""Jaeger and Prometheus get, keep and show what the services report."""

import re
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import pytest

from client.processes import Service
from observability import __version__
from tests.stack.dashboards import Panel, link_keys, linked_queries, panels
from tests.stack.jaeger import Jaeger, JaegerSpan
from tests.stack.stack import CALL_ECHO, ECHO, HELLO, WHOLE_TRACE, Stack, call_echo
from tests.stack.traffic import Traffic
from tests.stack.waiting import eventually

UP = {"service-a": "up", "service-b": "up"}


def test_trace(stack: Stack) -> None:
    """Jaeger shows a call as one trace: the client's side, B's, B's call to A, and A's."""
    answer, trace_id = call_echo("hello", service_b=stack.b.address, otlp=stack.jaeger.otlp)

    assert HELLO == answer
    assert WHOLE_TRACE == stack.jaeger.trace(trace_id, spans=4)


def test_trace_of_a_failure(stack: Stack) -> None:
    """When A is down, Jaeger shows the failed call up to where it failed: in B's call to A."""
    variables = {"SERVICE_A_ADDRESS": "127.0.0.1:1", "OTEL_EXPORTER_OTLP_ENDPOINT": stack.jaeger.otlp}
    with Service("service-b", **variables) as b:
        answer, trace_id = call_echo("hello", service_b=b.address, otlp=stack.jaeger.otlp)

    assert "unavailable" == answer["service_a"]
    assert [
        JaegerSpan("client", "client", CALL_ECHO, "UNAVAILABLE", ""),
        JaegerSpan("service-b", "server", CALL_ECHO, "UNAVAILABLE", "client client"),
        JaegerSpan("service-b", "client", ECHO, "UNAVAILABLE", "service-b server"),
    ] == stack.jaeger.trace(trace_id, spans=3)


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize("service", ["service-a", "service-b"])
def test_monitor(stack: Stack, service: str) -> None:
    """Jaeger's Monitor tab has both services: it counts spans, and asks Prometheus for the counts."""
    assert 0 < eventually(lambda: stack.jaeger.calls_per_minute(service))


@pytest.mark.usefixtures("traffic")
def test_dependencies(stack: Stack) -> None:
    """Jaeger's System Architecture tab knows that B calls A."""
    known = eventually(stack.jaeger.dependencies, lambda links: ("service-b", "service-a") in links)

    assert ("service-b", "service-a") in known


def test_targets(stack: Stack) -> None:
    """Prometheus scrapes exactly two services, and both answer."""
    assert UP == eventually(lambda: stack.prometheus.targets("services"), lambda health: health == UP)


def test_versions(stack: Stack) -> None:
    """Prometheus knows which version of each service runs."""
    samples = eventually(
        lambda: stack.prometheus.query('target_info{job=~"service-.*"}'), lambda found: len(found) >= len(UP)
    )
    labels = [sample["metric"] for sample in samples]

    assert {job: (job, __version__) for job in UP} == {
        found["job"]: (found["service_name"], found["service_version"]) for found in labels
    }


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize("metric", ["grpc_server_handling_seconds_bucket", "grpc_client_handling_seconds_bucket"])
def test_exemplar(stack: Stack, metric: str) -> None:
    """An exemplar that Prometheus keeps of a latency bucket names a trace that Jaeger has."""
    exemplars = eventually(lambda: stack.prometheus.exemplars(f'{metric}{{grpc_method="Echo"}}'))
    spans = stack.jaeger.trace(exemplars[-1]["labels"]["trace_id"], spans=1)

    assert {ECHO} <= {span.name for span in spans}


def test_spans_have_what_leads_to_metrics(stack: Stack) -> None:
    """Every span of a call has, as Jaeger keeps it, each tag by which Grafana leads from it to metrics."""
    _, trace_id = call_echo("hello", service_b=stack.b.address, otlp=stack.jaeger.otlp)
    stack.jaeger.trace(trace_id, spans=4)

    assert {"rpc.method": "rpc_method"} == link_keys()
    assert [True] * 4 == [link_keys().keys() <= tags.keys() for tags in stack.jaeger.tags(trace_id)]


@pytest.mark.usefixtures("traffic")
def test_span_leads_to_metrics(stack: Stack) -> None:
    """From the span of B's call to A each link asks for that method alone, and returns data under traffic."""
    _, trace_id = call_echo("hello", service_b=stack.b.address, otlp=stack.jaeger.otlp)
    stack.jaeger.trace(trace_id, spans=4)
    [tags] = [
        tags for tags in stack.jaeger.tags(trace_id) if (tags["span.kind"], tags["rpc.method"]) == ("client", ECHO)
    ]
    queries = linked_queries(tags)

    assert 4 == len(queries)
    assert [] == [query for query in queries if f'{{rpc_method="{ECHO}"}}' not in query]
    assert [] == stack.prometheus.without_data(queries)


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize("panel", panels(), ids=str)
def test_panel(stack: Stack, panel: Panel) -> None:
    """Every query of every panel returns data under traffic."""
    assert [] == stack.prometheus.without_data(query.expression for query in panel.queries)


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize("panel", panels(), ids=str)
def test_lines_of_a_panel(stack: Stack, panel: Panel) -> None:
    """No two lines of a panel have the same name."""
    lines = [
        query.line(sample["metric"])
        for query in panel.queries
        for sample in eventually(partial(stack.prometheus.query, query.expression))
    ]

    assert len(set(lines)) == len(lines), sorted(lines)


@pytest.mark.usefixtures("traffic")
def test_recording_rules(stack: Stack) -> None:
    """Every recording rule records data under traffic."""
    rules = [rule["name"] for rule in stack.prometheus.rules("record")]

    assert 17 == len(rules)
    assert [] == stack.prometheus.without_data(rules)


@pytest.mark.usefixtures("traffic")
def test_alerts(stack: Stack) -> None:
    """Everything that an alert looks at is there: it fires for what it sees, and is not blind."""
    alerts = stack.prometheus.rules("alert")
    looked_at = {selector for alert in alerts for selector in stack.prometheus.selectors(alert["query"])}

    assert {
        "CollectorDown",
        "CollectorLosesSpans",
        "CollectorQueueFilling",
        "ErrorBudgetBurn",
        "LatencyBudgetBurn",
        "ServiceAUnreachableFromB",
        "TargetDown",
        "TelemetryLost",
    } == {alert["name"] for alert in alerts}
    assert [] == stack.prometheus.without_data(looked_at)


@pytest.mark.usefixtures("traffic")
def test_rules_are_healthy(stack: Stack) -> None:
    """Prometheus evaluates every rule without an error."""
    rules = eventually(
        lambda: stack.prometheus.rules("alert") + stack.prometheus.rules("record"),
        lambda rules: all(rule["health"] != "unknown" for rule in rules),
    )

    assert {"ok"} == {rule["health"] for rule in rules}


def test_jaeger_restarts(tmp_path: Path) -> None:
    """Jaeger killed and started again in the middle costs no call; it is counted, and spans flow again."""
    with (
        Jaeger(tmp_path, "http://127.0.0.1:1") as jaeger,
        Service("service-a", OTEL_EXPORTER_OTLP_ENDPOINT=jaeger.otlp) as a,
        Service("service-b", SERVICE_A_ADDRESS=a.address, OTEL_EXPORTER_OTLP_ENDPOINT=jaeger.otlp) as b,
        Traffic(a.address, b.address) as traffic,
    ):
        assert call_and_find(b, jaeger)
        jaeger.kill()
        assert eventually(lambda: failed_exports(a) and failed_exports(b))
        jaeger.start()
        assert eventually(lambda: call_and_find(b, jaeger))

    assert {"OK", "INVALID_ARGUMENT"} == set(traffic.outcomes)


def failed_exports(service: Service) -> float:
    """Return how many batches of spans a service could not deliver, as its /metrics says."""
    with urlopen(service.metrics_url) as response:  # noqa: S310 - an address of the test's own
        text = response.read().decode()
    [count] = re.findall(r"^observability_span_export_failures_total (\S+)$", text, re.MULTILINE)
    return float(count)


def call_and_find(b: Service, jaeger: Jaeger) -> bool:
    """Return whether a new call's trace reaches Jaeger, whole."""
    _, trace_id = call_echo("hello", service_b=b.address, otlp=jaeger.otlp)
    return len(jaeger.trace(trace_id, spans=4)) == 4
