"""Tells of calls after their end, many at once, in a thread of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc

from .batches import Batches
from .call import finish, start

if TYPE_CHECKING:
    from .call import Call, Finish, Observer, Outcome, Pending

DELAY_SECONDS: Final = 0.02
"""How long a call that succeeded waits to be told, at most; one that failed is told at once."""
CALL_LIMIT: Final = 8192
"""How many ended calls wait at most; beyond that, whoever ends a call tells it."""

_SETTLE_SECONDS: Final = 0.5


class Teller:
    """
    Lets observers start with a call and finish after its end, many calls at once, which costs half as much.

    What is told is decided at the end: only the telling waits.
    """

    def __init__(self) -> None:
        self._ended: Batches[tuple[Pending, Outcome]] = Batches(
            self._tell, name="observability-teller", delay=DELAY_SECONDS, limit=CALL_LIMIT
        )

    def later(self, *observers: Observer) -> Observer:
        """Make one observer of these, which finishes them later."""

        def observe(call: Call) -> Finish:
            pending = start(observers, call)

            def finish_later(outcome: Outcome) -> None:
                if not self._ended.put((pending, outcome)):
                    finish(pending, outcome)
                elif outcome.code is not grpc.StatusCode.OK:
                    self._ended.hurry()

            return finish_later

        return observe

    def settle(self) -> None:
        """Tell of all that has ended, before somebody looks."""
        self.flush(_SETTLE_SECONDS)

    def flush(self, seconds: float) -> bool:
        """Tell of all that has ended, for this long at most; tell whether it is told."""
        return self._ended.flush(seconds)

    @staticmethod
    def _tell(ended: list[tuple[Pending, Outcome]]) -> None:
        for pending, outcome in ended:
            finish(pending, outcome)
