"""A bound for the lines of calls that never ran, of which a caller can make any number at no cost of its own."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Final

from ..calls.errors import record_error
from ..threads.process import ForkLock, at_fork
from ..threads.worker import BatchWorker

LINES_PER_SECOND: Final = 100
"""How many calls of a kind that never ran have a line each, in each second."""
_SECOND: Final = 1.0
_EVENT: Final = "calls that never ran, beyond those with a line each"


class LineLimit:
    """
    Decides which calls that never ran have a line, and logs one line a second for all others of their kind.

    A kind is a level and a status code: so many kinds there are, whatever callers make up. `count` is the number of
    calls without a line of their own.
    """

    def __init__(self, logger: Any) -> None:
        self.count = 0
        self._logger = logger
        self._lock = ForkLock()
        self._began = 0.0
        self._seen: Counter[tuple[str, str]] = Counter()
        self._left_out: Counter[tuple[str, str]] = Counter()
        self._worker: BatchWorker[None] | None = None

    def allows(self, level: str, code: str) -> bool:
        """Return whether a call of this kind has a line of its own; count it where it has none."""
        kind = level, code
        with self._lock:
            now = time.monotonic()
            if now - self._began >= _SECOND:
                self._began = now
                self._seen.clear()
            self._seen[kind] += 1
            if self._seen[kind] <= LINES_PER_SECOND:
                return True
            if self._worker is None:
                self._worker = BatchWorker(self._log, name="observability-log-limit", delay=_SECOND, limit=1000)
                at_fork(after_in_child=self._forget)
            if not self._left_out:
                self._worker.put(None)
            self.count += 1
            self._left_out[kind] += 1
        return False

    def flush(self, seconds: float) -> bool:
        """Log the lines that are due, for this many seconds at most; return whether they are logged."""
        return self._worker is None or self._worker.flush(seconds)

    def _log(self, _due: list[None]) -> None:
        with self._lock:
            left_out, self._left_out = self._left_out, Counter()
        try:
            for (level, code), calls in left_out.items():
                getattr(self._logger, level)(_EVENT, code=code, calls=calls)
        except Exception:  # noqa: BLE001 - of a logger that may be anybody's
            record_error(self)

    def _forget(self) -> None:
        """Leave to the parent of a fork what its line is to say."""
        self._left_out.clear()
