"""Writes log lines from one thread, so that an output that nobody reads stops no call."""

from __future__ import annotations

import codecs
import gc
import io
import os
import select
from typing import TYPE_CHECKING, Any, Final

from ..threads.worker import BatchWorker

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

LINE_LIMIT: Final = 8192
"""How many lines wait at most; what does not fit is dropped and counted."""
DELAY_SECONDS: Final = 0.09
"""How long a line below WARNING waits here at most; a call's line has waited before, until the call was reported."""


class LogWriter:
    """
    A bounded queue of lines, and the thread that writes them to a stream of text, or of bytes, in UTF-8.

    `dropped` counts the lines that did not fit into the queue, or that the stream did not take.
    """

    def __init__(self, stream: IO[Any]) -> None:
        self.dropped = 0
        self._stream = stream
        self._lines: BatchWorker[str] = BatchWorker(
            self._write, name="observability-log-writer", delay=DELAY_SECONDS, limit=LINE_LIMIT
        )

    def write(self, line: str) -> None:
        """Queue a line, to be written soon."""
        if not self._lines.put(line):
            self.dropped += 1

    def write_now(self, line: str) -> None:
        """Queue a line, to be written at once with those before it."""
        self.write(line)
        self._lines.wake()

    def flush(self, seconds: float = 1.0) -> bool:
        """Write what waits, for this many seconds at most; return whether it is written."""
        return self._lines.flush(seconds)

    def _write(self, lines: list[str]) -> None:
        if not lines:
            return
        taken = 0
        try:
            file = _file_under(self._stream)
            if file is None:
                taken = _write_lines(self._stream, lines)
            else:
                _write_past(self._stream, file, "".join(f"{line}\n" for line in lines))
                taken = len(lines)
        except Exception:  # noqa: BLE001, S110 - the reader is gone, the stream closed, or not what it should be
            pass
        finally:
            self.dropped += len(lines) - taken


def _file_under(stream: Any) -> io.FileIO | None:
    """
    Return the file to which a stream writes UTF-8 text, or bytes, as they are; None if it does anything else.

    A class derived from one of these may do anything.
    """
    if type(stream) is io.TextIOWrapper:
        if codecs.lookup(stream.encoding).name != "utf-8" or _translates_newlines(stream):
            return None
        stream = stream.buffer
    if type(stream) is io.BufferedWriter:
        stream = stream.raw
    return stream if type(stream) is io.FileIO else None


def _translates_newlines(stream: io.TextIOWrapper) -> bool:
    # It has no attribute that says so, but refers to the `newline` that it was opened with.
    return os.linesep != "\n" or any(each in ("\r", "\r\n") for each in gc.get_referents(stream) if type(each) is str)


def _write_past(stream: Any, file: io.FileIO, text: str) -> None:
    """
    Write to the file under a stream.

    The stream's lock, held by a write that is stuck, would stop the application's own print.
    """
    # One of our own: a write that is stuck must not go on into whatever gets the number after a close.
    descriptor = os.dup(file.fileno())
    try:
        _wait_for(descriptor)
        stream.flush()  # what was written before stays before
        _write_all(lambda data: _write_some(descriptor, data), text.encode("utf-8", "backslashreplace"))
    finally:
        os.close(descriptor)


def _write_some(descriptor: int, data: bytes) -> int:
    while True:
        try:
            return os.write(descriptor, data)
        except BlockingIOError:  # somebody has made it non-blocking
            _wait_for(descriptor)


def _wait_for(descriptor: int) -> None:
    """Wait until something can be written, or never will be."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()


def _write_lines(stream: Any, lines: list[str]) -> int:
    """Write to a stream by its own `write`, line by line; return how many it took."""

    def takes(line: str) -> bool:
        try:
            _write_line(stream, f"{line}\n".encode("utf-8", "backslashreplace"))
        except Exception:  # noqa: BLE001 - it may take the next one
            return False
        return True

    taken = [takes(line) for line in lines].count(True)
    flush = getattr(stream, "flush", None)
    if flush is not None:
        flush()
    return taken


def _write_line(stream: Any, line: bytes) -> None:
    text = line.decode()
    try:
        stream.write(text)
    except TypeError:  # one of bytes
        _write_all(stream.write, line)
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _write_all(write: Callable[[bytes], int | None], data: bytes) -> None:
    while data:
        written = write(data)
        data = data[len(data) if written is None else written :]
