"""Tells of calls after their end, many at once, in a thread of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import grpc

from ..threads.finalizers import finalizers
from ..threads.worker import Batches
from .observers import Signals

if TYPE_CHECKING:
    from .call import Call, Outcome
    from .observer import Observer

DELAY_SECONDS: Final = 0.005
"""How long a call that succeeded waits to be told, at most; one that failed is told at once."""
CALL_LIMIT: Final = 8192
"""How many ended calls wait at most; beyond that, whoever ends a call tells it."""
_SETTLE_SECONDS: Final = 0.5


class Teller(Signals):
    """
    Observers that are told of a call's end a little later: many calls at once, which costs half as much.

    How a call ended is decided at its end; only the telling waits.
    """

    def __init__(self, *observers: Observer) -> None:
        super().__init__(*observers)
        self._ended: Batches[tuple[Call, list[Any], Outcome]] = Batches(
            self.all_ended, name="observability-teller", delay=DELAY_SECONDS, limit=CALL_LIMIT
        )

    def ended(self, call: Call, state: list[Any], outcome: Outcome) -> None:
        """Tell of the end later, at once of a failure; nothing is lost where too many wait."""
        if not self._ended.put((call, state, outcome)):
            super().ended(call, state, outcome)
        elif outcome.code is not grpc.StatusCode.OK:
            self._ended.hurry()

    def settle(self) -> None:
        """Tell of all that has ended, before somebody looks."""
        self.flush(_SETTLE_SECONDS)

    def close(self, seconds: float) -> None:
        """Tell of all that has ended, for this long at most; what ends from now on is told by whoever ends it."""
        finalizers.flush(seconds)
        self._ended.close(seconds)

    def flush(self, seconds: float) -> bool:
        """Tell of all that has ended, for this long at most; tell whether it is told."""
        deadline = time.monotonic() + seconds
        return finalizers.flush(seconds) and self._ended.flush(max(0.0, deadline - time.monotonic()))
