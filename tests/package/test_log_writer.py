"""The log's way out: an output that nobody reads stops no call, and what is written loses nothing."""

import contextlib
import io
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

import pytest
import structlog

from observability import ServerInterceptor, log_calls, log_writer, teller
from observability.log_writer import LINE_LIMIT, LogWriter
from observability.logs import LineLogger
from observability.rendering import render_keyvalue
from tests.package.rpc import connected, method


class Pipe:
    """A pipe with its writing end as a text stream."""

    def __init__(self) -> None:
        self._reader: int | None
        self._reader, writer = os.pipe()
        self.stream: TextIO = os.fdopen(writer, "w")

    def read(self, seconds: float = 5.0) -> str:
        """Return what there is, after waiting for something; empty when nothing came."""
        assert self._reader is not None
        ready, _, _ = select.select([self._reader], [], [], seconds)
        return os.read(self._reader, 1 << 20).decode() if ready else ""

    def read_lines(self, count: int) -> list[str]:
        """Return this many lines, or fewer if no more come."""
        text = ""
        while text.count("\n") < count and (more := self.read()):
            text += more
        return text.splitlines()

    def stop_reading(self) -> None:
        """Close the reading end."""
        reader, self._reader = self._reader, None
        if reader is not None:
            os.close(reader)

    def close(self) -> None:
        """Close both ends."""
        self.stop_reading()
        with contextlib.suppress(BrokenPipeError):
            self.stream.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Give a pipe; closing its reading end ends a write that is stuck."""
    pipe = Pipe()
    yield pipe
    pipe.close()


def fill(writer: LogWriter, count: int) -> list[str]:
    """Write numbered lines; return them."""
    lines = [f"{number:060d}" for number in range(count)]
    for line in lines:
        writer.write(line)
    return lines


def stick(writer: LogWriter, pipe: Pipe) -> None:
    """Let the writer get stuck in a line that is more than the pipe holds, which nobody reads."""
    writer.write_now("x" * 1_000_000)
    while select.select([], [pipe.stream], [], 0)[1]:
        time.sleep(0.001)


def test_a_pipe_that_nobody_reads_is_bounded(pipe: Pipe) -> None:
    """Where nobody reads, lines wait up to the limit, and every one beyond is counted as dropped."""
    writer = LogWriter(pipe.stream)
    stick(writer, pipe)
    fill(writer, LINE_LIMIT + 10)

    assert (LINE_LIMIT, 10) == (len(writer._lines), writer.dropped)


def test_what_was_kept_arrives_in_order(pipe: Pipe) -> None:
    """What waited arrives whole and in order once somebody reads again."""
    writer = LogWriter(pipe.stream)
    stick(writer, pipe)
    lines = fill(writer, LINE_LIMIT + 10)

    assert lines[:LINE_LIMIT] == pipe.read_lines(1 + LINE_LIMIT)[1:]


def test_a_pipe_that_nobody_reads_stops_no_call(pipe: Pipe) -> None:
    """Calls are served while nobody reads the log, also when their lines are dropped."""
    writer = LogWriter(pipe.stream)
    stick(writer, pipe)
    fill(writer, LINE_LIMIT)
    logger: Any = structlog.wrap_logger(
        LineLogger(writer), processors=[lambda _logger, _level, fields: render_keyvalue(fields)]
    )
    with connected(ServerInterceptor(log_calls(logger)), unary=lambda request, _context: request) as channel:
        answers = [method(channel, "unary")(b"a", timeout=10) for _ in range(20)]

    assert [b"a"] * 20 == answers
    assert 20 == writer.dropped


def test_flush_is_bounded(pipe: Pipe) -> None:
    """A flush where nobody reads gives up in time, and says so."""
    writer = LogWriter(pipe.stream)
    stick(writer, pipe)
    start = time.monotonic()

    assert not writer.flush(0.1)
    assert 0.1 <= time.monotonic() - start < 1.0


def test_warning_is_written_at_once(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line from WARNING on is written at once, and those before it with it."""
    monkeypatch.setattr(log_writer, "DELAY_SECONDS", 60)
    writer = LogWriter(pipe.stream)
    writer.write("info")
    writer.write_now("warning")

    assert ["info", "warning"] == pipe.read_lines(2)


def test_info_is_written_within_a_tenth_of_a_second(pipe: Pipe) -> None:
    """A line below WARNING is written without any other's help, within 100 ms."""
    writer = LogWriter(pipe.stream)
    writer.write("info")

    assert ["info"] == pipe.read_lines(1)
    assert 0.1 >= log_writer.DELAY_SECONDS + teller.DELAY_SECONDS


