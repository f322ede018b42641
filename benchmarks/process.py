"""The benchmark's own programs, each in a separate process, that answer questions."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
_OURS = ("OTEL_", "OBSERVABILITY_", "LOG_", "GRPC_")
_PATIENCE = 10.0
"""Seconds that a process has for its own end, before it is ended."""


_USABLE = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
"""The cores that there were before anything was pinned."""


def pin(core: int | None) -> None:
    """Keep this process, and what it starts, on one core; None where the system cannot, or there is only one."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def cores() -> tuple[int | None, int | None]:
    """Return the core for what is measured and the core for everything else."""
    return (_USABLE[0], _USABLE[-1]) if len(_USABLE) > 1 else (None, None)


@contextmanager
def _anywhere() -> Iterator[None]:
    """Let what is started here start on any core: nothing is measured meanwhile, and it pins itself."""
    if not _USABLE:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, _USABLE)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Process:
    """
    One of this package's modules, run as a program, on `core` if one is given.

    Its environment is ours without the variables that would change what is measured. What it writes on stdout
    goes to the file `stdout`, as a service's lines do.
    """

    def __init__(
        self, module: str, *arguments: str, core: int | None, stdout: Path, environment: dict[str, str]
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        here, there = socket.socketpair()
        pinned = [] if core is None else [f"--core={core}"]
        with stdout.open("wb") as lines, there, _anywhere():
            self._process = subprocess.Popen(  # noqa: S603 - a module of ours
                [sys.executable, "-m", f"{__package__}.{module}", f"--wire={there.fileno()}", *pinned, *arguments],
                cwd=ROOT,
                env=inherited | environment,
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=lines,
            )
        self._wire = Wire(here)

    def ready(self) -> Any:
        """Wait until the process has started, and return what it says of itself."""
        return self._wire.receive()

    def ask(self, question: str, **arguments: object) -> Any:
        """Ask, and wait for the answer."""
        self._wire.send([question, arguments])
        return self._wire.receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wire.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
