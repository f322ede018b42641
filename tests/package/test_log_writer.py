"""The log writer: an output that nobody reads stops no call, and no line that can be written is lost."""

import bz2
import codecs
import contextlib
import gzip
import io
import os
import select
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest
import structlog

from observability import ServerInterceptor, log_calls
from observability.calls import batch_reporter
from observability.logs import writer as log_writer
from observability.logs.render import render_keyvalue
from observability.logs.setup import LineLogger
from observability.logs.writer import LINE_LIMIT, LogWriter
from tests.support import python
from tests.support.rpc import connected, method


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
    """What waited arrives whole and in order once the output is read again."""
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
    """A flush where nobody reads gives up in time, and returns False."""
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
    assert 0.1 >= log_writer.DELAY_SECONDS + batch_reporter.DELAY_SECONDS


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


def test_stuck_write_reaches_no_other_file(pipe: Pipe) -> None:
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
    """An output that the application has made non-blocking takes every line."""
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


class Recorded:
    """A stream that is nothing but a method."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, text: str) -> None:
        """Keep the text."""
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(text)


class Tee(Recorded):
    """A stream that writes twice, with the file descriptor of one of both."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = path.with_suffix(".copy").open("w", encoding="utf-8")
        self.fileno, self.flush, self.encoding = self._file.fileno, self._file.flush, self._file.encoding

    def write(self, text: str) -> None:
        """Keep the text, twice."""
        super().write(text)
        self._file.write(text)


class Marked(io.TextIOWrapper):
    """A text stream that is more than one."""

    def write(self, text: str) -> int:
        """Mark the line."""
        return super().write(f"> {text}")


def socket_stream(path: Path) -> Any:
    """Give a stream to a socket, and write to the path what comes out of its other end."""
    here, there = socket.socketpair()

    def receive() -> None:
        with there, path.open("wb") as file:
            while data := there.recv(1000):
                file.write(data)

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    stream: Any = here.makefile("w", encoding="utf-8")
    close = stream.close

    def close_both() -> None:
        close()
        here.close()
        thread.join()

    stream.close = close_both
    return stream


LINES = ["before", "plain", "Grüße, 東京", "half \ud800"]
ESCAPED = ["before", "plain", "Grüße, 東京", "half \\ud800"]
STREAMS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], str]]] = {
    "utf-8": (lambda path: path.open("w", encoding="utf-8"), lambda path: path.read_text("utf-8")),
    "utf-8, appending": (lambda path: path.open("a", encoding="utf-8"), lambda path: path.read_text("utf-8")),
    "utf-8, by line": (lambda path: path.open("w", 1, encoding="UTF8"), lambda path: path.read_text("utf-8")),
    "utf-8, unbuffered": (
        lambda path: io.TextIOWrapper(path.open("wb", 0), "utf-8", write_through=True),
        lambda path: path.read_text("utf-8"),
    ),
    "utf-8, random access": (lambda path: path.open("w+", encoding="utf-8"), lambda path: path.read_text("utf-8")),
    "utf-8 with a mark": (lambda path: path.open("w", encoding="utf-8-sig"), lambda path: path.read_text("utf-8-sig")),
    "utf-16": (lambda path: path.open("w", encoding="utf-16"), lambda path: path.read_text("utf-16")),
    "newlines": (
        lambda path: path.open("w", encoding="utf-8", newline="\r\n"),
        lambda path: path.read_bytes().decode().replace("\r\n", "\n"),
    ),
    "gzip, text": (
        lambda path: io.TextIOWrapper(gzip.GzipFile(path, "wb"), "utf-8"),
        lambda path: gzip.decompress(path.read_bytes()).decode(),
    ),
    "bzip2, text": (
        lambda path: io.TextIOWrapper(bz2.BZ2File(path, "wb"), "utf-8"),
        lambda path: bz2.decompress(path.read_bytes()).decode(),
    ),
    "codecs": (lambda path: codecs.getwriter("utf-16")(path.open("wb")), lambda path: path.read_text("utf-16")),
    "a socket": (socket_stream, lambda path: path.read_text("utf-8")),
    "a method alone": (Recorded, lambda path: path.read_text("utf-8")),
    "a tee": (Tee, lambda path: path.read_text("utf-8")),
    "a tee's other end": (Tee, lambda path: path.with_suffix(".copy").read_text("utf-8")),
    "a subclass": (
        lambda path: Marked(path.open("wb"), "utf-8"),
        lambda path: "".join(line.removeprefix("> ") for line in path.read_text("utf-8").splitlines(keepends=True)),
    ),
}
"""Streams of text, each with the way to read what was written there."""


