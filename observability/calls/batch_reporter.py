"""Reports calls after their end, many at once, from one thread."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from ..threads.finalizers import finalizers
from ..threads.worker import BatchWorker
from .observers import Observers
from .status import OK

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    A call's outcome is decided at its end; only the report waits. To `at_once` observers it is reported there and
    then: those whose order others depend on. They come first in everything.
    """

    def __init__(self, *batched: Observer, at_once: Sequence[Observer] = ()) -> None:
        super().__init__(*at_once, *batched)
        self._at_once = tuple(hook for hook in self._end_hooks if hook[0] < len(at_once))
        self._end_hooks = self._end_hooks[len(self._at_once) :]
        self._ended: BatchWorker[tuple[Call, list[Any], Outcome]] = BatchWorker(
            self.on_end_batch, name="observability-reporter", delay=DELAY_SECONDS, limit=CALL_LIMIT
        )

    def on_end(self, call: Call, state: list[Any], outcome: Outcome) -> None:
        """Report the end later, at once of a failure; nothing is lost where too many wait."""
        self.call_hooks(self._at_once, state, call, outcome)
        if not self._ended.put((call, state, outcome)):
            super().on_end(call, state, outcome)
        elif outcome.code is not OK:
            self._ended.wake()

    def flush(self, seconds: float = _FLUSH_SECONDS) -> bool:
        """Report all that has ended, for this many seconds at most; return whether all of it is reported."""
        deadline = time.monotonic() + seconds
        return finalizers.flush(seconds) and self._ended.flush(max(0.0, deadline - time.monotonic()))

    def close(self, seconds: float) -> None:
        """Report all that has ended, for this many seconds at most; what ends from now on is reported at its end."""
        finalizers.flush(seconds)
        self._ended.close(seconds)
