"""The tables of docs/signals.md: every key, metric, label and attribute, as the code has them and played calls show."""

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, get_args

import grpc
from opentelemetry.sdk.trace import ReadableSpan
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from client.processes import ROOT
from observability import ObservedChannel, ServerInterceptor, measure_calls
from observability.calls.method import Type
from observability.logs.render import LINE_KEYS
from observability.metrics.collectors import BUCKETS, LIKELY_CODES
from observability.metrics.self_metrics import report_losses
from observability.metrics.workers import measure_workers
from observability.threads.pool import WorkerPool
from observability.traces import attributes
from observability.traces.provider import service_attributes
from protos import echo_pb2
from tests.support.recorder import Recorder
from tests.support.rpc import as_asked, echo, method, requests, serving
from tests.support.tls import Authority

PAGE = ROOT / "docs" / "signals.md"
_MARKED = re.compile(r"(?<=<!-- )(\w+)( -->\n).*?(?=<!-- until here -->)", re.DOTALL)
SERVICE = echo_pb2.DESCRIPTOR.services_by_name["EchoService"].full_name

# In the order of a line.
KEYS = {
    "time": "when the call ended, in UTC; of key=value lines it is what a line begins with, without its name",
    "service": "`log_name=` of `Telemetry.start`, or else the service's name",
    "endpoint": "the method's name in kebab-case behind a slash; `/unknown` of a method that the server does not know",
    "status": "`ok` of code OK, else `error`",
    "error": "`StatusCode.NAME: details`, or `Type: message` of an exception that nobody caught",
    "latency_ms": "milliseconds from the call's first sight to its true end, three decimals",
    "level": "`info` of OK, `error` of the server's faults, else `warning`; `debug` of health checks and reflection",
    "kind": "`server` or `client`",
    "method": "the method with its service",
    "code": "the name of the final status code",
    "peer": "who called, as grpc names it",
    "peer_identity": "with mutual TLS the names in the caller's certificate",
    "deadline_ms": "milliseconds that the caller gave, where it gave a deadline",
    "sent": "messages handed to grpc, of calls with a stream",
    "received": "messages handed to the application, of calls with a stream",
    "trace_id": "32 lower-case hex digits, where the call has a span",
    "span_id": "16 lower-case hex digits, where the call has a span",
    "event": "of the application's own lines: what it says; calls have none",
    "stacktrace": "of an exception that nobody caught, its last 8 KiB",
}
LABELS = {
    "grpc_type": "which sides of the method stream: " + ", ".join(f"`{value}`" for value in get_args(Type)),
    "grpc_service": "full name of the service; `unknown` of methods that the server does not know, and of too many",
    "grpc_method": "name of the method; `unknown` as above",
    "grpc_code": "name of the final status code: " + ", ".join(f"`{code.name}`" for code in grpc.StatusCode),
    "le": "a bucket's inclusive upper bound in seconds: " + ", ".join(f"{bound:g}" for bound in BUCKETS) + ", +Inf",
    "pool": "`calls`, or what `Telemetry.worker_pool` was given; `health` of health checks, which have their own",
    "service_name": "of the process: `OTEL_SERVICE_NAME`, or what `Telemetry.start` was given",
    "service_version": "likewise its version: `service.version` of `OTEL_RESOURCE_ATTRIBUTES`",
}


class Seen(NamedTuple):
    """What played calls were reported as."""

    lines: list[dict[str, Any]]
    spans: tuple[ReadableSpan, ...]


def play() -> Seen:
    """Make calls that end in every way that has something of its own, with mutual TLS, and observe both sides."""
    authority, recorder = Authority(), Recorder()
    caller = authority.client(authority.issue("client.example"))
    options: dict[str, Any] = {"credentials": authority.server(wants_certificate=True)}
    with (
        serving(ServerInterceptor(*recorder.observers), unary=as_asked, bidi_stream=echo, **options) as address,
        grpc.secure_channel(address, caller) as plain,
        ObservedChannel(plain, *recorder.observers, target=address) as channel,
    ):
        list(method(channel, "bidi_stream")(requests("bidi_stream")))
        for request in (b"OK", b"UNAVAILABLE", b"an exception"):
            method(channel, "unary").future(request, timeout=10).exception()
        method(channel, "unary", "/test.v1.Words/Nothing").future(b"", timeout=10).exception()
        recorder.wait_for(10)
    return Seen(recorder.lines, recorder.spans)


