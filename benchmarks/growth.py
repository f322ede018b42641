"""How the cost of a call grows: with methods, with calls at once, with bytes, with messages."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from protos import echo_pb2

from .echo import method_path
from .experiments import Costs, shuffled
from .variants import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .laboratory import Laboratory
    from .load import Loader
    from .measured import Measured
    from .plan import Plan
    from .trial import Trial

STACKS: Final = ("bare", "official", "ours")
_VARIANTS = [VARIANTS[f"server-sync-{stack}"] for stack in STACKS]


def growth(laboratory: Laboratory, plan: Plan) -> dict[str, dict[str, Costs]]:
    """Measure what each point of each dimension costs, on processes that have seen nothing else."""
    return {
        dimension: {str(point): _costs(laboratory, plan, dimension, point) for point in points}
        for dimension, points in plan.growth.items()
    }


def steps(plan: Plan) -> int:
    """Count how often the growth of a plan advances."""
    return plan.growth_repetitions * len(STACKS) * sum(map(len, plan.growth.values()))


def _costs(laboratory: Laboratory, plan: Plan, dimension: str, point: int) -> Costs:
    found: Costs = defaultdict(list)
    measure = _MEASURES[dimension]
    methods = point if dimension == "methods" else 0
    for repetition in range(plan.growth_repetitions):
        with laboratory.measure(shuffled(_VARIANTS, repetition), methods=methods) as measured:
            for one in measured:
                measure(one, laboratory.loader, max(plan.growth_calls // 4, methods), point)
            for one in measured:
                trial = measure(one, laboratory.loader, plan.growth_calls, point)
                found[one.variant.stack].append(trial.microseconds)
                laboratory.advance()
    return found


def _methods(one: Measured, loader: Loader, calls: int, point: int) -> Trial:
    return one.unary(loader, calls, paths=[method_path(number) for number in range(point)])


def _concurrent_calls(one: Measured, loader: Loader, calls: int, point: int) -> Trial:
    return one.unary(loader, max(calls, 2 * point), concurrency=point)


def _message_bytes(one: Measured, loader: Loader, calls: int, point: int) -> Trial:
    message = echo_pb2.EchoRequest(msg="x" * point).SerializeToString()
    return one.unary(loader, max(50, calls // (1 + point // 16_384)), message)


def _messages_per_stream(one: Measured, loader: Loader, calls: int, point: int) -> Trial:
    return one.streams(loader, max(2, calls // (1 + point // 10)), point)


_MEASURES: Final[dict[str, Callable[[Measured, Loader, int, int], Trial]]] = {
    "methods": _methods,
    "concurrent calls": _concurrent_calls,
    "message bytes": _message_bytes,
    "messages per stream": _messages_per_stream,
}
