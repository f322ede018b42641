"""Reports calls after their end, many at once, from one thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import grpc

from ..threads.finalizers import finalizers
from ..threads.worker import BatchWorker
from .observers import Observers

if TYPE_CHECKING:
    from .call import Call, Outcome
    from .observer import Observer

DELAY_SECONDS: Final = 0.005
"""How long the report of a call that succeeded waits at most; one that failed is reported at once."""
CALL_LIMIT: Final = 8192
"""How many ended calls wait at most; beyond that, the thread that ends a call reports it."""
_FLUSH_SECONDS: Final = 0.5


class BatchReporter(Observers):
    """
    Observers to which the ends of calls are reported a little later: many at once, which costs half as much.

    A call's outcome is decided at its end; only the report waits.
    """

    def __init__(self, *observers: Observer) -> None:
        super().__init__(*observers)
        self._ended: BatchWorker[tuple[Call, list[Any], Outcome]] = BatchWorker(
            self.on_end_batch, name="observability-reporter", delay=DELAY_SECONDS, limit=CALL_LIMIT
        )

    def on_end(self, call: Call, state: list[Any], outcome: Outcome) -> None:
        """Report the end later, at once of a failure; nothing is lost where too many wait."""
        if not self._ended.put((call, state, outcome)):
            super().on_end(call, state, outcome)
        elif outcome.code is not grpc.StatusCode.OK:
            self._ended.wake()

    def flush(self, seconds: float = _FLUSH_SECONDS) -> bool:
        """Report all that has ended, for this many seconds at most; return whether all of it is reported."""
        deadline = time.monotonic() + seconds
        return finalizers.flush(seconds) and self._ended.flush(max(0.0, deadline - time.monotonic()))

    def close(self, seconds: float) -> None:
        """Report all that has ended, for this many seconds at most; what ends from now on is reported at its end."""
        finalizers.flush(seconds)
        self._ended.close(seconds)
