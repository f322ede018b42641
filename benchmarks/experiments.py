"""The experiments. Each starts what it needs afresh, repetition for repetition, and ends it again."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from math import ceil
from statistics import median
from typing import TYPE_CHECKING

from .plan import STREAM_MESSAGES
from .trial import Reported, percentile
from .variants import STREAMING, UNARY, VARIANTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .laboratory import Laboratory
    from .measured import Measured
    from .plan import Plan
    from .variants import Variant

_OURS = VARIANTS["server-sync-ours"]
_BARE = VARIANTS["server-sync-bare"]
_OFFICIAL = VARIANTS["server-sync-official"]

Costs = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Calls:
    """What calls came to, by variant; a number per repetition."""

    costs: Costs = field(default_factory=lambda: defaultdict(list))
    """µs of CPU per unary call."""
    throughput: Costs = field(default_factory=lambda: defaultdict(list))
    """Messages a second."""
    reported: dict[str, Reported] = field(default_factory=lambda: defaultdict(Reported))
    """What was reported of the unary calls."""


def calls(laboratory: Laboratory, plan: Plan) -> Calls:
    """Measure what a unary call costs each variant, and how fast a stream is, bare and with ours."""
    found = Calls()
    for repetition in range(plan.repetitions):
        for variants in UNARY.values():
            with laboratory.measure(shuffled(variants, repetition)) as measured:
                for one in measured:
                    one.unary(laboratory.loader, plan.warm_up)
                for key, microseconds in _turns(laboratory, plan, measured).items():
                    found.costs[key].append(median(microseconds))
                for one in measured:
                    found.reported[one.variant.key] += one.reported
                _streams(laboratory, plan, [one for one in measured if one.variant in STREAMING], found.throughput)
    return found


def _turns(laboratory: Laboratory, plan: Plan, measured: Sequence[Measured]) -> Costs:
    """Measure what a unary call costs each, turn by turn."""
    found: Costs = defaultdict(list)
    for _ in range(plan.turns):
        for one in measured:
            found[one.variant.key].append(one.unary(laboratory.loader, plan.calls).microseconds)
            laboratory.advance()
    return found


def _streams(laboratory: Laboratory, plan: Plan, measured: Sequence[Measured], found: Costs) -> None:
    for one in measured:
        one.streams(laboratory.loader, 1, STREAM_MESSAGES // 10)
    for one in measured:
        trial = one.streams(laboratory.loader, plan.streams)
        found[one.variant.key].append(plan.streams * STREAM_MESSAGES / trial.seconds)
        laboratory.advance()


def memory(laboratory: Laboratory, plan: Plan) -> tuple[dict[str, int], dict[str, int]]:
    """Measure our sync server's memory as it serves, and count what it reports of a load that goes on and on."""
    found = {}
    with laboratory.measure([_OURS]) as (ours,):
        for until in plan.memory:
            while (left := until - ours.reported.calls) > 0:
                ours.unary(laboratory.loader, min(left, plan.memory[0] // 2))
                laboratory.advance()
            found[str(until)] = ours.resident_bytes()
        return found, asdict(ours.reported)


def latencies(laboratory: Laboratory, plan: Plan) -> Costs:
    """Measure the 99th percentile at half of what our sync server can do, its receiver live and hung, beside others."""
    found: Costs = defaultdict(list)
    for _ in range(plan.latency_repetitions):
        with (
            laboratory.measure([_BARE, _OURS, _OFFICIAL]) as (bare, live, official),
            laboratory.measure([_OURS], hung=True) as (hung,),
        ):
            full = plan.turns * plan.calls
            per_second = full / live.unary(laboratory.loader, full).seconds / 2
            for name, one in (("bare", bare), ("live", live), ("hung", hung), ("official", official)):
                calls = int(per_second * plan.latency_seconds)
                one.latencies(laboratory.loader, plan.warm_up, per_second)
                taken = one.latencies(laboratory.loader, calls, per_second)
                found[name].append(percentile(taken, 99))
                laboratory.advance()
    return found


def steps(plan: Plan) -> int:
    """Count how often a plan's experiments here advance."""
    few, many = plan.memory
    return (
        plan.repetitions * (plan.turns * len(VARIANTS) + len(STREAMING))
        + plan.latency_repetitions * 4
        + 2
        + ceil((many - few) / (few // 2))
    )


def shuffled(variants: Sequence[Variant], repetition: int) -> list[Variant]:
    """Put variants in another order for each repetition, the same in each run."""
    order = list(variants)
    random.Random(repetition).shuffle(order)  # noqa: S311 - no secret
    return order
