"""A process that is measured, seen from the benchmark."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from protos import echo_pb2

from .echo import ECHO, REPEAT
from .load import Load
from .plan import CONCURRENCY, STREAM_BYTES, STREAM_MESSAGES
from .trial import Reported, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from .load import Loader
    from .process import Process
    from .variants import Variant

_SETTLED_WITHIN = 2.0
"""Seconds after the last answer, in which its line must be written and its call counted."""
_BETWEEN_LOOKS = 0.005
"""Seconds."""
_HELLO = echo_pb2.EchoRequest(msg="hello").SerializeToString()
_OF_A_CALL = b"/Echo"
"""What every logger's line about a call has in it."""


class Measured:
    """
    A variant at work in its process.

    `log` is the file that the process writes its lines to; `spans` asks the receiver how many it has got.
    """

    def __init__(self, variant: Variant, process: Process, log: Path, spans: Callable[[], int]) -> None:
        self.variant = variant
        self.reported = Reported()
        """What there was of all its loads so far."""
        self._process = process
        self._log = log.open("rb")
        self._spans = spans
        self.address = f"127.0.0.1:{process.ready()['port']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()

    def unary(
        self,
        loader: Loader,
        calls: int,
        message: bytes = _HELLO,
        paths: Sequence[str] = (ECHO,),
        concurrency: int = CONCURRENCY,
    ) -> Trial:
        """Measure unary calls: a client makes them in its own way, a server gets them from the load."""
        if self.variant.side == "client":
            return self._measure(calls, lambda: self._seconds("call", calls=calls))
        load = Load(self.address, paths, message, calls, concurrency, self.variant.caller)
        return self._measure(calls, lambda: loader.run(load))

    def streams(self, loader: Loader, streams: int, messages: int = STREAM_MESSAGES) -> Trial:
        """Measure streams from server to client, one after another."""
        text = "x" * STREAM_BYTES
        if self.variant.side == "client":
            return self._measure(streams, lambda: self._seconds("read", streams=streams, messages=messages, text=text))
        request = echo_pb2.EchoRepeatRequest(msg=text, times=messages).SerializeToString()
        load = Load(self.address, [REPEAT], request, streams, 1, self.variant.caller)
        return self._measure(streams, lambda: loader.run(load))

    def latencies(self, loader: Loader, calls: int, per_second: float) -> list[float]:
        """Call at a steady pace, and return how many milliseconds each call took."""
        return loader.paced(Load(self.address, [ECHO], _HELLO, calls), per_second)

    def resident_bytes(self) -> int:
        """Return how much of its memory is resident."""
        return int(self._process.ask("resident_bytes"))

    def _seconds(self, question: str, **arguments: Any) -> float:
        return float(self._process.ask(question, **arguments))

    def _measure(self, calls: int, work: Callable[[], float]) -> Trial:
        handled, spans, start = self._handled(), self._spans(), self._log.tell()
        spent = self._processor_seconds()
        seconds = work()
        expected = dict.fromkeys(self.variant.signals, calls)
        lines = _reached(expected.get("lines", 0), lambda: self._lines(start))
        self._process.ask("flush")  # now that every call has ended, as its line shows
        spent = self._processor_seconds() - spent
        handled = _reached(expected.get("handled", 0), lambda: self._handled() - handled)
        reported = Reported(calls, lines, handled, self._spans() - spans)
        self.reported += reported
        return Trial(seconds, spent, reported)

    def _processor_seconds(self) -> float:
        return float(self._process.ask("processor_seconds"))

    def _handled(self) -> int:
        return int(self._process.ask("handled"))

    def _lines(self, start: int) -> int:
        self._log.seek(start)
        return self._log.read().count(_OF_A_CALL)


def _reached(expected: int, count: Callable[[], int]) -> int:
    """Count until there are as many as expected, or it has taken too long."""
    until = time.monotonic() + _SETTLED_WITHIN
    while (counted := count()) < expected and time.monotonic() < until:
        time.sleep(_BETWEEN_LOOKS)
    return counted
