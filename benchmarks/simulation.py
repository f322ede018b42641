"""
Balancing and retry storms where there are more processes than a machine has: `python -m benchmarks.simulation`.

Nothing is measured here: chance is played with fixed seeds, so that each run prints the same tables, which are those of
docs/scale.md. What is assumed stands with each.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEED = 17

# --- Balancing: what the worst of many copies gets.

CALLS = 10
"""Calls of each caller, in the second that is looked at."""
SUBSET = 20
"""Copies that each caller has chosen at random, where it does not connect to all."""
FLEETS = ((10, 3), (10, 100), (100, 10), (1_000, 100), (10_000, 1_000))
"""Callers and copies."""


def one_connection(random: Random, copies: int) -> Iterator[int]:
    """Yield the copy that each of a caller's calls goes to: all to one, as through one address for all."""
    copy = int(random.random() * copies)
    while True:
        yield copy


def each_at_random(random: Random, copies: int) -> Iterator[int]:
    """Yield a copy at random for each call."""
    while True:
        yield int(random.random() * copies)


def round_robin(random: Random, copies: int) -> Iterator[int]:
    """Yield one copy after the other, beginning anywhere, as gRPC's round_robin does."""
    copy = int(random.random() * copies)
    while True:
        yield copy
        copy = (copy + 1) % copies


def round_robin_of_some(random: Random, copies: int) -> Iterator[int]:
    """Yield one after the other of some copies, which the caller has chosen at random."""
    chosen: list[int] = []
    while len(chosen) < min(SUBSET, copies):
        copy = int(random.random() * copies)
        if copy not in chosen:
            chosen.append(copy)
    for place in round_robin(random, len(chosen)):
        yield chosen[place]


BALANCING: dict[str, Callable[[Random, int], Iterator[int]]] = {
    "one connection": one_connection,
    "at random": each_at_random,
    "round_robin": round_robin,
    f"round_robin of {SUBSET}": round_robin_of_some,
}


def worst_copy(callers: int, copies: int, choose: Callable[[Random, int], Iterator[int]]) -> float:
    """Return how many times its share the copy gets that gets most."""
    random = Random(SEED)  # noqa: S311 - the same each time, which is what it is for
    calls = [0] * copies
    for _ in range(callers):
        for _, copy in zip(range(CALLS), choose(random, copies), strict=False):
            calls[copy] += 1
    return max(calls) * copies / (callers * CALLS)


# --- Retries: what they make of copies that are gone for a while.

STEP = 0.01
"""Seconds."""
CAPACITY, OFFERED = 500, 400
"""Calls a second: that the copies can answer, and that are made."""
GONE = (10.0, 20.0)
"""From when to when half of the copies are gone, in seconds."""
END = 50.0
PATIENCE = 1.0
"""Seconds that each try has."""
HELD = 1_000
"""Calls that wait at most; more are refused at once."""
DROPPED, ANSWERED = 0.3, 1.0
"""What a call costs that is taken up when nobody waits for it any more, beside one that is answered."""
CALLERS = 50
RECOVERED = 0.999
"""Share of a second's calls that succeed when it is over."""


class Policy(NamedTuple):
    """How a caller tries again."""

    tries: int
    backoff: float = 0.0
    """Seconds before the second try, twice as many before each further one; up to half of it is left to chance."""
    budget: bool = False
    """Whether tries are given up when many fail, as by gRPC's retryThrottling of 10 tokens and a ratio of 0.1."""


RETRIES = {
    "none": Policy(1),
    "3 tries, at once": Policy(3),
    "3 tries, after 0.1 and 0.2 s": Policy(3, 0.1),
    "3 tries, after 0.1 and 0.2 s, with a budget": Policy(3, 0.1, budget=True),
}


class Storm(NamedTuple):
    """What came of it."""

    amplification: float
    """Tries for each call that was made while copies were gone."""
    lost: float
    """Share of these calls that failed in the end."""
    recovery: float | None
    """Seconds after the copies came back until nearly all calls succeed again; None if they did not."""


@dataclass(slots=True)
class Try:
    """One try of a call."""

    call: int
    number: int
    sent: float
    over: bool = False
    """Whether nobody waits for it any more."""


