"""What a collector answers, and why it cannot be reached: counted, and logged once, in a line that names the reason."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it has no stubs
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

from client.lines import fields
from observability.redaction import Redactor
from observability.traces.answers import TEXT_LIMIT, Answer, Answers
from observability.traces.otlp_grpc import GrpcExporter
from tests.support import python
from tests.support.invalid_values import NEVER_SHOWN
from tests.support.process import NOWHERE, Words, sending
from tests.support.receiver import AnsweringReceiver, HttpAnswer, HttpReceiver, HungReceiver, partial_success

PROTOBUF = {"Content-Type": "application/x-protobuf"}
LOST = "spans cannot be exported and are lost"
REJECTED = "spans are rejected by the collector and are lost"
GIVEN_UP = "spans are given up at the end"


def to(endpoint: str, protocol: str, *, timeout: float = 5) -> dict[str, str]:
    """Return the variables with which spans are sent there by this protocol, grpc or http."""
    name = {"http": "http/protobuf"}.get(protocol, protocol)
    return sending(endpoint, timeout=timeout, OTEL_EXPORTER_OTLP_PROTOCOL=name)


def warnings(words: Words, event: str, count: int = 1) -> list[dict[str, str]]:
    """Wait for so many warnings of this event; return all that there are."""
    return [fields(line) for line in words.stdout.wait_for(" level=warning ", f'event="{event}"', count=count)]


def dropped(words: Words) -> str:
    """Return what /metrics says of the spans that did not arrive."""
    [line] = [line for line in words.scrape().splitlines() if line.startswith("observability_spans_dropped_total ")]
    return line.split()[1]


@contextmanager
def receivers(answer: HttpAnswer | Any, protocol: str, *, secure: bool = False) -> Iterator[Any]:
    """Give a receiver of this protocol that answers so."""
    kind: Any = HttpReceiver if protocol == "http" else AnsweringReceiver
    with kind(answer, secure=secure) as receiver:
        yield receiver


def partial(protocol: str, rejected: int, message: str) -> Any:
    """Return a partial success as the protocol has it."""
    response = partial_success(rejected, message)
    return HttpAnswer(200, response.SerializeToString(), PROTOBUF) if protocol == "http" else response


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_partial_success(protocol: str) -> None:
    """Spans that a collector rejects among those that it takes are counted as dropped; one line has its message."""
    with (
        receivers(partial(protocol, 3, "too many attributes"), protocol) as receiver,
        Words({**to(receiver.endpoint, protocol), "OTEL_BSP_SCHEDULE_DELAY": "60000"}) as w,
    ):
        w.call(count=4)
        w.stdout.wait_for(" kind=", count=8)  # a line and a span on each side
        w.send()
        [line] = warnings(w, REJECTED)
        count = dropped(w)

    assert "3.0" == count
    assert ("3", "too many attributes", receiver.endpoint) == (line["spans"], line["reason"], line["endpoint_url"])


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_warning_of_a_collector(protocol: str) -> None:
    """A message about no span in particular is logged once, and nothing is lost."""
    with (
        receivers(partial(protocol, 0, "use gzip"), protocol) as receiver,
        Words(to(receiver.endpoint, protocol)) as words,
    ):
        for _ in range(3):
            words.call()
            words.send()
        lines = warnings(words, "the collector takes spans with a warning")
        count = dropped(words)

    assert (["use gzip"], "0.0") == ([line["reason"] for line in lines], count)


def test_more_rejected_than_sent() -> None:
    """A collector that rejects more than it was sent, or less than nothing, does not spoil the count."""
    with AnsweringReceiver(partial_success(10**6, "all")) as receiver, Words(sending(receiver.endpoint)) as words:
        words.call()
        words.stdout.wait_for(" kind=", count=2)
        words.send()
        first = dropped(words)
        receiver.answer = partial_success(-5, "none")
        words.call()
        words.stdout.wait_for(" kind=", count=4)
        words.send()
        second = dropped(words)

    assert ("2.0", "2.0") == (first, second)


GRPC_REASONS: dict[str, tuple[Any, str, str]] = {
    "token expired": (
        lambda: AnsweringReceiver((grpc.StatusCode.UNAUTHENTICATED, "token expired")),
        "UNAUTHENTICATED",
        "token expired",
    ),
    "nobody": (None, "UNAVAILABLE", "Connection refused"),
    "unknown CA": (lambda: AnsweringReceiver(secure=True), "UNAVAILABLE", "CERTIFICATE_VERIFY_FAILED"),
    "TLS to plain text": (AnsweringReceiver, "UNAVAILABLE", "WRONG_VERSION_NUMBER"),
    "hung": (HungReceiver, "DEADLINE_EXCEEDED", "Deadline Exceeded"),
}


@pytest.mark.parametrize("case", GRPC_REASONS)
def test_reason_of_grpc(case: str) -> None:
    """The line that says that spans are lost names gRPC's code and reason."""
    start, code, reason = GRPC_REASONS[case]
    with ExitStack() as stack:
        endpoint = stack.enter_context(start()).endpoint if start else NOWHERE
        if case == "TLS to plain text":
            endpoint = endpoint.replace("http:", "https:")
        words = stack.enter_context(Words(sending(endpoint, timeout=0.5)))
        words.call()
        [line] = warnings(words, LOST)

    assert (code, endpoint) == (line["code"], line["endpoint_url"])
    assert reason in line["reason"]


