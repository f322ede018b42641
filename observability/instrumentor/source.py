"""The telemetry that calls of automatically observed servers and channels are reported to."""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING

from ..address import ListenError
from ..settings import STANDARD, TRACING, SettingError, standard_settings
from ..telemetry import Telemetry, running
from ..traces.provider import service_attributes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..calls.observer import Observer

_logger = logging.getLogger("observability")


class Source:
    """The given telemetry, or the process's own, which is started where there is none."""

    def __init__(self, given: Telemetry | None) -> None:
        self._given = given
        self._has_failed = False
        self._lock = threading.RLock()

    def telemetry(self) -> Telemetry | None:
        """Return it, or None where it cannot be started; never raises."""
        if self._given is not None:
            return self._given
        with self._lock:
            found = running()
            if found is None and not self._has_failed:
                found = _start()
                self._has_failed = found is None
            return found

    def observers(self) -> Sequence[Observer]:
        """Return what a channel's calls are reported to; never raises."""
        telemetry = self.telemetry()
        return () if telemetry is None else (telemetry.reporter,)


def _start() -> Telemetry | None:
    """Start telemetry as the environment says; without /metrics, where that cannot listen."""
    try:
        with standard_settings(TRACING, warn=False):
            name = service_attributes("unknown_service", None)["service.name"]
        telemetry = Telemetry.start(name, serve_metrics=False, logging="calls", log_stream=sys.stderr)
    except Exception as error:  # noqa: BLE001 - the application is to run as without us
        _logger.error("calls are not reported: %s", error)  # noqa: TRY400 - the text says all
        return None
    try:
        with standard_settings({name: check for name, check in STANDARD.items() if name not in TRACING}):
            telemetry.serve_metrics(None)
    except (ListenError, SettingError) as error:
        _logger.error("/metrics does not listen: %s", error)  # noqa: TRY400 - as above
    return telemetry
