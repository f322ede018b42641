"""What goes wrong in observers: counted, and each observer's first fault reported."""

from __future__ import annotations

import logging
from typing import Any, Final

_SOURCE_LIMIT: Final = 1000
_logger = logging.getLogger("observability")


class ObserverErrors:
    """Counts what went wrong in observers, and reports each observer's first fault."""

    def __init__(self) -> None:
        self.count = 0
        self._reported: set[str] = set()

    def record(self, source: Any) -> None:
        """Count the exception being handled, raised by `source`; log it if it is the first of its source."""
        self.count += 1
        name = getattr(source, "__qualname__", type(source).__qualname__)
        if name not in self._reported and len(self._reported) < _SOURCE_LIMIT:
            self._reported.add(name)
            try:
                _logger.exception(  # noqa: LOG004 - called where the exception is handled
                    "observer %s failed; its further failures are only counted", name
                )
            except Exception:  # noqa: BLE001 - a logging handler that raises changes no call either
                return


observer_errors: Final = ObserverErrors()
record_error: Final = observer_errors.record
