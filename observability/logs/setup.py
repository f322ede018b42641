"""Where lines come from and go to: structlog and `logging` set up, with the ids of the call that a line belongs to."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Final

import structlog
from opentelemetry import trace

from ..calls.call import current_call
from ..calls.errors import record_error
from ..calls.values import stacktrace
from .observer import CallEnded
from .render import RENDERERS
from .writer import LogWriter

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import TextIO


class LineLogger:
    """What structlog hands rendered lines to; the method's name says how urgent they are."""

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
        if type(event) is CallEnded:  # the line is complete as it is
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
    """Return the ids of the call being served here, else those of the current span."""
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
            record_error(self)


def _threshold(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def call_logger(service: str, *, log_format: str, level: str, stream: TextIO) -> tuple[Any, LogWriter]:
    """Return a structlog logger whose lines go to this stream, as after configure_logging, and what writes them."""
    writer = LogWriter(stream)
    logger = structlog.wrap_logger(
        LineLogger(writer),
        processors=[_Lines(service, log_format)],
        wrapper_class=structlog.make_filtering_bound_logger(_threshold(level)),
    )
    return logger, writer


def configure_logging(service: str, *, log_format: str, level: str, stream: TextIO) -> LogWriter:
    """
    Send structlog's and `logging`'s lines to this stream, as key=value or JSON, from this level on.

    `service` is what the lines of the application's own call it. Returns the writer, to be flushed at the end.
    """
    writer = LogWriter(stream)
    lines = _Lines(service, log_format)
    threshold = _threshold(level)
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
