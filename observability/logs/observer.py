"""The log: one line per call, and the application's own lines beside it with the ids of the call they belong to."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Final

import grpc
import structlog
from opentelemetry import baggage, trace

from ..calls.call import SERVER_FAULTS, current_call
from ..calls.errors import report
from ..calls.observers import Signal
from .render import LINE_KEYS, RENDERERS, printed, safe_key, stacktrace
from .writer import LogWriter

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence
    from typing import TextIO

    from ..calls.call import Call, Observer, Outcome

QUIET_SERVICES: Final = ("grpc.health.v1.", "grpc.reflection.")
"""Prefixes of the services whose calls are logged at DEBUG, and not traced: probes, as a rule."""


def is_quiet(service: str) -> bool:
    """Tell whether this service's calls are neither traced nor logged above DEBUG by default."""
    return service.startswith(QUIET_SERVICES)


_LEFT_OUT: Final = "Method not implemented!"
"""What the base of every generated servicer says of a method that nobody has written: by choice, so no fault."""


def level_of(outcome: Outcome) -> str:
    """Name the level of a call's line: error for a server's fault, warning for any other failure."""
    if outcome.code is grpc.StatusCode.OK:
        return "info"
    left_out = outcome.code is grpc.StatusCode.UNIMPLEMENTED and outcome.details == _LEFT_OUT
    return "error" if outcome.code in SERVER_FAULTS and not left_out else "warning"


class _CallEnded(str):
    """The event of a call's line: equal to the application's own event of that name, and not the same."""

    __slots__ = ("at_ns",)
    at_ns: int
    """When the call ended, in nanoseconds since the epoch: its line may be rendered later."""


def _call_ended(at_ns: int) -> _CallEnded:
    event = _CallEnded("call")
    event.at_ns = at_ns
    return event


def log_calls(logger: Any, *, only: str | float = "all", baggage_keys: Sequence[str] = ()) -> Observer:
    """
    Log every call with this structlog logger: logger.info("call", endpoint=…, status=…, …) when it has ended.

    `only` is all, failed, or a number of milliseconds: then only calls that failed or took longer have a line.
    `baggage_keys` names the W3C baggage entries that become fields of the line.
    """
    return _LoggedWithBaggage(logger, only, baggage_keys) if baggage_keys else _Logged(logger, only)


class _Logged(Signal):
    """Logs calls."""

    def __init__(self, logger: Any, only: str | float) -> None:
        self._logger = logger
        self._only = only

    def ended(self, call: Call, _state: None, outcome: Outcome) -> None:
        if self._only == "all" or _is_worth_it(outcome, self._only):
            level = "debug" if is_quiet(call.service) else level_of(outcome)
            ended = _call_ended(call.after(outcome.seconds))
            getattr(self._logger, level)(ended, **_line(call, outcome, level))


class _LoggedWithBaggage(_Logged):
    """Logs calls with entries of their baggage, which a server's handler has in its context."""

    def __init__(self, logger: Any, only: str | float, keys: Sequence[str]) -> None:
        super().__init__(logger, only)
        self._keys = keys

    def started(self, call: Call) -> None:
        if call.kind == "client":
            self.entered(call, None)

    def entered(self, call: Call, _state: None) -> None:
        found = {key: value for key in self._keys if (value := baggage.get_baggage(key)) is not None}
        if found:
            call.fields = {**found, **(call.fields or {})}


def _is_worth_it(outcome: Outcome, only: str | float) -> bool:
    if outcome.code is not grpc.StatusCode.OK:
        return True
    return not isinstance(only, str) and outcome.seconds * 1000 > only


def _line(call: Call, outcome: Outcome, level: str) -> dict[str, Any]:
    line: dict[str, Any] = {"endpoint": call.descriptor.endpoint}
    if outcome.code is grpc.StatusCode.OK:
        line["status"] = "ok"
    else:
        line["status"] = "error"
        line["error"] = _error(outcome)
    line["latency_ms"] = round(outcome.seconds * 1000, 3)
    line["level"] = level
    line["kind"] = call.kind
    line["method"] = call.descriptor.full_name
    line["code"] = outcome.code.name
    if call.kind == "server":
        if call.peer is not None:
            line["peer"] = call.peer
        if call.deadline is not None:
            line["deadline_ms"] = round(call.deadline * 1000)
    if call.type != "unary":
        line["sent"] = outcome.sent
        line["received"] = outcome.received
    if call.span_context is not None:
        line["trace_id"] = call.trace_id
        line["span_id"] = call.span_id
    if call.fields:
        _add_fields(line, call.fields)
    if outcome.error is not None:
        line["stacktrace"] = stacktrace(outcome.error)
    return line


