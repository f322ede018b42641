"""The code of docs/migrating.md runs, and what the page says of names is true."""

import functools
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import python

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "migrating.md").read_text()
BLOCKS = re.findall(r"```python (before|after) (\S+)\n(.*?)```", PAGE, re.DOTALL)
PROMETHEUS, OPENTELEMETRY = "py-grpc-prometheus", "opentelemetry-instrumentation-grpc"
METHODS = ("Echo", "EchoRepeat", "EchoJoin", "EchoChat")

# What a reader has around the page's code: a tracer provider, a pool, an address, a service, and calls.
AROUND = """
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import prometheus_client
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from protos import echo_pb2, echo_pb2_grpc

started = threading.Event()
exporter = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))


class Echo(echo_pb2_grpc.EchoServiceServicer):
    def Echo(self, request, context):
        if not request.msg:
            context.abort(grpc.StatusCode.NOT_FOUND, "nothing")
        if request.msg == "wait":  # until the call is cut off
            over = threading.Event()
            context.add_callback(over.set)
            started.set()
            over.wait(10)
        return echo_pb2.EchoResponse(echo=request.msg)

    def EchoRepeat(self, request, context):
        yield from [echo_pb2.EchoResponse(echo=request.msg)] * request.times

    def EchoJoin(self, requests, context):
        return echo_pb2.EchoResponse(echo=" ".join(request.msg for request in requests))

    def EchoChat(self, requests, context):
        yield from (echo_pb2.EchoResponse(echo=request.msg) for request in requests)


pool = ThreadPoolExecutor(2)
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{probe.getsockname()[1]}"
{code}
echo_pb2_grpc.add_EchoServiceServicer_to_server(Echo(), server)
server.add_insecure_port(address)
server.start()
stub, request = echo_pb2_grpc.EchoServiceStub(channel), echo_pb2.EchoRequest(msg="moved")
answers = [
    stub.Echo(request).echo,
    *(answer.echo for answer in stub.EchoRepeat(echo_pb2.EchoRepeatRequest(msg="moved", times=2))),
    stub.EchoJoin(iter([request] * 2)).echo,
    *(answer.echo for answer in stub.EchoChat(iter([request] * 2))),
]

for failing in (
    lambda: stub.Echo(echo_pb2.EchoRequest()),
    lambda: stub.Echo(echo_pb2.EchoRequest(msg="wait"), timeout=0.3),
    lambda: channel.unary_unary("/echo.v1.EchoService/Nothing")(b""),
):
    try:
        failing()
    except grpc.RpcError as error:
        answers.append(error.code().name)
started.clear()
# Through a separate channel: py-grpc-prometheus lets no call go on before its end.
call = echo_pb2_grpc.EchoServiceStub(grpc.insecure_channel(address)).Echo.future(echo_pb2.EchoRequest(msg="wait"))
cancelled = threading.Event()
call.add_done_callback(lambda _call: cancelled.set())
started.wait(10)
call.cancel()
cancelled.wait(10)
server.stop(10).wait()
pool.shutdown()
metrics = prometheus_client.generate_latest().decode()
spans = [json.loads(span.to_json()) for span in exporter.get_finished_spans()]
print(json.dumps({"answers": answers, "metrics": metrics, "spans": spans}))
"""


@dataclass(frozen=True, slots=True)
class Reports:
    """What a block of the page reports of its calls, and what the calls got."""

    answers: list[str]
    metrics: str
    spans: list[Any]

    def value(self, metric: str, method: str) -> float:
        """Return the sum of a metric's series of a method."""
        found = re.findall(rf'\{{.*grpc_method="{method}".*\}} (\S+)', self.series(metric))
        return sum(map(float, found))

    def series(self, metric: str) -> str:
        """Return the lines of a metric."""
        return "\n".join(line for line in self.metrics.splitlines() if line.startswith(f"{metric}{{"))

    def codes(self) -> dict[str, int]:
        """Return how many calls the server handled with each code, but for the codes that none had."""
        found = re.findall(r'grpc_code="(\w+)".*\} (\S+)', self.series("grpc_server_handled_total"))
        counts: Counter[str] = Counter()
        for code, value in found:
            counts[code] += int(float(value))
        return dict(+counts)

    def values(self, label: str, method: str) -> set[str]:
        """Return the values of a label that a method's series have."""
        return set(re.findall(rf'\{{.*grpc_method="{method}".*{label}="(\w+)"', self.metrics))

    def of_spans(self, attribute: str) -> set[Any]:
        """Return the values of an attribute that the spans have."""
        return {span["attributes"].get(attribute) for span in self.spans}


