"""Recorded telemetry, for the tests of those who use the package: complete without waiting, and nothing global."""

import logging
import os
from typing import Any

import grpc
import pytest
import structlog
from opentelemetry import trace
from opentelemetry.trace import format_span_id

from observability import Call, Outcome, current_call
from observability.testing import RecordedTelemetry
from tests.support.rpc import ARITIES, SERVICE, as_asked, connected, method, talk

STACKS = pytest.mark.parametrize("stack", ["sync", "aio"])


@STACKS
@pytest.mark.parametrize("arity", ARITIES)
def test_both_sides_are_there_at_once(stack: str, arity: str) -> None:
    """When a call has its answer, the line, the counts and the span of both sides are there to be looked at."""
    with RecordedTelemetry() as recorded:
        telemetry = recorded.telemetry
        sync = stack == "sync"
        server: list[Any] = telemetry.server_interceptors() if sync else telemetry.aio_server_interceptors()
        # A sync channel with interceptors is made by intercept_channel alone; this one is an asyncio one.
        client: list[Any] = [] if sync else telemetry.aio_client_interceptors()
        talk(stack, arity, server=server, client=client)
        sides = {"server"} if sync else {"server", "client"}

        assert sides == {line["kind"] for line in recorded.lines(code="OK", service="test")}
        assert sides == {span.kind.name.lower() for span in recorded.spans()}
        assert dict.fromkeys(sides, 1) == {
            side: recorded.total(f"grpc_{side}_handled_total", grpc_code="OK", grpc_type=arity) for side in sides
        }


def test_calls_of_a_channel() -> None:
    """A sync channel's calls are recorded, with the ids of their spans, and those of others separately."""
    with (
        RecordedTelemetry("one") as one,
        RecordedTelemetry("other") as other,
        connected(*one.telemetry.server_interceptors(), unary=as_asked) as channel,
    ):
        observed = other.telemetry.intercept_channel(channel, target="shop:1")
        method(observed, "unary").future(b"NOT_FOUND", timeout=10).exception()

        [served], [called] = one.lines(), other.lines()
        [span] = other.spans()

    assert ("one", "server", "NOT_FOUND") == (served["service"], served["kind"], served["code"])
    assert ("other", "client", "NOT_FOUND") == (called["service"], called["kind"], called["code"])
    assert format_span_id(span.context.span_id) == called["span_id"]
    assert "other" == span.resource.attributes["service.name"]
    assert served["trace_id"] == called["trace_id"]
    assert {"grpc_server_handled_total": 1, "grpc_client_handled_total": 0} == {
        name: one.total(name) for name in ("grpc_server_handled_total", "grpc_client_handled_total")
    }


def test_calls_that_go_on() -> None:
    """A call that goes on is waited for, unless the test says that it does."""
    with RecordedTelemetry(seconds=0.05) as recorded:

        def behavior(requests: Any, _context: grpc.ServicerContext) -> Any:
            yield from requests

        with connected(*recorded.telemetry.server_interceptors(), bidi_stream=behavior) as channel:
            call = method(channel, "bidi_stream")(iter(lambda: b"again", b""), timeout=10)
            next(call)
            with pytest.raises(TimeoutError, match=rf"1 calls go on after 0.05 s, not 0: server {SERVICE}/BidiStream"):
                recorded.lines()

            assert [] == recorded.lines(going_on=1)
            assert [] == recorded.spans(going_on=1)
            assert 1 == recorded.total("grpc_server_in_flight", going_on=1)
            call.cancel()


def test_own_observers_fields_and_parts() -> None:
    """Observers of one's own, fields, and the application's own metrics and spans are part of it."""
    outcomes: list[Outcome] = []

    def observer(_call: Call) -> Any:
        return outcomes.append

    def behavior(request: bytes, _context: grpc.ServicerContext) -> bytes:
        call = current_call()
        assert call is not None
        call.annotate(tenant="acme")
        with recorded.tracer_provider.get_tracer("app").start_as_current_span("work"):
            return request

    with (
        RecordedTelemetry(observers=[observer]) as recorded,
        connected(*recorded.telemetry.server_interceptors(), unary=behavior) as channel,
    ):
        method(channel, "unary")(b"", timeout=10)

        assert ["acme"] == [line["tenant"] for line in recorded.lines(tenant="acme")]
        assert [] == recorded.lines(tenant="other")
        assert ["work", f"{SERVICE}/Unary"] == [span.name for span in recorded.spans()]

    assert [grpc.StatusCode.OK] == [outcome.code for outcome in outcomes]


def test_nothing_global(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of ours is read, and nothing of the process is changed."""
    monkeypatch.setitem(os.environ, "LOG_FORMAT", "nonsense")
    monkeypatch.setitem(os.environ, "OBSERVABILITY_LOG_CALLS", "nonsense")
    monkeypatch.setitem(os.environ, "OTEL_TRACES_SAMPLER", "always_off")
    before = (trace.get_tracer_provider(), structlog.get_config(), logging.getLogger().handlers[:])
    with (
        RecordedTelemetry() as recorded,
        connected(*recorded.telemetry.server_interceptors(), unary=as_asked) as channel,
    ):
        method(channel, "unary")(b"OK", timeout=10)

        assert 1 == len(recorded.lines()) == len(recorded.spans())
        assert recorded.telemetry.metrics_address is None

    assert before == (trace.get_tracer_provider(), structlog.get_config(), logging.getLogger().handlers[:])