HTTP_REASONS: dict[str, tuple[Any, str, str]] = {
    "text": (
        HttpAnswer(401, b"token\nexpired\n", {"Content-Type": "text/plain"}),
        "401",
        "Unauthorized: token expired",
    ),
    "status": (
        HttpAnswer(403, Status(code=7, message="no such tenant").SerializeToString(), PROTOBUF),
        "403",
        "Forbidden: no such tenant",
    ),
    "no protobuf": (HttpAnswer(400, b"\xff", PROTOBUF), "400", "Bad Request"),
    "page": (HttpAnswer(404, b"<html>", {"Content-Type": "text/html"}), "404", "Not Found"),
    "elsewhere": (HttpAnswer(304), "304", "Not Modified"),
    "nobody": (None, "ConnectionError", "Connection refused"),
    "hung": (HttpAnswer(seconds=2), "ReadTimeout", "timed out"),
    "unknown CA": (HttpAnswer(), "SSLError", "CERTIFICATE_VERIFY_FAILED"),
}


@pytest.mark.parametrize("case", HTTP_REASONS)
def test_reason_of_http(case: str) -> None:
    """With http/protobuf it names the status, or the exception, and the collector's words where they can be read."""
    answer, code, reason = HTTP_REASONS[case]
    with ExitStack() as stack:
        endpoint = NOWHERE
        if answer is not None:
            endpoint = stack.enter_context(HttpReceiver(answer, secure=case == "unknown CA")).endpoint
        words = stack.enter_context(Words(to(endpoint, "http", timeout=0.5)))
        words.call()
        [line] = warnings(words, LOST)

    assert (code, endpoint) == (line["code"], line["endpoint_url"])
    assert reason in line["reason"]


def test_answer_of_http_that_is_no_protobuf() -> None:
    """A collector that took the spans, and answered something that cannot be parsed, has taken them."""
    with (
        HttpReceiver(HttpAnswer(200, b"\xff", PROTOBUF)) as receiver,
        Words(to(receiver.endpoint, "http")) as words,
    ):
        words.call()
        words.send()
        count = dropped(words)
        lines = words.stdout.lines(" level=warning ")

    assert ("0.0", []) == (count, lines)


