"""What a handler adds to its call: to its log line and its span, at once."""

import logging
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import Span
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from client.lines import fields
from observability import Call, ServerInterceptor, current_call
from observability.logs import observer as logs
from observability.logs import render as rendering
from observability.logs.render import render_json, render_keyvalue
from tests.support.handlers import KINDS, Kind
from tests.support.recorder import Recorder
from tests.support.rpc import method, serving


def here() -> Call:
    """Return the call being served."""
    call = current_call()
    assert call is not None
    return call


def served(recorder: Recorder, step: Callable[[], object]) -> dict[str, Any]:
    """Serve one unary call whose handler takes this step; return its line's fields."""

    def behavior(request: bytes, _context: grpc.ServicerContext) -> bytes:
        step()
        return request

    with serving(ServerInterceptor(*recorder.observers), unary=behavior) as address:
        with grpc.insecure_channel(address) as channel:
            method(channel, "unary")(b"a")
        recorder.wait_for()
    return recorder.lines[0]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_line_and_span(kind: Kind) -> None:
    """A field that a handler of any kind adds stands on its line, and at once on its span."""
    server = Recorder()
    seen: list[Any] = []

    def step() -> None:
        here().annotate(tenant="acme corp", cups=2)
        span = trace.get_current_span()
        assert isinstance(span, Span)
        seen.append((span.attributes or {}).get("tenant"))

    kind.serve_once(step, server.observers)
    server.wait_for()

    assert {"acme corp"} == set(seen)
    assert ("acme corp", 2) == (server.lines[0]["tenant"], server.lines[0]["cups"])
    attributes = server.spans[0].attributes or {}
    assert ("acme corp", 2) == (attributes["tenant"], attributes["cups"])


def test_fields_come_after_the_ids_in_the_order_they_were_added() -> None:
    """Added fields follow the line's own keys; a later value of a field replaces the earlier one in its place."""

    def step() -> None:
        here().annotate(one=1, two=2)
        here().annotate(three=3, one="first")

    line = served(Recorder(), step)

    keys = [key for key in line if key not in ("event", "called")]
    assert ["span_id", "one", "two", "three"] == keys[-4:]
    assert "first" == line["one"]


def test_a_list_or_dict_is_as_it_was_when_it_was_added() -> None:
    """What a handler does to a list or a dict afterwards, before its call is reported, changes nothing."""

    def step() -> None:
        cups, sizes = [1], {"big": 2}
        here().annotate(cups=cups, sizes=sizes)
        cups.append(2)
        sizes.clear()

    line = served(Recorder(), step)

    assert ([1], {"big": 2}) == (line["cups"], line["sizes"])


@pytest.mark.parametrize("key", sorted(rendering.LINE_KEYS))
def test_key_of_the_line_is_ignored(key: str) -> None:
    """A field under a key of the line's own does not touch the line."""
    line = served(Recorder(), lambda: here().annotate(**{key: "forged", "mine": 1}))

    assert "forged" not in line.values()
    assert 1 == line["mine"]


@pytest.mark.parametrize("key", ["trace id", "trace\nid", "span=id"])
def test_key_that_would_be_written_like_one_of_the_lines_is_ignored(key: str) -> None:
    """A field that would be written like such a key does not touch the line either."""
    line = served(Recorder(), lambda: here().annotate(**{key: "forged"}))

    assert "forged" not in line.values()


def test_ignored_key_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """A key that is ignored is reported once, however many calls add it."""
    logs._reserved_keys.discard("peer")
    for _ in range(2):
        served(Recorder(), lambda: here().annotate(peer="forged"))

    assert ["field 'peer' is a call line's own and is ignored"] == [
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
    ]


def test_ignored_keys_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """A key that is ignored is reported once, in however many ways it can be written."""
    logs._reserved_keys.discard("trace_id")
    for key in ("trace id", "trace\nid", "trace/id"):
        served(Recorder(), lambda key=key: here().annotate(**{key: "forged"}))  # type: ignore[misc]  # a default

    assert 1 == len([record for record in caplog.records if record.levelno == logging.WARNING])
    assert logs._reserved_keys <= rendering.LINE_KEYS


def test_hostile_field_does_not_forge_the_line() -> None:
    """A field's name and value, both a caller's text, stay one field."""
    text = '\n2026-02-04 10:00:00,000 service=B" code=OK \u2028\x1b[2J'
    line = served(Recorder(), lambda: here().annotate(**{text: text, "last": "z"}))
    line = {key: value for key, value in line.items() if key not in ("event", "called")}

    assert [text, "z"] == list(fields(render_keyvalue(line)).values())[-2:]
    assert 1 == len(render_json(line).splitlines())


class Broken:
    """Cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        (2.5, 2.5),
        (True, True),
        (None, "None"),
        ([1, "a"], "[1, 'a']"),
        ({"a": 1}, "{'a': 1}"),
        (Broken(), "<unprintable Broken>"),
    ],
)
def test_any_value(value: object, expected: object) -> None:
    """A value of any type is a field; what no span attribute can hold is its text there."""
    server = Recorder()

    line = served(server, lambda: here().annotate(value=value))

    assert value == line["value"]
    assert expected == (server.spans[0].attributes or {})["value"]


def test_unsampled_call_has_its_fields() -> None:
    """A call that is not sampled has its fields on its line."""
    assert "acme" == served(Recorder(sampler=ALWAYS_OFF), lambda: here().annotate(tenant="acme"))["tenant"]


def test_annotation_after_the_end_changes_nothing() -> None:
    """A handler that outlives its call may still annotate it, to no effect and without an error."""
    server = Recorder()
    line = dict(served(server, lambda: None))

    server.calls[0].annotate(late=True)

    assert line == server.lines[0]
    assert "late" not in (server.spans[0].attributes or {})