@functools.cache
def run(code: str) -> Reports:
    """Run a block of the page with what a reader has around it."""
    program = AROUND.replace("{code}", code.replace("metrics_port=9464", "metrics_port=0"))
    ended = python.run("-c", program, variables={"LOG_LEVEL": "critical"})
    assert 0 == ended.returncode, ended.stderr
    return Reports(**json.loads(ended.stdout.splitlines()[-1]))


def blocks(kind: str, origin: str) -> list[Reports]:
    """Run the page's blocks of a kind, for those who come from there."""
    return [run(code) for each, peer, code in BLOCKS if (each, peer) == (kind, origin)]


def rows(head: str) -> Iterator[list[str]]:
    """Yield the rows of the page's table that begins so, as cells."""
    for row in PAGE.split(f"\n{head}")[1].split("\n\n")[0].splitlines()[2:]:
        yield [cell.strip() for cell in row.split("|")[1:-1]]


def attributes(column: int) -> set[str]:
    """Return the names of attributes in a column of the table of attributes."""
    cells = " ".join(cells[column] for cells in rows("| Attribute |"))
    return set(re.findall(r"`((?:rpc|net|network|error|server)\.[\w.]+)`", cells))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block[1]}-{block[0]}")
def test_the_code_runs(block: tuple[str, str, str]) -> None:
    """
    Each block of code on the page, before and after, makes a server and a channel between which every call works.
    """
    answers = ["moved", *["moved"] * 2, "moved moved", *["moved"] * 2]
    failures = ["NOT_FOUND", "DEADLINE_EXCEEDED", "UNIMPLEMENTED"]

    assert answers + failures == run(block[2]).answers


def test_the_metrics_keep_their_names() -> None:
    """
    What py-grpc-prometheus counts stands under the same name here, but for what the page says is not there.
    """
    [before], afters = blocks("before", PROMETHEUS), blocks("after", PROMETHEUS)
    names = [set(re.findall(r"# TYPE (grpc_\w+)", reports.metrics)) for reports in (before, *afters)]
    created = {name for name in names[0] if name.endswith("_created")}

    for after in names[1:]:
        assert set() == {name for name in names[0] - after - created if f"`{name}`" not in PAGE}


@pytest.mark.parametrize("method", METHODS)
def test_the_values_of_grpc_type_are_listed(method: str) -> None:
    """
    The old and the new value of grpc_type, of each kind of call, stand in the page's table in the same place.
    """
    [before], afters = blocks("before", PROMETHEUS), blocks("after", PROMETHEUS)
    [_, old, new] = next(cells for cells in rows("| | py-grpc") if cells[0] == "`grpc_type`")
    renamed = dict(zip(re.findall(r"`(\w+)`", old), re.findall(r"`(\w+)`", new), strict=True))
    [was] = before.values("grpc_type", method)

    assert [{renamed[was]}] * 2 == [after.values("grpc_type", method) for after in afters]


@pytest.mark.parametrize("method", METHODS)
def test_relabeling_gives_the_old_values(method: str) -> None:
    """
    What the page says to relabel gives each kind of call the old value of grpc_type.
    """
    rules = dict(re.findall(r"source_labels: \[grpc_type\], regex: (\w+), .* replacement: (\w+) \}", PAGE))
    [before], [after, _] = blocks("before", PROMETHEUS), blocks("after", PROMETHEUS)

    assert before.values("grpc_type", method) == {rules[value] for value in after.values("grpc_type", method)}