@pytest.mark.parametrize("name", STREAMS)
def test_streams_of_text(name: str, tmp_path: Path) -> None:
    """
    What a stream of text does with what is written to it, it does with every line, after what was written before.
    """
    make, read = STREAMS[name]
    stream = make(tmp_path / "log")
    stream.write("before\n")
    writer = LogWriter(stream)
    for line in LINES[1:]:
        writer.write(line)

    assert writer.flush(5)
    assert 0 == writer.dropped
    if hasattr(stream, "flush"):
        stream.flush()
    if hasattr(stream, "close"):
        stream.close()
    assert ESCAPED == read(tmp_path / "log").splitlines()


@pytest.mark.parametrize("name", ["utf-8", "utf-8, appending", "a tee", "utf-16", "newlines", "gzip, text"])
def test_what_is_written_between(name: str, tmp_path: Path) -> None:
    """
    Lines and what the application itself writes to the stream stand in the order in which they were written.
    """
    make, read = STREAMS[name]
    stream = make(tmp_path / "log")
    writer = LogWriter(stream)
    for number in range(4):
        stream.write(f"text {number}\n")
        writer.write(f"line {number}")
        assert writer.flush(5)

    stream.flush()
    if hasattr(stream, "close"):
        stream.close()
    assert [f"{what} {number}" for number in range(4) for what in ("text", "line")] == read(
        tmp_path / "log"
    ).splitlines()


BYTES: dict[str, tuple[Callable[[Path], Any], Callable[[Path], bytes]]] = {
    "a file": (lambda path: path.open("wb"), Path.read_bytes),
    "a file, unbuffered": (lambda path: path.open("wb", 0), Path.read_bytes),
    "gzip": (lambda path: gzip.GzipFile(path, "wb"), lambda path: gzip.decompress(path.read_bytes())),
    "a temporary file": (
        lambda path: tempfile.NamedTemporaryFile(dir=path.parent, delete=False),  # noqa: SIM115 - closed below
        lambda path: next(each for each in path.parent.iterdir() if each != path).read_bytes(),
    ),
}
"""Streams of bytes."""


@pytest.mark.parametrize("name", BYTES)
def test_streams_of_bytes(name: str, tmp_path: Path) -> None:
    """
    A stream of bytes takes lines in UTF-8.
    """
    make, read = BYTES[name]
    stream = make(tmp_path / "log")
    stream.write(b"before\n")
    writer = LogWriter(stream)
    for line in LINES[1:]:
        writer.write(line)

    assert writer.flush(5)
    stream.close()
    assert ESCAPED == read(tmp_path / "log").decode().splitlines()
    assert 0 == writer.dropped


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("latin-1", ["Grüße, \\u6771\\u4eac", "half \\ud800"]),
        ("ascii", ["Gr\\xfc\\xdfe, \\u6771\\u4eac", "half \\ud800"]),
    ],
)
def test_stream_that_cannot_encode_all(encoding: str, expected: list[str], tmp_path: Path) -> None:
    """
    What a stream's encoding does not have is written with escapes.
    """
    with (tmp_path / "log").open("w", encoding=encoding) as stream:
        writer = LogWriter(stream)
        for line in LINES[2:]:
            writer.write(line)
        assert writer.flush(5)

    assert expected == (tmp_path / "log").read_text(encoding).splitlines()
    assert 0 == writer.dropped


