"""What one measurement came to: what it cost the measured process, and what that process reported of the calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Reported:
    """How many calls there were, and how many of them each signal reports."""

    calls: int = 0
    lines: int = 0
    handled: int = 0
    spans: int = 0

    def __add__(self, other: Reported) -> Reported:
        return Reported(
            self.calls + other.calls,
            self.lines + other.lines,
            self.handled + other.handled,
            self.spans + other.spans,
        )

    def __sub__(self, other: Reported) -> Reported:
        return Reported(
            self.calls - other.calls,
            self.lines - other.lines,
            self.handled - other.handled,
            self.spans - other.spans,
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """One load on one process."""

    seconds: float
    """From the first call to the last answer."""
    processor_seconds: float
    """User and system time of the measured process, until everything was reported and exported."""
    reported: Reported

    @property
    def microseconds(self) -> float:
        """Processor time of one call."""
        return self.processor_seconds / self.reported.calls * 1e6


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
