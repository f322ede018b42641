"""What fleets of both services take, by arithmetic from what `benchmarks.capacity` has measured of one of each."""

from __future__ import annotations

import re
from math import ceil, floor, log10

PODS = (10, 1_000, 100_000)
"""Pods of a fleet, half of them of each service."""
CALLS = 100
"""Calls a second that each pod of Service B gets, each of which is one of A's."""
SPANS, LINES = 3, 3
"""Spans and log lines of a call: B's as the callee and the caller, and A's."""
INTERVAL, MEASURED_INTERVAL = 15, 5
"""Seconds between scrapes: in the fleet, and where it was measured."""
UNDECIDED, WAIT = 20_000, 10
"""Traces that a sampler has room for, and seconds for which it keeps each."""
LARGEST = 10_000_000
"""Series of the largest Prometheus that one wants."""


def fleet(measured: str) -> list[tuple[str, ...]]:
    """Return a table of what fleets take, computed from the tables of `benchmarks.capacity`, as Markdown has them."""
    cores = {
        name: float(value) for name, value in re.findall(r"^\| ([A-Z].+?) \| (\d\.\d+) \|", measured, re.MULTILINE)
    }
    services = cores["Service A"] + cores["Service B"]
    collector = cores["Collector, gateway"] + cores["Collector, both samplers"]
    [series] = re.findall(r"^\| all \| ([\d,]+) \| ([\d,]+) \|", measured, re.MULTILINE)
    [(memory, base)] = re.findall(r"^\| Memory \| (\d+) MB, beside (\d+) MB", measured, re.MULTILINE)
    each = sum(int(count.replace(",", "")) for count in series) / 2

    def column(pods: int) -> tuple[str, ...]:
        calls = pods / 2 * CALLS
        found = each * pods
        samplers = max(2, ceil(calls * WAIT / UNDECIDED))
        return (
            f"{pods:,}",
            rounded(calls),
            rounded(services * calls / 1_000),
            rounded(LINES * calls),
            rounded(SPANS * calls),
            f"{rounded(collector * calls / 1_000)}, in {samplers:,} samplers",
            rounded(found),
            rounded(found / INTERVAL),
            rounded(cores["Cores"] * found / 100_000 * MEASURED_INTERVAL / INTERVAL),
            f"{rounded((found / 100_000 * int(memory) + int(base)) / 1_000)} GB, in {ceil(found / LARGEST):,}",
        )

    names = (
        "Pods",
        "Calls a second through B to A",
        "Cores of both services",
        "Log lines a second",
        "Spans a second",
        "Cores of the Collector",
        "Series",
        "Samples a second",
        "Cores of Prometheus",
        "Memory of Prometheus, in so many",
    )
    return list(zip(names, *map(column, PODS), strict=True))


def rounded(value: float) -> str:
    """Return a number with two digits that count."""
    places = 1 - floor(log10(value))
    return f"{round(value, places):,.{max(0, places)}f}"
