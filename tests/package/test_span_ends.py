"""A call's span ends when the call ends for its caller: others depend on that order."""

import json
import re
from typing import Any

from tests.support import python


def run(scenario: str, **variables: str) -> tuple[Any, str]:
    """Run a scenario of the program; return what it saw, and what it wrote to stderr."""
    variables = {"OTEL_TRACES_EXPORTER": "none", "GRPC_VERBOSITY": "NONE", **variables}
    ended = python.run("-m", "tests.support.programs.span_ends", scenario, variables=variables)
    assert 0 == ended.returncode, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1]), ended.stderr


def test_client_span_ends_before_the_span_around_the_call() -> None:
    """Whatever way a call is made, its span ends before the one of the work that made it."""
    seen, _ = run("order")

    assert 16 == len(seen)
    assert {name: ["CLIENT", "INTERNAL"] for name in seen} == seen


def test_forced_flush_has_the_span_of_the_call_before() -> None:
    """An application that flushes its provider after a call has sent the call's span, every time."""
    there, _ = run("flushed")

    assert 50 == there


def test_console_has_the_span_when_the_call_returns() -> None:
    """With OTEL_TRACES_EXPORTER=console, a call's span is printed before its caller goes on."""
    _, printed = run("console", OTEL_TRACES_EXPORTER="console")

    found = [kind or mark for kind, mark in re.findall(r"SpanKind\.(CLIENT)|^(called)", printed, re.MULTILINE)]
    assert ["CLIENT", "called"] * 3 == found


def test_server_span_ends_where_grpc_ends_the_call() -> None:
    """A server's span ends in grpc's own thread or in the event loop's, never in one that reports later."""
    threads, _ = run("served")

    assert [] == [name for name in threads if name.startswith("observability")]


def test_sentry_has_the_calls_in_its_transaction() -> None:
    """Sentry's span processor finds every call in the transaction that made it."""
    spans, _ = run("sentry")

    assert ["ClientStream"] * 3 + ["Unary"] * 3 == sorted(
        name.rpartition("/")[2] for name in spans if name.endswith(("/ClientStream", "/Unary"))
    )
    assert 8 == len(spans)
