"""What a handler logs belongs to the call that it serves; an exception that it does not catch stays inside."""

import json
from collections.abc import Iterator

import pytest

from client.lines import fields
from tests.support.process import Service
from tests.support.receiver import Receiver
from tests.system.conftest import System


@pytest.fixture(scope="module")
def talkative() -> Iterator[System]:
    """Give a system whose Service A has a handler that logs and traces."""
    with Receiver() as receiver:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with (
            Service("tests/system/talkative", **variables) as service_a,
            Service("service-b", "--service-a", service_a.address, **variables) as service_b,
        ):
            yield System(service_a, service_b, receiver)


def test_lines_and_span(talkative: System) -> None:
    """A handler's log lines, of either library, carry the call's ids, and its span is a child of the call's."""
    result = talkative.client("call-echo", "hello", "--verbose")
    trace_id = fields(result.stderr.strip())["trace_id"]
    spans = {
        span.name: span for span in talkative.receiver.wait_for(5, trace_id=trace_id) if span.service == "service-a"
    }
    first, second, call = map(fields, talkative.a.stdout.wait_for(trace_id, count=3))

    served, own = spans["echo.v1.EchoService/Echo"], spans["look up"]
    assert (served.span_id, "internal") == (own.parent_id, own.kind)
    assert ("info", "looking it up", "Ada", served.span_id) == tuple(
        first[key] for key in ("level", "event", "customer", "span_id")
    )
    assert ("warning", "not in the cache", "hello", served.span_id) == tuple(
        second[key] for key in ("level", "event", "key", "span_id")
    )
    assert ("/echo", served.span_id) == (call["endpoint"], call["span_id"])


def test_lines_and_spans_in_a_stream(talkative: System) -> None:
    """Within a stream too, each line of the handler carries the call's ids, and each span is a child of the call's."""
    result = talkative.client("chat", "--verbose", stdin="one\ntwo\n")
    trace_id = fields(result.stderr.strip())["trace_id"]
    spans = talkative.receiver.wait_for(8, trace_id=trace_id)
    lines = talkative.a.stdout.wait_for(trace_id, "one of many", count=2)

    (served,) = [span for span in spans if span.service == "service-a" and span.kind == "server"]
    own = [span for span in spans if span.name == "one of many"]
    assert [served.span_id] * 2 == [span.parent_id for span in own]
    assert [served.span_id] * 2 == [fields(line)["span_id"] for line in lines]


def test_uncaught_exception_stays_inside(talkative: System) -> None:
    """An uncaught exception reaches the caller as UNKNOWN without its text, which stands on the call's one line."""
    result = talkative.client("echo", "fail", "--verbose")
    trace_id = fields(result.stderr.strip())["trace_id"]
    (line,) = [line for line in talkative.a.stdout.wait_for(trace_id, count=3) if " endpoint=" in line]
    values = fields(line)

    assert {"service_a": "error", "error": "StatusCode.UNKNOWN: internal error"} == json.loads(result.stdout)
    assert ("UNKNOWN", "ValueError: the secret is 42", "error") == (values["code"], values["error"], values["level"])
    assert "stacktrace" == list(values)[-1]
    assert values["stacktrace"].startswith("Traceback (most recent call last):\n")
    assert values["stacktrace"].rstrip().endswith("ValueError: the secret is 42")


def test_failure_of_a_is_passed_on_without_its_text(talkative: System) -> None:
    """Through B, an uncaught exception of A's is `Service A failed`."""
    result = talkative.client("call-echo", "fail")

    assert {
        "service_b": "ok",
        "service_a": "error",
        "error": "StatusCode.UNKNOWN: Service A failed",
    } == json.loads(result.stdout)
