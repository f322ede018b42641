"""Jaeger: the real program with the configuration that compose mounts, and what it answers."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from tests.stack.programs import DEPLOY, Program
from tests.stack.waiting import eventually, get
from tests.support.ports import free_ports

MINUTE = 60_000  # milliseconds


@dataclass(frozen=True, slots=True)
class JaegerSpan:
    """A span as Jaeger returns it. The parent is `service kind` of another one; empty for a root."""

    service: str
    kind: str
    name: str
    code: str
    parent: str


class JaegerApi:
    """What a running Jaeger answers over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url

    def trace(self, trace_id: str, spans: int) -> list[JaegerSpan]:
        """Return a trace's spans by their start, once there are so many; after a minute those there are."""
        return eventually(lambda: self._trace(trace_id), lambda found: len(found) >= spans)

    def tags(self, trace_id: str) -> list[dict[str, str]]:
        """Return the tags of each of a trace's spans, those of its process included; the trace must have arrived."""
        [trace] = get(f"{self.url}/api/traces/{trace_id}")["data"]
        return [_tags(trace["processes"][span["processID"]]) | _tags(span) for span in trace["spans"]]

    def search(self, service: str, **tags: str) -> set[str]:
        """Return the ids of a service's traces of the last hour in which Search finds these tags."""
        now = int(time.time() * 1_000_000)
        begin = now - 60 * MINUTE * 1000
        answer = get(f"{self.url}/api/traces", service=service, tags=json.dumps(tags), start=begin, end=now, limit=1500)
        return {trace["traceID"] for trace in answer["data"]}

    def _trace(self, trace_id: str) -> list[JaegerSpan]:
        try:
            [trace] = get(f"{self.url}/api/traces/{trace_id}")["data"]
        except HTTPError:  # 404: it has not arrived
            return []
        spans = {span["spanID"]: span for span in trace["spans"]}

        def side(span: Any) -> tuple[str, str]:
            return trace["processes"][span["processID"]]["serviceName"], _tags(span).get("span.kind", "internal")

        def parent(span: Any) -> str:
            known = [spans[r["spanID"]] for r in span["references"] if r["spanID"] in spans]
            return " ".join(side(known[0])) if known else ""

        return [
            JaegerSpan(*side(span), span["operationName"], _tags(span).get("rpc.status_code", ""), parent(span))
            for span in sorted(spans.values(), key=lambda span: span["startTime"])
        ]

    def calls_per_minute(self, service: str) -> float:
        """Return the highest rate of calls that the Monitor tab shows for a service's last 10 minutes."""
        answer = get(
            f"{self.url}/api/metrics/calls",
            service=service,
            spanKind="server",
            endTs=int(time.time() * 1000),
            lookback=10 * MINUTE,
            step=5_000,
            ratePer=MINUTE,
        )
        points = [point for metric in answer["metrics"] for point in metric["metricPoints"]]
        return max((float(point["gaugeValue"]["doubleValue"]) for point in points), default=0.0)

    def dependencies(self) -> set[tuple[str, str]]:
        """Return who calls whom, as the System Architecture tab shows it for the last hour."""
        answer = get(f"{self.url}/api/dependencies", endTs=int(time.time() * 1000), lookback=60 * MINUTE)
        return {(link["parent"], link["child"]) for link in answer["data"]}


class Jaeger(Program, JaegerApi):
    """The real Jaeger on free ports, from `with` to its end; its traces die with it."""

    def __init__(self, folder: Path, prometheus_url: str) -> None:
        otlp, otlp_http, query, query_grpc, health, metrics, spanmetrics = free_ports(7)
        JaegerApi.__init__(self, f"http://127.0.0.1:{query}")
        self.otlp = f"http://127.0.0.1:{otlp}"
        self.targets = {"jaeger:8888": f"127.0.0.1:{metrics}", "jaeger:8889": f"127.0.0.1:{spanmetrics}"}
        Program.__init__(
            self,
            "jaeger",
            f"--config={DEPLOY / 'jaeger' / 'config.yaml'}",
            log=folder / "jaeger.log",
            ready=f"http://127.0.0.1:{health}/status",
            variables={
                "JAEGER_LISTEN_HOST": "127.0.0.1",
                "JAEGER_OTLP_GRPC_PORT": str(otlp),
                "JAEGER_OTLP_HTTP_PORT": str(otlp_http),
                "JAEGER_QUERY_PORT": str(query),
                "JAEGER_QUERY_GRPC_PORT": str(query_grpc),
                "JAEGER_HEALTH_PORT": str(health),
                "JAEGER_METRICS_PORT": str(metrics),
                "JAEGER_SPANMETRICS_PORT": str(spanmetrics),
                "JAEGER_UI_CONFIG": str(DEPLOY / "jaeger" / "ui.json"),
                "PROMETHEUS_URL": prometheus_url,
            },
        )


def _tags(holder: Any) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in holder["tags"]}