class Play:
    """One play of a policy: calls that are made, wait, are answered or given up, and are tried again."""

    def __init__(self, policy: Policy, dead: float) -> None:
        self._policy = policy
        self._dead = dead
        self._random = Random(SEED)  # noqa: S311 - the same each time, which is what it is for
        self._tokens = [10.0] * CALLERS
        self._waiting: deque[Try] = deque()
        self._patient: deque[Try] = deque()
        self._later: dict[int, list[Try]] = {}
        self._made: list[float] = []
        self._tries: list[int] = []
        self._succeeded: list[bool] = []
        self._step = 0

    def storm(self) -> Storm:
        """Play it to its end, and return what came of it."""
        ready = 0.0
        for self._step in range(round(END / STEP)):
            for again in self._later.pop(self._step, ()):
                self._send(again)
            for _ in range(round(OFFERED * STEP)):
                self._call()
            while self._patient and self._now - self._patient[0].sent >= PATIENCE:
                if not (late := self._patient.popleft()).over:
                    self._fail(late)
            # What could be done in a step that had nothing to do is lost.
            ready = min(ready, 1.0) + STEP * (CAPACITY / 2 if GONE[0] <= self._now < GONE[1] else CAPACITY)
            while self._waiting and ready >= 1:
                taken = self._waiting.popleft()
                ready -= self._dead if taken.over else 1.0
                if not taken.over:
                    self._succeed(taken)
        return self._judged()

    @property
    def _now(self) -> float:
        return self._step * STEP

    def _call(self) -> None:
        self._made.append(self._now)
        self._tries.append(0)
        self._succeeded.append(False)
        self._send(Try(len(self._made) - 1, 1, self._now))

    def _send(self, new: Try) -> None:
        self._tries[new.call] += 1
        if len(self._waiting) >= HELD:
            self._fail(new)
        else:
            self._waiting.append(new)
            self._patient.append(new)

    def _succeed(self, answered: Try) -> None:
        answered.over = True
        self._succeeded[answered.call] = True
        caller = answered.call % CALLERS
        self._tokens[caller] = min(10.0, self._tokens[caller] + 0.1)

    def _fail(self, failed: Try) -> None:
        failed.over = True
        caller = failed.call % CALLERS
        self._tokens[caller] = max(0.0, self._tokens[caller] - 1)
        allowed = self._tokens[caller] > 5 or not self._policy.budget  # noqa: PLR2004 - half of the tokens
        if failed.number < self._policy.tries and allowed:
            pause = self._policy.backoff * 2 ** (failed.number - 1) * (0.5 + self._random.random() / 2)
            step = self._step + max(1, round(pause / STEP))
            self._later.setdefault(step, []).append(Try(failed.call, failed.number + 1, step * STEP))

    def _judged(self) -> Storm:
        during = [call for call, made in enumerate(self._made) if GONE[0] <= made < GONE[1]]
        seconds: dict[int, list[bool]] = {}
        for made, succeeded in zip(self._made, self._succeeded, strict=True):
            seconds.setdefault(int(made), []).append(succeeded)
        # The last calls have had no time to be answered.
        bad = [s for s in range(int(END - 5)) if sum(seconds[s]) < RECOVERED * len(seconds[s])]
        recovery = max(0.0, bad[-1] + 1 - GONE[1]) if bad else 0.0
        return Storm(
            sum(self._tries[call] for call in during) / len(during),
            sum(not self._succeeded[call] for call in during) / len(during),
            recovery if recovery < END - 5 - GONE[1] else None,
        )


# --- Retries of retries: what a chain of services makes of one that fails.

CHAINS = (1, 2, 3)
"""Services that each try again, above the one that fails."""
FAILING = (0.1, 0.5, 1.0)
"""Share of its calls that the last one fails."""
TOP = 5_000
"""Calls at the top."""


def amplified(chain: int, failing: float, policy: Policy) -> float:
    """Return how many calls the last service gets for each call at the top."""
    random = Random(SEED)  # noqa: S311 - the same each time, which is what it is for
    tokens = [10.0] * chain
    reached = 0

    def call(above: int) -> bool:
        nonlocal reached
        if above == 0:
            reached += 1
            return random.random() >= failing
        for number in range(policy.tries):
            if number and policy.budget and tokens[above - 1] <= 5:  # noqa: PLR2004 - half of the tokens
                break
            if call(above - 1):
                tokens[above - 1] = min(10.0, tokens[above - 1] + 0.1)
                return True
            tokens[above - 1] = max(0.0, tokens[above - 1] - 1)
        return False

    for _ in range(TOP):
        call(chain)
    return reached / TOP


def _cells(storm: Storm) -> tuple[str, ...]:
    recovery = "never" if storm.recovery is None else f"{storm.recovery:.0f} s" if storm.recovery else "at once"
    return f"{storm.amplification:.2f}", _percent(storm.lost), recovery


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def tables() -> Iterator[list[tuple[str, ...]]]:
    """Yield the tables, each with the names of its columns first."""
    yield [
        ("Callers", "Copies", *BALANCING),
        *(
            (f"{callers:,}", f"{copies:,}", *(f"{worst_copy(callers, copies, way):.2f}" for way in BALANCING.values()))
            for callers, copies in FLEETS
        ),
    ]
    yield [
        ("Retries", *("Tries for a call", "Lost", "Well again after") * 2),
        *(
            (name, *_cells(Play(policy, DROPPED).storm()), *_cells(Play(policy, ANSWERED).storm()))
            for name, policy in RETRIES.items()
        ),
    ]
    without, within = Policy(3), Policy(3, budget=True)
    yield [
        ("Services that try again", *(f"{_percent(failing)} fail" for failing in FAILING)),
        *(
            (
                str(chain),
                *(
                    f"{amplified(chain, failing, without):.2f}, {amplified(chain, failing, within):.2f}"
                    for failing in FAILING
                ),
            )
            for chain in CHAINS
        ),
    ]


def markdown(table: list[tuple[str, ...]]) -> str:
    """Return a table as Markdown has it."""
    head, *rows = table
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def main() -> int:
    """Print the tables."""
    for table in tables():
        click.echo(f"{markdown(table)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