def test_codecs_that_cannot_encode_all(tmp_path: Path) -> None:
    """
    What a writer of `codecs` cannot encode is written with escapes too, though it does not name its encoding.
    """
    with codecs.getwriter("latin-1")((tmp_path / "log").open("wb")) as stream:
        writer = LogWriter(stream)  # type: ignore[arg-type]  # as much of a stream as is needed
        writer.write("東京")
        assert writer.flush(5)

    assert "\\u6771\\u4eac\n" == (tmp_path / "log").read_text()


def test_memory() -> None:
    """
    A stream that is no file takes lines.
    """
    text, data = io.StringIO(), io.BytesIO()
    for stream in (text, data):
        writer = LogWriter(stream)
        writer.write("Grüße")
        assert writer.flush(5)

    assert ("Grüße\n", "Grüße\n") == (text.getvalue(), data.getvalue().decode())


class Picky(io.StringIO):
    """A stream that does not take everything."""

    def write(self, text: str) -> int:
        """Refuse what is long."""
        if len(text) > 10:
            raise ValueError("too long")
        return super().write(text)


def test_lines_that_a_stream_does_not_take() -> None:
    """
    Lines that a stream does not take are counted as dropped, and take no other line with them.
    """
    stream = Picky()
    writer = LogWriter(stream)
    for line in ("one", "more than ten", "two", "eleven and more"):
        writer.write(line)

    assert writer.flush(5)
    assert (2, ["one", "two"]) == (writer.dropped, stream.getvalue().splitlines())


class Full(io.StringIO):
    """A stream that is full in the end."""

    def flush(self) -> None:
        """Fail."""
        raise OSError("no space left")


@pytest.mark.parametrize(
    "make",
    [
        Full,
        lambda: io.TextIOWrapper(io.BufferedWriter(io.FileIO("/dev/full", "w")), "utf-8"),
        lambda: io.TextIOWrapper(io.BufferedReader(io.FileIO(os.devnull)), "utf-8"),
        lambda: None,
        object,
    ],
    ids=["that fails in the end", "that is full", "to read from", "that is none", "of nothing"],
)
def test_streams_that_take_nothing(make: Callable[[], Any]) -> None:
    """
    Every line that is lost is counted.
    """
    with contextlib.ExitStack() as stack:
        stream = make()
        if isinstance(stream, io.TextIOWrapper):
            stack.enter_context(stream)
        writer = LogWriter(stream)
        for _ in range(3):
            writer.write("lost")

        assert writer.flush(5)
        assert 3 == writer.dropped


@pytest.mark.parametrize("fixture", ["capsys", "capfd"])
def test_captured_output(fixture: str, request: pytest.FixtureRequest) -> None:
    """
    What captures the output of tests captures lines.
    """
    capture = request.getfixturevalue(fixture)
    print("before")  # noqa: T201 - what an application prints
    writer = LogWriter(sys.stdout)
    writer.write("line")
    assert writer.flush(5)

    assert "before\nline\n" == capture.readouterr().out


def test_output_that_changes_its_encoding(tmp_path: Path) -> None:
    """
    A stream that is given another encoding has its lines in that one from then on.
    """
    with (tmp_path / "log").open("w", encoding="utf-8") as stream:
        writer = LogWriter(stream)
        writer.write("ü")
        assert writer.flush(5)
        stream.reconfigure(encoding="latin-1")
        writer.write("ü")
        assert writer.flush(5)

    assert "ü\n".encode() + "ü\n".encode("latin-1") == (tmp_path / "log").read_bytes()


def test_stuck_write_stops_no_print(pipe: Pipe) -> None:
    """
    While a line is stuck that nobody reads, the application can still print to the same stream.
    """
    writer = LogWriter(pipe.stream)
    stick(writer, pipe)
    safe_str = threading.Event()

    def write() -> None:
        pipe.stream.write("text")
        safe_str.set()

    threading.Thread(target=write, daemon=True).start()

    assert safe_str.wait(5)


def run(program: str) -> str:
    """Run a program with a writer of stdout; return what it printed."""
    start = "import os, sys, time\nfrom observability.logs.writer import LogWriter\nwriter = LogWriter(sys.stdout)\n"
    ended = python.run("-c", python.NO_WARNINGS + start + program)
    assert 0 == ended.returncode, ended.stderr
    return ended.stdout


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
