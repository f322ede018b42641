"""Programs of this project as PID 1, as in a container, and the signals that they get while they start."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

import psutil

from client.processes import ROOT, environment
from tests.support.outputs import outputs

PROGRAMS = {
    "service-a": ("service-a", "app.py", "--port", "0"),
    "service-b": ("service-b", "app.py", "--port", "0"),
    "client": (".", "client", "chat"),
}
"""The folder and the command line of each."""


class Starting:
    """One of the programs while it starts, from `with` to its end."""

    def __init__(self, program: str, pid_1: Sequence[str]) -> None:
        folder, *command = PROGRAMS[program]
        self._unshare = subprocess.Popen(
            [*pid_1, sys.executable, *command],
            cwd=ROOT / folder,
            env=environment(OTEL_EXPORTER_PROMETHEUS_PORT="0", OTEL_TRACES_EXPORTER="none"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def __enter__(self) -> Self:
        """Wait until it hears signals."""
        unshare = psutil.Process(self._unshare.pid)
        self._stdout, self._stderr = outputs(self._unshare)
        wait_until(lambda: bool(unshare.children()))
        (self._program,) = unshare.children()
        self._files = Path(f"/proc/{self._program.pid}")
        wait_until(self._hears)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unshare.kill()  # and with it, the program
        self._unshare.wait()
        cast("IO[str]", self._unshare.stdin).close()

    @property
    def listens(self) -> bool:
        """Whether a service has said that it does."""
        return bool(self._stdout.lines("event=listening"))

    @property
    def has_grpc(self) -> bool:
        """Whether its imports have come to grpc's core."""
        return "cygrpc" in (self._files / "maps").read_text()

    def wait_for_grpc(self) -> None:
        """Wait until they have."""
        wait_until(lambda: self.has_grpc)

    def end(self, number: signal.Signals) -> tuple[int, str, float]:
        """Send it a signal; return its exit status, what it wrote to stderr, and the seconds that it took to end."""
        start = time.monotonic()
        self._program.send_signal(number)
        status = self._unshare.wait(10)
        seconds = time.monotonic() - start
        return status, "\n".join(self._stderr.wait_for_end()), seconds

    def _hears(self) -> bool:
        (caught,) = [line for line in (self._files / "status").read_text().splitlines() if line.startswith("SigCgt:")]
        # SIGINT is caught before by Python itself, and by our programs before SIGTERM.
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def wait_until(happened: Callable[[], bool]) -> None:
    """Wait for what comes within 20 seconds."""
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.001)