def table(*head: str, rows: Iterable[Iterable[str]]) -> str:
    """Return a table as Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(["", *(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines), "", ""])


def sides(values: Sequence[tuple[str, Iterable[str]]], name: str) -> str:
    """Return the sides on which a name is seen, given the names of each thing that was seen with its side."""
    found = [side for side in ("server", "client") if any(name in names for kind, names in values if kind == side)]
    return "both" if len(found) == 2 else "".join(found)


def keys(seen: Seen) -> str:
    """Return the keys of lines."""
    assert {*KEYS} == LINE_KEYS
    lines = [(line["kind"], line.keys() - {"event"} | {"time"}) for line in seen.lines]
    return table("Key", "Side", "Value", rows=([f"`{key}`", sides(lines, key), KEYS[key]] for key in KEYS))


def registered() -> Iterator[Metric]:
    """Yield every metric that a process has of calls and of telemetry itself, at zero."""
    registry = CollectorRegistry()
    measure_calls(registry, [SERVICE], client_services=[SERVICE])
    with WorkerPool(1) as pool:
        measure_workers(registry, "calls", pool)
    report_losses(registry, None, None, None, None)
    described = {key.replace(".", "_"): value for key, value in service_attributes("a", "1").items()}
    registry.set_target_info(described)
    yield from registry.collect()


def labels(metric: Metric) -> list[str]:
    """Return the labels of a metric, in the order of its samples."""
    return [*dict.fromkeys(name for sample in metric.samples for name in sample.labels)]


def metrics(_seen: Seen) -> str:
    """Return the metrics, each under the name of its samples."""
    ending = {"counter": "_total", "info": "_info", "histogram": "", "gauge": ""}
    return table(
        "Metric",
        "Type",
        "Labels",
        "Meaning",
        rows=(
            [
                f"`{metric.name}{ending[metric.type]}`",
                metric.type + (", seconds" if metric.type == "histogram" else ""),
                ", ".join(f"`{name}`" for name in labels(metric)),
                metric.documentation.rstrip("."),
            ]
            for metric in registered()
        ),
    )


def all_labels(_seen: Seen) -> str:
    """Return the labels, and what values they have."""
    names = dict.fromkeys(name for metric in registered() for name in labels(metric))
    return table("Label", "Value", rows=([f"`{name}`", LABELS[name]] for name in names))


def documented() -> dict[str, str]:
    """Return the attributes that the code names, and what it says below each."""
    found = {}
    for node, text in pairwise(ast.parse(inspect.getsource(attributes)).body):
        match node, text:
            case ast.AnnAssign(value=ast.Constant(value=str(name))), ast.Expr(value=ast.Constant(value=str(said))):
                found[name] = said
    return found


def all_attributes(seen: Seen) -> str:
    """Return the attributes of spans, and on which sides they are."""
    spans = [(span.kind.name.lower(), span.attributes or {}) for span in seen.spans]
    said = documented()
    assert {*said} == {name for _, names in spans for name in names}
    return table("Attribute", "Side", "Value", rows=([f"`{name}`", sides(spans, name), said[name]] for name in said))


def event(seen: Seen) -> str:
    """Return the attributes of the event of an exception."""
    [found] = [event for span in seen.spans for event in span.events]
    names = ", ".join(f"`{name}`" for name in found.attributes or {})
    return f"\nThe event `{found.name}` has {names}.\n\n"


def likely(_seen: Seen) -> str:
    """Return the codes under which a declared method's latency is there at zero."""
    names = ", ".join(f"`{code.name}`" for code in grpc.StatusCode if code in LIKELY_CODES)
    return f"\n{names}.\n\n"


PARTS: dict[str, Callable[[Seen], str]] = {
    "keys": keys,
    "metrics": metrics,
    "labels": all_labels,
    "likely": likely,
    "attributes": all_attributes,
    "event": event,
}


def render(seen: Seen) -> str:
    """Return the page with its tables as they are to be."""
    return _MARKED.sub(lambda found: found[1] + found[2] + PARTS[found[1]](seen), PAGE.read_text("utf-8"))