def test_another_reason() -> None:
    """A changed reason is logged too; the same one again, in another batch, is not."""
    with (
        AnsweringReceiver((grpc.StatusCode.UNAUTHENTICATED, "token 1 expired")) as receiver,
        Words(sending(receiver.endpoint)) as words,
    ):
        for number in (1, 2, 3):
            receiver.answer = (grpc.StatusCode.UNAUTHENTICATED, f"token {number} expired")
            words.call()
            words.send()
        receiver.answer = (grpc.StatusCode.PERMISSION_DENIED, "not yours")
        words.call()
        words.send()
        lines = warnings(words, LOST, count=2)
        receiver.answer = partial_success(0, "")
        words.call()
        again = words.stdout.wait_for("spans are exported again")

    assert [("UNAUTHENTICATED", "token 1 expired"), ("PERMISSION_DENIED", "not yours")] == [
        (line["code"], line["reason"]) for line in lines
    ]
    assert 1 == len(again)


SECRETS: dict[str, Mapping[str, str]] = {
    "header": {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{NEVER_SHOWN}"},
    "user information": {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://user:{NEVER_SHOWN}@HOST"},
    "header of another spelling": {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": f"API-Key = {NEVER_SHOWN}"},
    "query": {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://HOST/?key={NEVER_SHOWN}"},
}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("case", SECRETS)
def test_secrets_that_are_used(protocol: str, case: str) -> None:
    """A header, and the user information of an endpoint, are in no line, not even where the collector repeats them."""
    # What is not sent, the collector cannot repeat.
    is_sent = case != "query" and (case, protocol) != ("user information", "grpc")
    text = f"no access with {NEVER_SHOWN if is_sent else 'that'}"
    answer: Any = (grpc.StatusCode.UNAUTHENTICATED, text)
    if protocol == "http":
        answer = HttpAnswer(401, text.encode(), {"Content-Type": "text/plain"})
    with receivers(answer, protocol) as receiver:
        host = f"127.0.0.1:{receiver.port}"
        given = {name: value.replace("HOST", host) for name, value in SECRETS[case].items()}
        # At DEBUG urllib3 shows a query by itself.
        level = {"LOG_LEVEL": "info" if case == "query" else "debug"}
        variables = {**to(receiver.endpoint, protocol), **given, **level}
        with Words(variables) as words:
            words.call()
            [line] = warnings(words, LOST)
            words.close()
            words.end()
            said = [*words.stdout.wait_for_end(), *words.stderr.wait_for_end()]

    assert [] == [line for line in said if NEVER_SHOWN in line]
    assert line["endpoint_url"].startswith(f"http://{host}")


def test_user_information_with_grpc() -> None:
    """OTLP/gRPC sends no user information: one warning says so, without it, and the spans arrive."""
    with AnsweringReceiver() as receiver:
        endpoint = f"http://user:{NEVER_SHOWN}@127.0.0.1:{receiver.port}"
        with Words(sending(endpoint)) as words:
            words.call()
            words.close()
            lines = words.stdout.lines(" level=warning ")

    assert 2 == len(receiver.spans())
    assert ["OTEL_EXPORTER_OTLP_ENDPOINT has user information, which OTLP/gRPC does not send: it is left out"] == [
        fields(line)["event"] for line in lines
    ]


@pytest.mark.parametrize("headers", ["key-bin=abc", "key=%0A", "k!y=abc", "key=%C3%BC"])
def test_headers_that_grpc_cannot_send(headers: str) -> None:
    """A header that gRPC would refuse with every export is one warning, and left out; http/protobuf may send it."""
    with (
        AnsweringReceiver() as receiver,
        Words(sending(receiver.endpoint, OTEL_EXPORTER_OTLP_HEADERS=f"{headers},other={NEVER_SHOWN}")) as words,
    ):
        words.call()
        words.close()
        [line] = [fields(line) for line in words.stdout.lines(" level=warning ")]

    assert (
        "OTEL_EXPORTER_OTLP_HEADERS=*** is not a list of key=value that gRPC can send: the default is used instead"
        == line["event"]
    )
    assert 2 == len(receiver.spans())


@pytest.mark.parametrize("case", ["nobody", "refused", "hung", "http"])
def test_given_up_at_the_end(case: str) -> None:
    """What has not arrived when telemetry is closed is one line, with its number and the last reason."""
    with ExitStack() as stack:
        endpoint, protocol = NOWHERE, "http" if case == "http" else "grpc"
        if case == "refused":
            answer = (grpc.StatusCode.UNAUTHENTICATED, "token expired")
            endpoint = stack.enter_context(AnsweringReceiver(answer)).endpoint
        elif case == "hung":
            endpoint = stack.enter_context(HungReceiver()).endpoint
        variables = {**to(endpoint, protocol, timeout=10), "OTEL_BSP_SCHEDULE_DELAY": "60000"}
        words = stack.enter_context(Words(variables, flush_seconds=0.5 if case == "hung" else 3))
        words.call(count=5)
        words.close()
        words.end()
        lines = [fields(line) for line in words.stdout.wait_for_end() if " level=warning " in line]

    code = {"nobody": "UNAVAILABLE", "refused": "UNAUTHENTICATED", "http": "ConnectionError"}.get(case)
    assert [(GIVEN_UP, "10", code)] == [(line["event"], line["spans"], line.get("code")) for line in lines]


def test_nothing_given_up() -> None:
    """Where all spans arrive, nothing is logged at the end, nor when telemetry is closed again."""
    with AnsweringReceiver() as receiver, Words(sending(receiver.endpoint)) as words:
        words.call()
        words.close()
        words.close()
        words.end()
        lines = [line for line in words.stdout.wait_for_end() if " level=warning " in line]

    assert (2, []) == (len(receiver.spans()), lines)


FORKED = """
import logging, os
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from observability.traces.provider import CountingProcessor, SpanDelivery

def give_up(count):
    for number in range(count):
        provider.get_tracer("app").start_span("one").end()
    processor.begin_end()
    processor.end()

logging.basicConfig(format="%(process)d %(message)s %(spans)d")
processor = CountingProcessor(SpanDelivery(SpanExporter(), ""), 100, 100)
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(processor)
for number in range(3):
    provider.get_tracer("app").start_span("parent's").end()
child = os.fork()
if not child:
    give_up(1)
    os._exit(0)
os.waitpid(child, 0)
give_up(0)
os._exit(0)
"""


def test_child_leaves_the_parents_spans_alone() -> None:
    """A child that was forked while spans wait gives up its own spans alone, and the parent all of the parent's."""
    ended = python.run("-c", python.NO_WARNINGS + FORKED)
    lines = ended.stderr.splitlines()

    assert 0 == ended.returncode
    assert [f"{GIVEN_UP} 1", f"{GIVEN_UP} 3"] == [line.partition(" ")[2] for line in lines]


def test_exporter_keeps_its_stub_there() -> None:
    """OpenTelemetry's gRPC exporter keeps its stub where ours looks; in a version that does not, no reason shows."""
    assert "_client" in vars(OTLPSpanExporter())
    exporter = GrpcExporter(Answers(), direct=True)
    assert exporter._client is None  # until it sends
    exporter._process = os.getpid()
    exporter._initialize_channel_and_stub()
    assert exporter._client is not None


def test_long_answer() -> None:
    """An answer's text is kept on one line, and within bounds."""
    assert "a b" == Answer("OK", "a\n\tb ").reason()
    assert TEXT_LIMIT == len(Answer("OK", "x" * 1000).reason())


def test_secret_at_the_end_of_a_long_answer() -> None:
    """A secret that a bound would cut in two is left out first."""
    text = f"{'x' * (TEXT_LIMIT - 4)} {NEVER_SHOWN} and more"

    assert NEVER_SHOWN[:2] not in Answer("OK", text).reason(Redactor([NEVER_SHOWN]))
