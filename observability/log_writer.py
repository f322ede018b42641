"""Writes log lines from a thread of its own, so that an output that nobody reads stops no call."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import threading
import weakref
from collections import deque
from typing import Final, TextIO

LINE_LIMIT: Final = 8192
"""How many lines wait at most; what does not fit is dropped and counted."""
DELAY_SECONDS: Final = 0.1
"""How long a line below WARNING waits at most."""
_EXIT_SECONDS: Final = 0.2


class LogWriter:
    """
    A bounded queue of lines, and the thread that writes them to a stream.

    `dropped` counts the lines that did not fit, or that the stream did not take.
    """

    def __init__(self, stream: TextIO) -> None:
        self.dropped = 0
        self._stream = stream
        self._lines: deque[str | threading.Event] = deque()
        self._start()
        start, end = weakref.WeakMethod(self._start), weakref.WeakMethod(self._end)
        os.register_at_fork(after_in_child=lambda: (method := start()) and method())
        atexit.register(lambda: (method := end()) and method())

    def _start(self) -> None:
        """Start the thread; a forked process has none of its parent's."""
        self._lines.clear()
        self._waiting = threading.Event()
        self._urgent = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observability-log-writer", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Queue a line, to be written within 100 ms."""
        if len(self._lines) >= LINE_LIMIT:
            self.dropped += 1
            return
        self._lines.append(line)
        if not self._waiting.is_set():
            self._waiting.set()

    def write_now(self, line: str) -> None:
        """Queue a line, to be written at once with those before it."""
        self.write(line)
        self._urgent.set()

    def flush(self, seconds: float = 1.0) -> bool:
        """Write what waits, for this long at most; tell whether it is written."""
        written = threading.Event()
        self._lines.append(written)
        self._urgent.set()
        self._waiting.set()
        return written.wait(seconds)

    def _end(self) -> None:
        """Write what was logged after the last flush, before the thread dies with the process."""
        if self._lines:
            self.flush(_EXIT_SECONDS)

    def _run(self) -> None:
        while True:
            self._waiting.wait()
            self._urgent.wait(DELAY_SECONDS)
            self._urgent.clear()
            self._waiting.clear()
            self._drain()

    def _drain(self) -> None:
        taken = [self._lines.popleft() for _ in range(len(self._lines))]
        lines = [line for line in taken if isinstance(line, str)]
        try:
            self._put("".join(f"{line}\n" for line in lines))
        except Exception:  # noqa: BLE001 - the reader is gone, the stream closed, or not what it should be
            self.dropped += len(lines)
        for written in taken:
            if isinstance(written, threading.Event):
                written.set()

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
