"""How much is measured: in a full run, in a quick one, and in the tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of one run. Costs come from medians over `repetitions`, each with fresh processes."""

    repetitions: int
    """Interleaved rounds of every variant. A ratio is formed within each of them."""
    warm_up: int
    """Calls before each process is measured for the first time."""
    turns: int
    """In how many turns of a repetition each variant is measured; the median is not of one that others disturbed."""
    calls: int
    """Calls measured per variant and turn."""
    streams: int
    """Streams of 10,000 messages measured per side, style and repetition."""
    memory: tuple[int, int]
    """Resident memory is compared after this many calls and after that many."""
    latency_repetitions: int
    """As `repetitions`, for the latencies."""
    latency_seconds: float
    """How long half the load lasts, for its 99th percentile."""
    growth_repetitions: int
    """As `repetitions`, for each point of the growth tables."""
    growth_calls: int
    """Calls measured for one point of the growth tables."""
    growth: dict[str, tuple[int, ...]]
    """The points of the growth tables."""


CONCURRENCY = 8
"""Calls that are open at once by default: fewer than a sync server has threads."""

STREAM_MESSAGES = 10_000
STREAM_BYTES = 100

FULL = Plan(
    repetitions=5,
    warm_up=1_000,
    turns=5,
    calls=800,
    streams=3,
    memory=(10_000, 100_000),
    latency_repetitions=3,
    latency_seconds=5.0,
    growth_repetitions=3,
    growth_calls=1_500,
    growth={
        "methods": (1, 100, 1_000),
        "concurrent calls": (1, 16, 256),
        "message bytes": (16, 65_536, 1_048_576),
        "messages per stream": (1, 100, 10_000),
    },
)
"""Under 15 minutes. What a call leaves behind shows early: one object for each is more than 5 % of the memory."""

QUICK = Plan(
    repetitions=5,
    warm_up=200,
    turns=3,
    calls=300,
    streams=1,
    memory=(2_000, 20_000),
    latency_repetitions=1,
    latency_seconds=0.7,
    growth_repetitions=1,
    growth_calls=300,
    growth={
        "methods": (1, 1_000),
        "concurrent calls": (1, 256),
        "message bytes": (16, 1_048_576),
        "messages per stream": (1, 10_000),
    },
)
