"""Writes log lines from a thread of its own, so that an output that nobody reads stops no call."""

from __future__ import annotations

import contextlib
import os
import select
from typing import Final, TextIO

from .batches import Batches

LINE_LIMIT: Final = 8192
"""How many lines wait at most; what does not fit is dropped and counted."""
DELAY_SECONDS: Final = 0.09
"""How long a line below WARNING waits here at most; a call's line has waited before, until the call was told."""


class LogWriter:
    """
    A bounded queue of lines, and the thread that writes them to a stream.

    `dropped` counts the lines that did not fit, or that the stream did not take.
    """

    def __init__(self, stream: TextIO) -> None:
        self.dropped = 0
        self._stream = stream
        self._lines: Batches[str] = Batches(
            self._write, name="observability-log-writer", delay=DELAY_SECONDS, limit=LINE_LIMIT
        )

    def write(self, line: str) -> None:
        """Queue a line, to be written soon."""
        if not self._lines.put(line):
            self.dropped += 1

    def write_now(self, line: str) -> None:
        """Queue a line, to be written at once with those before it."""
        self.write(line)
        self._lines.hurry()

    def flush(self, seconds: float = 1.0) -> bool:
        """Write what waits, for this long at most; tell whether it is written."""
        return self._lines.flush(seconds)

    def _write(self, lines: list[str]) -> None:
        try:
            self._put("".join(f"{line}\n" for line in lines))
        except Exception:  # noqa: BLE001 - the reader is gone, the stream closed, or not what it should be
            self.dropped += len(lines)

    def _put(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        descriptor = None
        with contextlib.suppress(OSError, ValueError, AttributeError):
            # One of our own: a write that is stuck must not go on into whatever gets the number after a close.
            descriptor = os.dup(self._stream.fileno())
        if descriptor is None:
            self._stream.write(data.decode())
            self._stream.flush()
            return
        try:
            _write_all(descriptor, data)
        finally:
            os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    """Write, not through the stream: its lock, held by a stuck write, would stop the application's own print."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # somebody has made it non-blocking
            select.select([], [descriptor], [])
