"""Traces that Jaeger keeps, shown here."""

import json
import re
import urllib.error
from typing import Any

import click
from rich.console import Console

from client.link import at_jaeger
from client.screen import sized
from client.spans import Span
from client.waterfall import waterfall
from client.web import get


class TraceId(click.ParamType[str]):
    """A trace id, as a log line shows it."""

    name = "trace_id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id in lower case."""
        if not re.fullmatch(r"[0-9A-Fa-f]{32}", value):
            self.fail(f"{value!r} is not 32 hex digits", param, ctx)
        return str(value).lower()


@click.command()
@click.argument("trace_id", type=TraceId())
@at_jaeger
def trace(trace_id: str, jaeger: str) -> int:
    """Show a trace of a running Jaeger. TRACE_ID is in every log line."""
    try:
        spans = spans_of(json.loads(get(f"{jaeger}/api/traces/{trace_id}")))
    except urllib.error.HTTPError as error:
        with error:  # Jaeger answers 404 for a trace that it does not have
            click.echo(f"{jaeger} has no trace {trace_id} ({error.code} {error.reason})", err=True)
        return 1
    except (OSError, ValueError, LookupError) as error:
        click.echo(f"{jaeger} does not answer as a Jaeger does: {error}", err=True)
        return 1
    sized(Console()).print(waterfall(spans))
    return 0


def spans_of(answer: Any) -> list[Span]:
    """Return the spans that Jaeger's API answered with; LookupError if it is no such answer."""
    return [span_of(span, trace["processes"]) for trace in answer["data"] for span in trace["spans"]]


def span_of(span: Any, processes: Any) -> Span:
    """Return a span of Jaeger's, whose times are in microseconds, as a `Span`."""
    tags = {tag["key"]: tag["value"] for tag in span["tags"]}
    start = span["startTime"] * 1000
    return Span(
        service=processes[span["processID"]]["serviceName"],
        name=span["operationName"],
        kind=tags.get("span.kind", "internal"),
        trace_id=span["traceID"],
        span_id=span["spanID"],
        parent_id=next((r["spanID"] for r in span["references"] if r["refType"] == "CHILD_OF"), ""),
        start=start,
        end=start + span["duration"] * 1000,
        status=str(tags.get("otel.status_code", "unset")).lower(),
        description=tags.get("otel.status_description", ""),
        attributes=tags,
    )
