"""What a collector answered to an export, which OpenTelemetry's exporters keep to themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT_LIMIT: Final = 300
"""Characters that are kept of the text of an answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What became of one attempt to export.

    `code` is a status code's name of gRPC, a status of HTTP or the name of an exception. `text` is the collector's
    own words, gRPC's or the exception's. `rejected` is the number of spans that it refused among those that it took.
    """

    code: str
    text: str = ""
    rejected: int = 0
    failed: bool = True

    @classmethod
    def of_error(cls, error: BaseException) -> Answer:
        """Return the answer that an exception stands for: its own name, and the words of what caused it first."""
        first: BaseException | None = error
        text = str(error)
        while first is not None:
            text = str(first) or text
            first = first.__cause__ or first.__context__
        return cls(type(error).__name__, text)

    def reason(self, redact: Callable[[str], str] = str) -> str:
        """Return its text on one line, within bounds; `redact` leaves out what is not to be shown."""
        text = " ".join(redact(self.text).split())
        return text if len(text) <= TEXT_LIMIT else f"{text[: TEXT_LIMIT - 1]}…"


class Answers:
    """Keeps what an export came to, of one attempt or several; None as long as nothing is to be said of it."""

    def __init__(self) -> None:
        self.last: Answer | None = None

    def fail(self, answer: Answer) -> None:
        """Keep a failure, unless it is only the end of the time, or of the exporter, that another one has used up."""
        if self.last is None or answer.code not in _OUT_OF_TIME:
            self.last = answer


_OUT_OF_TIME: Final = frozenset({"DEADLINE_EXCEEDED", "CANCELLED", "ConnectTimeout", "ReadTimeout"})
