"""
What several processes of Service A do on the cores that there are: `python -m benchmarks.scale` prints a table.

Each process has a port of its own and a connection of its own, from h2load where it is installed, on the same cores.
So calls per second grow until the cores are all taken; processor time per call says what a process really costs.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import click
import psutil

from client.processes import Service
from protos.echo_pb2 import EchoRequest

from .load import Load, loader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .load import Loader

COPIES = (1, 2, 4)
WARM_UP = 1_000
"""Calls of each process before those that are measured."""
CALLS = 12_000
"""Calls that are measured, of all processes together."""
RUNS = 3


class Measured(NamedTuple):
    """What came out for a number of processes, the median of the runs."""

    copies: int
    per_second: float
    processor_micros: float
    """Of the processes, for a call."""


def measure(load: Loader, copies: int) -> Measured:
    """Start so many processes, and measure them."""
    with ExitStack() as stack:
        services = [stack.enter_context(Service("service-a", OTEL_TRACES_EXPORTER="none")) for _ in range(copies)]
        addresses = [service.address for service in services]
        pool = stack.enter_context(ThreadPoolExecutor(copies))

        def send(calls: int) -> float:
            loads = [Load(address, ["/echo.v1.EchoService/Echo"], message, calls) for address in addresses]
            return max(pool.map(load.run, loads))

        message = EchoRequest(msg="hello").SerializeToString()
        send(WARM_UP)
        pids = [service.pid for service in services]
        runs = []
        for _ in range(RUNS):
            before = processor_seconds(pids)
            seconds = send(CALLS // copies)
            runs.append((CALLS / seconds, (processor_seconds(pids) - before) / CALLS * 1e6))
    per_second, micros = (sorted(values)[RUNS // 2] for values in zip(*runs, strict=True))
    return Measured(copies, per_second, micros)


def processor_seconds(pids: Iterable[int]) -> float:
    """Return what these processes have taken of the processor."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(time.user + time.system for time in times)


def main() -> int:
    """Measure each number of processes, and print the table."""
    load = loader()
    found = [measure(load, copies) for copies in COPIES]
    rows = [("Processes", "Calls a second", "Beside one", "CPU of a call"), ("---",) * 4]
    for one in found:
        beside = one.per_second / found[0].per_second
        rows.append((str(one.copies), f"{one.per_second:,.0f}", f"{beside:.2f}", f"{one.processor_micros:.0f} µs"))
    click.echo(f"{os.cpu_count()} cores, on which the load is as well: {load.name}; Python {sys.version.split()[0]}\n")
    for row in rows:
        click.echo(f"| {' | '.join(row)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
