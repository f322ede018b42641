"""The application's own log lines and spans, and the call they belong to."""

import io
import logging
from typing import Any

import pytest
import structlog

from client.lines import fields
from observability import current_call
from observability.logs.setup import LineHandler, configure_logging
from tests.package.conftest import Log
from tests.support.handlers import KINDS, Kind
from tests.support.recorder import Recorder

IDS = ("trace_id", "span_id")


def ids(line: dict[str, Any]) -> tuple[Any, ...]:
    """Return the ids of a line."""
    return tuple(line.get(key) for key in IDS)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_lines_carry_the_calls_ids(log: Log, kind: Kind) -> None:
    """Within a handler of any kind, at each of its steps, both structlog's and logging's lines carry the call's ids."""
    server = Recorder()

    def step() -> None:
        structlog.get_logger().info("step", by="structlog")
        logging.getLogger("app").info("step", extra={"by": "logging"})

    kind.serve_once(step, server.observers)
    server.wait_for()

    [call] = server.lines
    lines = log.lines(event="step")
    assert {"structlog", "logging"} == {line["by"] for line in lines}
    assert {ids(call)} == {ids(line) for line in lines}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_spans_are_children_of_the_calls(kind: Kind) -> None:
    """A span that the application starts within a handler of any kind is a child of the call's."""
    server = Recorder()
    tracer = server.provider.get_tracer("app")

    def step() -> None:
        with tracer.start_as_current_span("step"):
            pass

    kind.serve_once(step, server.observers)
    server.wait_for()

    [call] = [span for span in server.spans if span.name != "step"]
    parents = {span.parent and span.parent.span_id for span in server.spans if span.name == "step"}
    assert {call.context.span_id} == parents
    assert {call.context.trace_id} == {span.context.trace_id for span in server.spans}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_current_call_is_the_call(kind: Kind) -> None:
    """Within a handler of any kind current_call() is the call being served."""
    server = Recorder()
    seen: list[Any] = []

    kind.serve_once(lambda: seen.append(current_call()), server.observers)

    assert set(server.calls) == set(seen)


def test_no_call_outside_a_handler(log: Log) -> None:
    """Outside a handler there is no call, and a line has no ids."""
    structlog.get_logger().info("outside")

    assert current_call() is None
    assert [(None, None)] == [ids(line) for line in log.lines(event="outside")]


def test_line_within_an_application_span(log: Log) -> None:
    """Outside a handler, a line within a span carries that span's ids."""
    tracer = Recorder().provider.get_tracer("app")
    with tracer.start_as_current_span("job") as span:
        structlog.get_logger().info("inside")

    context = span.get_span_context()
    assert [(f"{context.trace_id:032x}", f"{context.span_id:016x}")] == [ids(line) for line in log.lines()]


def test_order_of_a_line(log: Log) -> None:
    """A line is service, level and event, then its own fields in their order."""
    structlog.get_logger().warning("tea is ready", cups=2, kind="green")

    assert log.text[24:] == 'service=A level=warning event="tea is ready" cups=2 kind=green\n'


def test_line_of_logging(log: Log) -> None:
    """A line of logging names its logger, and what is passed as extra becomes fields."""
    logging.getLogger("shop.tea").warning("%d cups", 2, extra={"kind": "green"})

    assert log.text[24:] == 'service=A level=warning event="2 cups" logger=shop.tea kind=green\n'


def test_own_fields_cannot_take_the_lines_place(log: Log) -> None:
    """A field called service, level, event or like an id does not replace or repeat the line's own."""
    logging.getLogger("app").info("true", extra={"service": "B", "level": "fatal", "event": "false"})

    assert log.text.count("service=") == log.text.count("level=") == log.text.count("event=") == 1
    assert [{"service": "A", "level": "info", "event": "true", "logger": "app"}] == log.lines()


def test_bound_and_context_fields(log: Log) -> None:
    """What is bound to a structlog logger or to structlog's context variables becomes fields."""
    with structlog.contextvars.bound_contextvars(tenant="acme"):
        structlog.get_logger().bind(cup=1).info("tea")

    assert [("acme", "1")] == [(line["tenant"], line["cup"]) for line in log.lines()]


@pytest.mark.parametrize("by", ["structlog", "structlog exc_info", "logging"])
def test_exception_has_its_stack_trace_last(log: Log, by: str) -> None:
    """A logged exception's stack trace is the line's last field, at level error."""
    cups: dict[str, int] = {}
    try:
        cups["missing"]
    except KeyError as error:
        if by == "logging":
            logging.getLogger("app").exception("no tea", extra={"cups": 0})
        else:
            structlog.get_logger().error("no tea", cups=0, exc_info=True if by == "structlog" else error)
    [line] = log.lines(event="no tea", level="error")

    assert "stacktrace" == list(line)[-1]
    assert line["stacktrace"].endswith("KeyError: 'missing'\n")


@pytest.mark.parametrize("exc_info", [True, 1, False, None, (None, None, None), "yes"])
def test_exc_info_of_no_exception(log: Log, exc_info: Any) -> None:
    """An exc_info that names no exception costs neither the line nor the caller anything."""
    structlog.get_logger().info("fine", exc_info=exc_info)

    assert [{"service": "A", "level": "info", "event": "fine"}] == log.lines()


class Broken:
    """Cannot be printed."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    __str__ = __repr__


def test_unprintable_field(log: Log) -> None:
    """A field that cannot be printed costs neither the line nor the caller anything."""
    structlog.get_logger().info("fine", what=Broken())
    logging.getLogger("app").info("fine", extra={"what": Broken()})

    assert ["<unprintable Broken>"] * 2 == [line["what"] for line in log.lines(event="fine")]


def test_lines_that_look_like_a_calls(log: Log) -> None:
    """A line of the application may have the event `call`, or a call's keys, and remains its own line."""
    structlog.get_logger().info("call", endpoint="/mother", kind="long")

    expected = {"service": "A", "level": "info", "event": "call", "endpoint": "/mother", "kind": "long"}
    assert [expected] == log.lines()


def test_configured_again(log: Log) -> None:
    """Configuring once more replaces what was configured: a line is written once, to the new stream."""
    stream = io.StringIO()
    writer = configure_logging("B", log_format="keyvalue", level="info", stream=stream)
    logging.getLogger("app").info("tea")
    structlog.get_logger().info("tea")
    writer.flush()

    assert [] == log.lines()
    assert ["B", "B"] == [fields(line)["service"] for line in stream.getvalue().splitlines()]


@pytest.mark.expects_errors("LineHandler failed.*TypeError")
def test_format_arguments_that_do_not_fit(log: Log) -> None:
    """A line of logging that cannot be formatted is reported, and does not raise."""
    logger = logging.getLogger("app.own")
    logger.propagate = False  # pytest's own handlers would raise
    logger.addHandler(next(handler for handler in logging.getLogger().handlers if isinstance(handler, LineHandler)))
    logger.info("%d cups", "two")
    logger.info("next")

    assert ["next"] == [line["event"] for line in log.lines(logger="app.own")]
