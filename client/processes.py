"""The services as separate processes: started on free ports, read line by line, ended for certain."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Self, cast

import click

from client.lines import fields

ROOT = Path(__file__).resolve().parent.parent
# Variables that steer our programs begin so; a process that is started here gets those it is given alone.
OURS = ("OTEL_", "OBSERVABILITY_", "LOG_", "SERVICE_A_", "SERVICE_B_", "CLIENT_TLS_")


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with these variables, and no others that steer our programs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    # All of it is local, the exporters' way too, which no proxy for the outer world knows.
    return {**inherited, "no_grpc_proxy": "127.0.0.1", "PYTHONUNBUFFERED": "1", **variables}


class Output:
    """The lines that a process writes to one of its streams, read as they come by a thread."""

    def __init__(self, stream: IO[str]) -> None:
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._ended = False
        self._stream = stream
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with self._stream:
            for line in self._stream:
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def lines(self, *texts: str) -> list[str]:
        """Return the lines so far that hold all of the texts."""
        with self._changed:
            return [line for line in self._lines if all(text in line for text in texts)]

    def wait_for(self, *texts: str, count: int = 1, timeout: float = 10.0) -> list[str]:
        """
        Wait for `count` lines that hold all of the texts; return them.

        After `timeout` seconds, or when the stream has ended, return what there is.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self.lines(*texts)) >= count, timeout)
            return self.lines(*texts)

    def wait_for_end(self, timeout: float = 10.0) -> list[str]:
        """Wait until nothing more can come; return every line."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended, timeout)
            return self.lines()


class NotStartedError(click.ClickException):
    """A service did not start; the text is what it said of it."""


class Service:
    """
    Service A or B, from `with` to its end, on free ports unless they are given.

    Its folder is `service-a` or `service-b`; options and variables are those of its command line. `start` takes what
    `subprocess.Popen` takes.
    """

    start: ClassVar[Callable[..., subprocess.Popen[str]]] = subprocess.Popen

    def __init__(self, folder: str, *options: str, **variables: str) -> None:
        self._process = type(self).start(
            [sys.executable, "app.py", "--port", "0", *options],
            cwd=ROOT / folder,
            env=environment(**{"OTEL_EXPORTER_PROMETHEUS_PORT": "0", **variables}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",  # gRPC's core writes to stderr what a peer has sent, as it is
            start_new_session=True,  # Ctrl-C is for the process that started it, which then ends it
        )
        self.pid = self._process.pid
        self.stdout = Output(cast("IO[str]", self._process.stdout))
        self.stderr = Output(cast("IO[str]", self._process.stderr))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """`HOST:PORT` of its gRPC server, once it listens; NotStartedError if it never does."""
        return self._told("listening")

    @property
    def metrics_url(self) -> str:
        """Where its metrics are, once they are there; NotStartedError if they never are."""
        return f"http://{self._told('metrics')}/metrics"

    def _told(self, event: str) -> str:
        for line in self.stdout.wait_for("event", event, "address"):
            return fields(line)["address"]
        raise NotStartedError("\n".join(["the service did not start:", *self.stderr.lines()]))

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self, timeout: float = 10.0) -> int:
        """Wait for its end; return its exit status, or raise subprocess.TimeoutExpired."""
        return self._process.wait(timeout)

    def stop(self, timeout: float = 10.0) -> int:
        """End it, by force if it takes longer than `timeout` seconds; return its exit status."""
        if self._process.poll() is None:
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGCONT)  # it may be frozen
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self.wait()
