"""Third-party programs, from .tools/: run once for their answer, or as a process with an end."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from client.processes import ROOT
from tests.stack.waiting import eventually, responds

TOOLS = ROOT / ".tools"
DEPLOY = ROOT / "deploy"


def run(name: str, *arguments: str | Path, **variables: str) -> str:
    """Run a program of .tools/ from the project's root; return its stdout, or fail with all it said."""
    done = subprocess.run(
        [TOOLS / name, *arguments],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, f"{name} {arguments}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Program:
    """A long-running program, from `with` to its end; its output goes to a file."""

    def __init__(
        self,
        name: str,
        *arguments: str | Path,
        log: Path,
        ready: str,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._command = [TOOLS / name, *arguments]
        self._environment = {**os.environ, **(variables or {})}
        self._log = log
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, once more if it has ended, and wait until it is ready."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process = self._process
        eventually(lambda: process.poll() is not None or responds(self._ready))
        assert process.poll() is None, self._log.read_text()

    @property
    def pid(self) -> int:
        """Its process id, once it has been started."""
        assert self._process
        return self._process.pid

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process:
            self._process.kill()
            self._process.wait()
