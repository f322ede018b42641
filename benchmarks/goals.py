"""What is aimed at: ratios of what instrumentation adds, formed within each repetition; and what must not be lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from .variants import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .results import Results
    from .variants import Variant

_LOST_MORE: Final = 0.02
"""By how much the share of spans that ours loses may exceed the official package's."""
_SUSTAINED: Final = VARIANTS["server-sync-ours"]
"""What the memory experiment runs, on and on."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio that should be at most (or at least) so much; without a limit it is reported only."""

    text: str
    ratios: Sequence[float]
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ratio(self) -> float:
        """The median of the repetitions."""
        return median(self.ratios)

    @property
    def limit(self) -> str:
        """The aim, for people."""
        if self.at_most is not None:
            return f"≤ {self.at_most:.2f}"
        return "reported" if self.at_least is None else f"≥ {self.at_least:.2f}"

    @property
    def met(self) -> bool | None:
        """Whether it is; None where nothing is aimed at."""
        if self.at_most is not None:
            return self.ratio <= self.at_most
        return None if self.at_least is None else self.ratio >= self.at_least

    def reported(self) -> dict[str, Any]:
        """Return it for results.json."""
        return {"goal": self.text, "ratio": round(self.ratio, 3), "limit": self.limit, "met": self.met}


_ADDED: Final[tuple[tuple[str, str, str, float], ...]] = (
    ("sync server: ours / assembled", "server-sync-ours", "server-sync-assembled", 0.45),
    ("sync server: ours / official", "server-sync-ours", "server-sync-official", 0.80),
    (
        "sync server, not sampled: ours / assembled",
        "server-sync-ours-unsampled",
        "server-sync-assembled-unsampled",
        0.48,
    ),
    (
        "sync server, no traceparent: ours / assembled",
        "server-sync-ours-untraced",
        "server-sync-assembled-untraced",
        0.45,
    ),
    (
        "sync server, no traceparent: ours / official",
        "server-sync-ours-untraced",
        "server-sync-official-untraced",
        0.80,
    ),
    ("sync client: ours / official", "client-sync-ours", "client-sync-official", 0.75),
    ("asyncio server: ours / official", "server-aio-ours", "server-aio-official", 0.76),
    ("asyncio client: ours / official", "client-aio-ours", "client-aio-official", 0.80),
    (
        "metrics alone: ours / grpcio-observability",
        "server-sync-ours-metrics",
        "server-sync-grpcio-observability",
        0.54,
    ),
)
"""What is compared by the CPU time that it adds to the bare call's."""

_STREAMED: Final = (
    ("sync server", "server-sync"),
    ("asyncio server", "server-aio"),
    ("sync client", "client-sync"),
    ("asyncio client", "client-aio"),
)


def added(results: Results, key: str) -> list[float]:
    """Return what a variant adds to the bare call of the same repetition, in µs."""
    costs = results["costs"]
    return [cost - bare for cost, bare in zip(costs[key], costs[VARIANTS[key].bare.key], strict=True)]


def goals(results: Results) -> list[Goal]:
    """Work out every goal's ratio."""
    return [*_of_cpu(results), *_of_streams(results), _of_memory(results), *_of_latencies(results)]


def _of_cpu(results: Results) -> list[Goal]:
    return [
        Goal(text, _ratios(added(results, ours), added(results, theirs)), at_most)
        for text, ours, theirs, at_most in _ADDED
    ]


def _of_streams(results: Results) -> list[Goal]:
    rates = results["throughput"]
    return [
        Goal(
            f"streams, {party}: ours / bare, messages/s",
            _ratios(rates[f"{key}-ours"], rates[f"{key}-bare"]),
            at_least=0.97,
        )
        for party, key in _STREAMED
    ]


def _of_memory(results: Results) -> Goal:
    (few, before), (many, after) = ((int(calls), size) for calls, size in results["memory"].items())
    return Goal(f"memory: after {many:,} calls / {few:,}", [after / before], 1.05)


def _of_latencies(results: Results) -> list[Goal]:
    found = results["latencies"]
    return [
        Goal("p99 at half load: ours / official", _ratios(found["live"], found["official"]), 0.25),
        Goal("p99 at half load: receiver hung / live", _ratios(found["hung"], found["live"])),
    ]


def _ratios(some: Sequence[float], others: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(some, others, strict=True)]


def losses(results: Results) -> list[str]:
    """
    Return, in words, what was not reported that should have been.

    Every line and every handled count of ours must be there, once; and of its spans the share that the official
    package got through, or more.
    """
    reported = results["reported"]
    ours = {key: VARIANTS.get(key, _SUSTAINED) for key in reported}
    return [
        f"{key}: {reported[key][signal]:,} {signal} of {reported[key]['calls']:,} calls"
        for key, variant in ours.items()
        for signal in sorted(variant.signals)
        if variant.stack.startswith("ours") and not _enough(reported, key, variant, signal)
    ]


def _enough(reported: dict[str, dict[str, int]], key: str, variant: Variant, signal: str) -> bool:
    share = reported[key][signal] / reported[key]["calls"]
    if signal != "spans":
        return share == 1
    official = reported[replace(variant, stack="official").key]
    return min(1.0, official["spans"] / official["calls"]) - _LOST_MORE <= share <= 1
