"""
What services, examples and clients write that tests start: a test fails on each error in it that it does not expect.

Errors are the ERROR lines of the loggers at which tests look in their own process, too, and tracebacks, by the lines
with which they end.
"""

import re
import subprocess
from collections.abc import Iterable
from typing import IO, Final, cast

from client.processes import Output
from tests.support.errors import LOGGERS

LOGGED: Final = re.compile(
    rf'\blevel"?[=:] ?"?(?:error|critical)\b.*\blogger"?[=:] ?"?(?:{"|".join(map(re.escape, LOGGERS))})\b'
)
TRACEBACK: Final = re.compile(r"(?:  \+ Exception Group )?Traceback \(most recent call last\):|Exception ignored ")


class _Finder:
    """Finds the errors in an output, line by line."""

    def __init__(self) -> None:
        self._raised = False

    def errors_in(self, lines: Iterable[str]) -> list[str]:
        """Return the errors in the next lines."""
        return [error for line in lines if (error := self._error_in(line))]

    def _error_in(self, line: str) -> str | None:
        inner = line.removeprefix("  | ")  # of an exception group
        if TRACEBACK.match(line):
            self._raised = True
        elif self._raised and inner and not inner.startswith((" ", "\t")):
            self._raised = False
            return f"printed: {inner}"
        elif LOGGED.search(line):
            return line
        return None


class _Watched:
    """An output of a process, and how far it has been looked at."""

    def __init__(self, process: subprocess.Popen[str], output: Output) -> None:
        self._process = process
        self._output = output
        self._seen = 0
        self._finder = _Finder()
        self.has_ended = False

    def errors(self) -> list[str]:
        """Return the errors since this was asked last; of a process that has ended, all that there will be."""
        self.has_ended = self._process.poll() is not None
        lines = self._output.wait_for_end(5) if self.has_ended else self._output.lines()
        new, self._seen = lines[self._seen :], len(lines)
        return self._finder.errors_in(new)


_watched: Final[list[_Watched]] = []
_kept: Final[list[str]] = []


def watch(process: subprocess.Popen[str], *outputs: Output) -> None:
    """Look for errors in what a process writes, after each test until it has ended."""
    _watched.extend(_Watched(process, output) for output in outputs)


def outputs(process: subprocess.Popen[str]) -> tuple[Output, Output]:
    """Read, and watch, the stdout and stderr of a process."""
    stdout, stderr = (Output(cast("IO[str]", stream)) for stream in (process.stdout, process.stderr))
    watch(process, stdout, stderr)
    return stdout, stderr


def look_at(*texts: str) -> None:
    """Look for errors in all that a process has written."""
    _kept.extend(error for text in texts for error in _Finder().errors_in(text.splitlines()))


def errors_of_processes() -> list[str]:
    """Return the errors that processes have written since this was asked last."""
    errors = [*_kept, *(error for watched in _watched for error in watched.errors())]
    _kept.clear()
    _watched[:] = [watched for watched in _watched if not watched.has_ended]
    return errors