def _error(outcome: Outcome) -> str:
    if outcome.error is None:
        return f"StatusCode.{outcome.code.name}: {outcome.details}"
    return f"{type(outcome.error).__qualname__}: {printed(outcome.error)}"


def _add_fields(line: dict[str, Any], fields: dict[str, Any]) -> None:
    for key, value in fields.items():
        if (safe := safe_key(key)) in LINE_KEYS:
            _reserved(safe)
        else:
            line[key] = value


_reserved_keys: Final[set[str]] = set()


def _reserved(key: str) -> None:
    """Report once that the application added a key of the line's own, which is ignored."""
    if key not in _reserved_keys:
        _reserved_keys.add(key)
        logging.getLogger("observability").warning("field %r is a call line's own and is ignored", key)


class LineLogger:
    """What structlog hands rendered lines to; the method's name tells how urgent they are."""

    def __init__(self, writer: LogWriter) -> None:
        self.debug = self.info = self.msg = writer.write
        self.warning = self.error = self.critical = self.exception = self.fatal = writer.write_now


class _Lines:
    """Turns what structlog and `logging` log into rendered lines, each with its service and its call's ids."""

    def __init__(self, service: str, log_format: str) -> None:
        self.service = service
        self._render = RENDERERS[log_format]

    def __call__(self, _logger: Any, level: str, fields: MutableMapping[str, Any]) -> str:
        """Be structlog's only processor."""
        event = fields.pop("event", "")
        if type(event) is _CallEnded:  # the line is complete as it is
            return self._render(fields, event.at_ns)
        structlog.contextvars.merge_contextvars(_logger, level, fields)
        service = fields.pop("service", self.service)
        return self.line(service, level, event, fields, fields.pop("exc_info", None))

    def line(self, service: Any, level: str, event: Any, fields: MutableMapping[str, Any], exc_info: Any) -> str:
        """Render one of the application's own lines."""
        line = {"service": service, "level": "error" if level == "exception" else level, "event": event}
        ids = _ids()
        line.update((key, value) for key, value in fields.items() if key not in line and key not in ids)
        line.update(ids)
        error = _exception(exc_info)
        if error is not None:
            line["stacktrace"] = stacktrace(error)
        return self._render(line, None)


def _exception(exc_info: Any) -> BaseException | None:
    """Find the exception that exc_info means: itself, the one in a tuple, or the one being handled."""
    if isinstance(exc_info, tuple):
        return next((item for item in exc_info if isinstance(item, BaseException)), None)
    if isinstance(exc_info, BaseException):
        return exc_info
    return sys.exc_info()[1] if exc_info else None


def _ids() -> dict[str, str]:
    """Tell the ids of the call being served here, else those of the current span."""
    call = current_call()
    context = call.span_context if call is not None else None
    if context is None:
        context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


_RECORD_KEYS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineHandler(logging.Handler):
    """Sends the lines of `logging` the same way as structlog's; what is passed as `extra` becomes fields."""

    def __init__(self, lines: _Lines, writer: LogWriter) -> None:
        super().__init__()
        self._lines = lines
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Render and queue one record."""
        try:
            fields = {"logger": record.name}
            fields |= {key: value for key, value in vars(record).items() if key not in _RECORD_KEYS}
            level = record.levelname.lower()
            line = self._lines.line(self._lines.service, level, record.getMessage(), fields, record.exc_info)
            write = self._writer.write_now if record.levelno >= logging.WARNING else self._writer.write
            write(line)
        except Exception:  # noqa: BLE001 - logging never raises into the application
            report(self)


def configure_logging(service: str, *, log_format: str, level: str, stream: TextIO) -> LogWriter:
    """
    Send structlog's and `logging`'s lines to this stream, as key=value or JSON, from this level on.

    `service` is what the lines of the application's own call it. Returns the writer, to be flushed at the end.
    """
    writer = LogWriter(stream)
    lines = _Lines(service, log_format)
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[lines],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_args: LineLogger(writer),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, LineHandler):
            root.removeHandler(handler)
    root.addHandler(LineHandler(lines, writer))
    root.setLevel(threshold)
    return writer
