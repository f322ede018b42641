"""What a run found, as it stands in results.json."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, cast

from .process import ROOT

if TYPE_CHECKING:
    from pathlib import Path


class Place(NamedTuple):
    """Where the results of a run go."""

    results: Path
    chart: Path


FULL = Place(ROOT / "benchmarks" / "results.json", ROOT / "docs" / "overhead.svg")
"""What the README shows."""
PAGE = ROOT / "docs" / "performance.md"
"""What has tables of the full run's results."""
QUICK = Place(ROOT / "build" / "benchmarks" / "results.json", ROOT / "build" / "benchmarks" / "overhead.svg")
"""Out of git's sight: too few calls to be shown."""


class Results(TypedDict):
    """All of it. Lists have one number per repetition, in order, so that the variants of one can be compared."""

    about: dict[str, Any]
    """When, on what machine, with which versions, from which load, how much."""
    costs: dict[str, list[float]]
    """By variant: µs of the measured process's CPU per unary call."""
    reported: dict[str, dict[str, int]]
    """By variant: how many calls there were, and how many of them lines, counts and spans reported."""
    throughput: dict[str, list[float]]
    """By variant: messages a second of streams of 10,000 messages."""
    memory: dict[str, int]
    """By calls so far: bytes resident."""
    latencies: dict[str, list[float]]
    """99th percentile in ms: `bare`, ours with a receiver that is `live` and one that is `hung`, and `official`."""
    growth: dict[str, dict[str, dict[str, list[float]]]]
    """By dimension, point and stack: µs of the sync server's CPU per call (per stream, for messages per stream)."""
    goals: list[dict[str, Any]]
    """What is aimed at and what it came to, derived from the above."""
    losses: list[str]
    """What was not reported that should have been, in words; empty when all is well."""


def read(path: Path) -> Results:
    """Read a run's results."""
    return cast("Results", json.loads(path.read_text()))


def write(results: Results, path: Path) -> None:
    """Write a run's results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
