"""Calls for a server: from h2load where it is installed, else from a client of our own."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import grpc

from .plan import CONCURRENCY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .variants import Caller

_TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"
"""A traceparent without its last digit, which says whether the caller sampled the trace."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to send to one server."""

    address: str
    paths: Sequence[str]
    """The methods, called in turn."""
    message: bytes
    """The request, serialised."""
    calls: int
    concurrency: int = CONCURRENCY
    caller: Caller = "sampled"


class Loader(Protocol):
    """Sends a load to its end."""

    name: str

    def run(self, load: Load) -> float:
        """Send as fast as the concurrency allows, and return how many seconds it took."""

    def paced(self, load: Load, per_second: float) -> list[float]:
        """Send at a steady pace, and return how many milliseconds each call took."""


class H2Load:
    """nghttp2's own, which costs next to nothing beside a Python server."""

    _CLIENTS = 20
    """How many share a steady pace: h2load's clock ticks at 10 ms, so one alone would send in bursts."""

    def __init__(self, program: str) -> None:
        self._program = program
        version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)  # noqa: S603 - found by its name
        self.name = version.stdout.strip().replace("nghttp2/", "")

    def run(self, load: Load) -> float:
        """Send as fast as the concurrency allows, on one connection, and return how many seconds it took."""
        with tempfile.TemporaryDirectory() as folder:
            return seconds_of(self._send(Path(folder), load, "-c1", f"-m{load.concurrency}"))

    def paced(self, load: Load, per_second: float) -> list[float]:
        """Send at a steady pace, and return how many milliseconds each call took."""
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            self._send(
                Path(folder),
                load,
                f"-c{self._CLIENTS}",
                "-m4",
                "--rate=1",
                "--rate-period=1ms",
                f"--rps={per_second / self._CLIENTS:.3f}",
                f"--log-file={log}",
            )
            return [int(line.split("\t")[2]) / 1_000 for line in log.read_text().splitlines()]

    def _send(self, folder: Path, load: Load, *options: str) -> str:
        body, addresses = folder / "body", folder / "addresses"
        body.write_bytes(framed(load.message))
        addresses.write_text("".join(f"http://{load.address}{path}\n" for path in load.paths))
        said = subprocess.run(  # noqa: S603 - found by its name
            [
                self._program,
                f"-n{load.calls}",
                f"-d{body}",
                f"-i{addresses}",
                "-Hcontent-type: application/grpc",
                "-Hte: trailers",
                *(f"-H{key}: {value}" for key, value in metadata(load.caller)),
                *options,
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        return said.stdout


class OwnClient:
    """A Python client: it costs about as much as the server that it calls, on the other core."""

    name = "our own client (h2load is not installed)"

    def run(self, load: Load) -> float:
        """Send as fast as the concurrency allows, and return how many seconds it took."""
        started = time.perf_counter()
        self._send(load, interval=0.0)
        return time.perf_counter() - started

    def paced(self, load: Load, per_second: float) -> list[float]:
        """Send at a steady pace, and return how many milliseconds each call took."""
        return self._send(load, interval=1 / per_second)

    def _send(self, load: Load, interval: float) -> list[float]:
        taken: list[float] = []
        sent = metadata(load.caller)
        with grpc.insecure_channel(load.address) as channel, ThreadPoolExecutor(load.concurrency) as pool:
            # A stream of one message is what a unary method answers with, too.
            methods: list[grpc.UnaryStreamMultiCallable[bytes, bytes]] = [
                channel.unary_stream(path) for path in load.paths
            ]
            start = time.perf_counter()

            def call(number: int) -> None:
                time.sleep(max(0.0, start + number * interval - time.perf_counter()))
                started = time.perf_counter()
                for _ in methods[number % len(methods)](load.message, metadata=sent):
                    pass
                taken.append((time.perf_counter() - started) * 1_000)

            for _ in pool.map(call, range(load.calls)):
                pass
        return taken


def framed(message: bytes) -> bytes:
    """Put gRPC's five bytes, not compressed and so long, before a message."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def metadata(caller: Caller) -> tuple[tuple[str, str], ...]:
    """Return the metadata that such a caller sends: a traceparent, or nothing."""
    return () if caller == "untraced" else (("traceparent", f"{_TRACE}{int(caller == 'sampled')}"),)


def seconds_of(said: str) -> float:
    """
    Read in what h2load says at its end how long it took.

    Raises ValueError when it says that a call failed. It knows HTTP's status alone: grpc's is in the trailers,
    which is one more reason to count the calls on the server.
    """
    taken = re.search(r"^finished in ([\d.]+)(us|ms|s),", said, re.MULTILINE)
    requests = re.search(r"(\d+) total, .* (\d+) succeeded, 0 failed, 0 errored", said)
    if taken is None or requests is None or requests[1] != requests[2]:
        raise ValueError(f"h2load said: {said}")
    return float(taken[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[taken[2]]


def loader() -> Loader:
    """Take h2load where it is installed, else a client of our own."""
    program = shutil.which("h2load")
    return H2Load(program) if program else OwnClient()