@pytest.mark.parametrize(
    ("level", "urgent"), [("debug", False), ("info", False), ("warning", True), ("error", True), ("critical", True)]
)
def test_which_levels_are_urgent(pipe: Pipe, monkeypatch: pytest.MonkeyPatch, level: str, urgent: bool) -> None:  # noqa: FBT001 - a parameter
    """The levels of structlog from warning on are the urgent ones."""
    monkeypatch.setattr(log_writer, "DELAY_SECONDS", 60)
    getattr(LineLogger(LogWriter(pipe.stream)), level)("line")

    assert urgent == bool(pipe.read(5 if urgent else 0.05))


def test_flush_loses_nothing(pipe: Pipe) -> None:
    """What several threads wrote before a flush is written after it, whole lines each."""
    writer = LogWriter(pipe.stream)
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.extend(pipe.read_lines(4000)))
    reader.start()

    def write(name: int) -> None:
        for number in range(1000):
            writer.write(f"{name}-{number}")

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert writer.flush(10)
    reader.join()
    assert {f"{name}-{number}" for name in range(4) for number in range(1000)} == set(seen)
    assert 0 == writer.dropped


def test_reader_that_has_gone(pipe: Pipe) -> None:
    """Lines for a reader that has gone are dropped and counted, and the writer goes on."""
    writer = LogWriter(pipe.stream)
    pipe.stop_reading()
    for _ in range(2):
        writer.write("nobody reads this")
        assert writer.flush(5)

    assert 2 == writer.dropped


class Mended(io.StringIO):
    """A stream whose first writes fail in a way that no stream should."""

    def __init__(self) -> None:
        super().__init__()
        self._left = 2

    def write(self, text: str) -> int:
        """Fail twice."""
        if self._left:
            self._left -= 1
            raise RuntimeError("not a stream yet")
        return super().write(text)


def test_stream_that_fails() -> None:
    """A stream that fails, however it does, costs the lines that it did not take and no more."""
    stream = Mended()
    writer = LogWriter(stream)
    for line in ("one", "two", "three"):
        writer.write(line)
        assert writer.flush(5)

    assert (2, "three\n") == (writer.dropped, stream.getvalue())


def test_closed_stream(pipe: Pipe) -> None:
    """Lines for a closed stream are dropped and counted."""
    writer = LogWriter(pipe.stream)
    pipe.stream.close()
    writer.write("too late")
    writer.flush(5)

    assert 1 == writer.dropped


def test_stuck_write_does_not_go_astray(pipe: Pipe) -> None:
    """What is stuck when its stream is closed is not written to what is opened next under the same number."""
    writer = LogWriter(pipe.stream)
    stick(writer, pipe)
    number = pipe.stream.fileno()
    other = Pipe()
    pipe.stream.close()
    os.dup2(other.stream.fileno(), number)
    pipe.stop_reading()
    written = writer.flush(5)
    astray = other.read(0)
    os.close(number)
    other.close()

    assert (True, "") == (written, astray)


def test_non_blocking_output(pipe: Pipe) -> None:
    """An output that somebody has made non-blocking takes everything all the same."""
    os.set_blocking(pipe.stream.fileno(), False)
    writer = LogWriter(pipe.stream)
    stick(writer, pipe)
    lines = fill(writer, 4000)

    assert lines == pipe.read_lines(4001)[1:]


def test_what_cannot_be_encoded_is_escaped(pipe: Pipe) -> None:
    """A line with half a character in it is written with an escape, and takes no other line with it."""
    writer = LogWriter(pipe.stream)
    writer.write("half \ud800")
    writer.write("€")

    assert ["half \\ud800", "€"] == pipe.read_lines(2)


def run(program: str) -> str:
    """Run a program with a writer of stdout; return what it printed."""
    start = "import os, sys, time\nfrom observability.log_writer import LogWriter\nwriter = LogWriter(sys.stdout)\n"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", start + program],
        capture_output=True,
        check=True,
        encoding="utf-8",
        timeout=30,
    ).stdout


def test_forked_process_has_a_log() -> None:
    """A forked process writes its own lines, and none of its parent's twice."""
    program = """
writer.write("parent")
if os.fork():
    os.wait()
else:
    writer.write("child")
    os._exit(not writer.flush(5))
"""
    assert ["child", "parent"] == sorted(run(program).splitlines())


def test_line_just_before_the_end_of_the_process() -> None:
    """A line written just before an ordinary end of the process is not lost."""
    assert "goodbye\n" == run('writer.write("goodbye")')