def test_histograms_gain_a_label() -> None:
    """
    The handling histograms have grpc_code here, and had not.
    """
    [before], afters = blocks("before", PROMETHEUS), blocks("after", PROMETHEUS)
    was, *are = ["grpc_code=" in reports.series("grpc_server_handling_seconds_count") for reports in (before, *afters)]

    assert not was
    assert [True] * 2 == are


@pytest.mark.parametrize(
    ("metric", "counted"),
    [
        ("grpc_server_started_total", {"Echo", "EchoRepeat"}),
        ("grpc_server_handled_total", {"Echo", "EchoJoin"}),
        ("grpc_server_handling_seconds_count", {"Echo", "EchoJoin"}),
        ("grpc_client_started_total", {"Echo", "EchoRepeat", "EchoJoin"}),
        ("grpc_client_handled_total", {"Echo"}),
    ],
)
def test_calls_with_streams(metric: str, counted: set[str]) -> None:
    """
    Calls with streams, of which py-grpc-prometheus leaves out those that the page says, are all counted here.
    """
    [before], afters = blocks("before", PROMETHEUS), blocks("after", PROMETHEUS)
    streams = {"EchoRepeat": 1, "EchoJoin": 1, "EchoChat": 1}

    assert counted == {method for method in METHODS if before.value(metric, method)}
    assert [streams] * 2 == [{method: after.value(metric, method) for method in streams} for after in afters]


def test_codes_of_calls_that_are_cut_off() -> None:
    """
    A missed deadline, a cancelled call and an unknown method had the codes that the page says, and have.
    """
    [before], afters = blocks("before", PROMETHEUS), blocks("after", PROMETHEUS)
    [_, old, new] = next(cells for cells in rows("| | py-grpc") if "a missed deadline, a cancelled call" in cells[0])
    others = {"OK": 4, "NOT_FOUND": 1}

    assert "CANCELLED, CANCELLED, not counted" == old
    assert {"OK": 2, "NOT_FOUND": 1, "CANCELLED": 2} == before.codes()
    for after in afters:
        assert others | dict.fromkeys(re.findall(r"[A-Z_]+", new), 1) == after.codes()


@pytest.mark.parametrize(("method", "was", "is_"), [("Echo", 0, 4), ("EchoRepeat", 0, 1), ("EchoJoin", 2, 2)])
def test_messages(method: str, was: int, is_: int) -> None:
    """
    A message that is alone in its direction was not counted, and is.
    """
    [before], afters = blocks("before", PROMETHEUS), blocks("after", PROMETHEUS)

    assert was == before.value("grpc_server_msg_received_total", method)
    assert [is_] * 2 == [after.value("grpc_server_msg_received_total", method) for after in afters]


@pytest.mark.parametrize(("kind", "column"), [("before", 1), ("after", 2)])
def test_attributes(kind: str, column: int) -> None:
    """
    The attributes that spans have are those of the page's table, before and after.
    """
    for reports in blocks(kind, OPENTELEMETRY):
        assert 15 == len(reports.spans)
        assert attributes(column) == {name for span in reports.spans for name in span["attributes"]}


def test_values_of_attributes() -> None:
    """
    The values that the page's table gives to attributes are those that spans have.
    """
    for column, kind, count in ((1, "before", 3), (2, "after", 4)):
        examples = re.findall(r"`([\w.]+)` = `?([\w./]+)`?", " ".join(cells[column] for cells in rows("| Attribute |")))
        assert count == len(examples)
        for reports in blocks(kind, OPENTELEMETRY):
            assert [] == [
                (name, value) for name, value in examples if value not in {str(each) for each in reports.of_spans(name)}
            ]


def test_names_of_spans() -> None:
    """
    A span's name, before and after, is the one in the page's table.
    """
    [[_, was, is_]] = [cells for cells in rows("| Attribute |") if cells[0] == "the span's name"]

    for kind, name in (("before", was), ("after", is_)):
        for reports in blocks(kind, OPENTELEMETRY):
            assert name.strip("`") in {span["name"] for span in reports.spans}
