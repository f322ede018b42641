"""The ERROR lines of the loggers `grpc` and `observability` here: a test fails on each that it does not expect."""

import logging
import re
from collections.abc import Iterable

LOGGERS = ("grpc", "observability")
# What these log has a traceback, and so the frames in which grpc and asyncio hold handlers and calls.
HOLDING = ("grpc", "asyncio")
# What grpc.aio logs when a call is cut off, or not, as its task and the caller's leave race.
CUT_OFF = r"^grpc\._cython\.cygrpc: Exception not handled by _handle_exceptions .*\[CancelledError: \]$"

_formatter = logging.Formatter()


class ErrorLines(logging.Handler):
    """
    Keeps the text of the lines from ERROR on, in order.

    It leaves a record of HOLDING, or of what a handler has raised late, without its traceback: pytest keeps each record
    until the end of its test.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's text, after its logger's name and before its exception."""
        cause = ""
        if record.exc_info and record.exc_info[1]:
            cause = f" [{type(record.exc_info[1]).__name__}: {record.exc_info[1]}]"
            if record.name.startswith(HOLDING) or record.funcName == "log_late":
                record.exc_text, record.exc_info = _formatter.formatException(record.exc_info), None
        if record.name.startswith(LOGGERS):
            self.lines.append(f"{record.name}: {record.getMessage()}{cause}")

    def unexpected(self, patterns: Iterable[str]) -> list[str]:
        """Return the lines in which none of these patterns is found."""
        wanted = [re.compile(pattern, re.DOTALL) for pattern in (CUT_OFF, *patterns)]
        return [line for line in self.lines if not any(pattern.search(line) for pattern in wanted)]
