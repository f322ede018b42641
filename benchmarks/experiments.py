"""The experiments. Each starts what it needs afresh, repetition for repetition, and ends it again."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import asdict
from math import ceil
from typing import TYPE_CHECKING

from .plan import STREAM_MESSAGES
from .trial import Told, percentile
from .variants import STREAMING, UNARY, VARIANTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .laboratory import Laboratory
    from .plan import Plan
    from .variants import Variant

_OURS = VARIANTS["server-sync-ours"]
_BARE = VARIANTS["server-sync-bare"]

Costs = dict[str, list[float]]


def costs(laboratory: Laboratory, plan: Plan) -> tuple[Costs, dict[str, dict[str, int]]]:
    """Measure what a unary call costs each variant, and count what each tells of them."""
    found: Costs = defaultdict(list)
    told: dict[str, Told] = defaultdict(Told)
    for repetition in range(plan.repetitions):
        for variants in UNARY.values():
            with laboratory.measure(shuffled(variants, repetition)) as measured:
                for one in measured:
                    one.unary(laboratory.loader, plan.warm_up)
                for one in measured:
                    trial = one.unary(laboratory.loader, plan.calls)
                    found[one.variant.key].append(trial.microseconds)
                    told[one.variant.key] += one.told
                    laboratory.advance()
    return found, {key: asdict(of_variant) for key, of_variant in told.items()}


def throughput(laboratory: Laboratory, plan: Plan) -> Costs:
    """Measure how many messages a second a stream has, bare and with ours."""
    found: Costs = defaultdict(list)
    for repetition in range(plan.repetitions):
        for variants in STREAMING.values():
            with laboratory.measure(shuffled(variants, repetition)) as measured:
                for one in measured:
                    one.streams(laboratory.loader, 1, STREAM_MESSAGES // 10)
                for one in measured:
                    trial = one.streams(laboratory.loader, plan.streams)
                    found[one.variant.key].append(plan.streams * STREAM_MESSAGES / trial.seconds)
                    laboratory.advance()
    return found


def memory(laboratory: Laboratory, plan: Plan) -> tuple[dict[str, int], dict[str, int]]:
    """Measure our sync server's memory as it serves, and count what it tells of a load that goes on and on."""
    found = {}
    with laboratory.measure([_OURS]) as (ours,):
        for until in plan.memory:
            while (left := until - ours.told.calls) > 0:
                ours.unary(laboratory.loader, min(left, plan.memory[0] // 2))
                laboratory.advance()
            found[str(until)] = ours.resident_bytes()
        return found, asdict(ours.told)


def latencies(laboratory: Laboratory, plan: Plan) -> Costs:
    """Measure the 99th percentile at half of what our sync server can do, its receiver live and hung."""
    found: Costs = defaultdict(list)
    for _ in range(plan.latency_repetitions):
        with (
            laboratory.measure([_BARE, _OURS]) as (bare, live),
            laboratory.measure([_OURS], hung=True) as (hung,),
        ):
            trial = live.unary(laboratory.loader, plan.calls)
            per_second = plan.calls / trial.seconds / 2
            for name, one in (("bare", bare), ("live", live), ("hung", hung)):
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
        plan.repetitions * sum(len(variants) for group in (UNARY, STREAMING) for variants in group.values())
        + plan.latency_repetitions * 3
        + 2
        + ceil((many - few) / (few // 2))
    )


def shuffled(variants: Sequence[Variant], repetition: int) -> list[Variant]:
    """Put variants in another order for each repetition, the same in each run."""
    order = list(variants)
    random.Random(repetition).shuffle(order)  # noqa: S311 - no secret
    return order
