"""What becomes of spans on their way: those that arrive, are lost or are given up, and the lines that say so."""

from __future__ import annotations

import itertools
import logging
import re
import time
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import TraceFlags

from ..redaction import Redactor, secrets_of_address, shown_address
from ..threads.finalizers import finalizers
from ..threads.process import at_fork
from .answers import Answer, Answers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

_FINALIZERS_SECONDS: Final = 0.5
_logger = logging.getLogger("observability")


class SpanDelivery(SpanExporter):
    """
    An exporter around the one that sends, which says once when spans stop arriving and once when they do again.

    It says why, and says so again when the reason changes. `failures` counts the batches that failed, `lost` the spans
    that did not arrive, those that the collector rejected among them, `delivered` those that did, `handed` all that it
    was given. `answers` is where the exporter keeps what the collector answered, `proxy` the address of the proxy on
    the way, `secrets` what is to be kept out of the collector's words. With `silent` it says nothing.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        endpoint: str,
        *,
        answers: Answers | None = None,
        proxy: str = "",
        secrets: Iterable[str] = (),
    ) -> None:
        self.failures = 0
        self.lost = 0
        self.handed = 0
        self.delivered = 0
        self.silent = False
        self.ending = False
        self._exporter = exporter
        self._answers = answers or Answers()
        self._where = {"endpoint_url": shown_address(endpoint), **({"proxy": shown_address(proxy)} if proxy else {})}
        self._redact = Redactor([*secrets, *secrets_of_address(endpoint), *secrets_of_address(proxy)])
        self._failing = False
        self._failed_at_end = 0
        self._stopped = False
        self._said = Said()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; what it raises counts as a failure."""
        if self._stopped:
            return SpanExportResult.FAILURE
        self.handed += len(spans)
        self._answers.last = None
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - whatever an exporter raises, its spans are lost
            result = SpanExportResult.FAILURE
            self._answers.last = self._answers.last or Answer.of_error(error)
        answer = self._answers.last
        if self._stopped:  # they are counted already
            return result
        if result is not SpanExportResult.SUCCESS or (answer is not None and answer.failed):
            self._fail(len(spans), answer)
            return SpanExportResult.FAILURE
        self._arrive(len(spans), answer)
        return result

    def stop(self) -> None:
        """Send nothing more, and count nothing more."""
        self._stopped = True

    def say_given_up(self, count: int) -> None:
        """Say how many spans did not arrive at the end: so many, and those whose export failed since it began."""
        if count + self._failed_at_end:
            self._warn("spans are given up at the end", self._answers.last, spans=count + self._failed_at_end)

    def shutdown(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Send what waits."""
        return self._exporter.force_flush(timeout_millis)

    def _fail(self, count: int, answer: Answer | None) -> None:
        self.failures += 1
        self.lost += count
        if not self._failing:
            self._said = Said()
        self._failing = True
        if self.ending:
            self._failed_at_end += count
        elif self._said.is_news(answer):
            self._warn("spans cannot be exported and are lost", answer)

    def _arrive(self, count: int, answer: Answer | None) -> None:
        rejected = min(max(answer.rejected, 0), count) if answer else 0
        self.lost += rejected
        self.delivered += count - rejected
        if self._failing and not self.silent:
            _logger.info("spans are exported again", extra=self._where)
        if self._failing:
            self._said = Said()
        self._failing = False
        if answer is None or not self._said.is_news(answer):
            return
        if rejected:
            self._warn("spans are rejected by the collector and are lost", answer, spans=rejected)
        else:
            self._warn("the collector takes spans with a warning", answer)

    def _warn(self, event: str, answer: Answer | None, **fields: Any) -> None:
        if self.silent:
            return
        why = {"code": answer.code, "reason": answer.reason(self._redact)} if answer else {}
        _logger.warning(event, extra={**fields, **self._where, **why})


class Said:
    """
    Knows which answers have been said, so that one that comes with each batch is not said with each.

    Numbers and addresses in an answer's text, which may differ each time, do not make it another one. One that was
    said is said again after 5 minutes, if there was another one in between.
    """

    _AGAIN: Final = 300.0
    _MOST: Final = 10
    _ACCIDENTAL: Final = re.compile(r"ipv[46]:\S+|\b[0-9a-fA-F-]*\d[0-9a-fA-F-]*\b")

    def __init__(self) -> None:
        self._times: dict[tuple[str, str], float] = {}
        self._latest: tuple[str, str] | None = None

    def is_news(self, answer: Answer | None) -> bool:
        """Return whether this answer is to be said now; if so, it counts as said."""
        key = (answer.code, self._ACCIDENTAL.sub("#", answer.reason())) if answer else ("", "")
        now = time.monotonic()
        said = self._times.get(key)
        if key == self._latest or (len(self._times) >= self._MOST if said is None else now - said < self._AGAIN):
            return False
        self._latest = key
        self._times[key] = now
        return True


class CountingProcessor(BatchSpanProcessor):
    """
    A batch span processor that knows how many spans its full queue dropped, and how many it gave up at the end.

    A span is dropped only while the queue is full, so what was ended, less what was handed on and what fits into
    the queue, has been dropped; the largest such number is the total.
    """

    def __init__(self, delivery: SpanDelivery, queue_size: int, batch_size: int) -> None:
        self._delivery = delivery
        self._queue_size = queue_size
        self._ended = itertools.count(1)
        self._looks = 0
        self._overflow = 0
        self._given_up = 0
        self._of_parent = 0
        super().__init__(
            delivery,
            max_queue_size=queue_size,
            max_export_batch_size=batch_size,
            meter_provider=metrics.get_meter_provider(),
        )
        at_fork(after_in_child=self._leave_to_parent)

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span that has ended."""
        context = span.context
        if context is None or not context.trace_flags & TraceFlags.SAMPLED:
            return
        ended = next(self._ended) - self._looks - self._of_parent
        overflow = ended - self._delivery.handed - self._queue_size
        self._overflow = max(self._overflow, overflow)
        super().on_end(span)

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Send what waits, the spans included whose calls a garbage collection has found."""
        finalizers.flush(_FINALIZERS_SECONDS)
        return super().force_flush(timeout_millis)

    def _count_waiting(self) -> int:
        """Return how many spans neither arrived nor were lost so far."""
        self._looks += 1
        ended = next(self._ended) - self._looks
        delivery = self._delivery
        known = self._overflow + delivery.delivered + delivery.lost + self._given_up + self._of_parent
        return max(0, ended - known)

    def _leave_to_parent(self) -> None:
        """In a child, which has an empty queue, no longer count what waits in its parent's."""
        self._of_parent += self._count_waiting()

    def begin_end(self) -> None:
        """Leave it to `end` to say what is lost from now on."""
        self._delivery.ending = True

    def end(self) -> None:
        """Give up what waits; say how many spans did not arrive since the end began."""
        self._delivery.stop()
        self._given_up += self._count_waiting()
        self._delivery.say_given_up(self._given_up)

    @property
    def dropped(self) -> int:
        """Spans that did not arrive: the queue was full, their export failed, they were rejected or given up."""
        return self._overflow + self._delivery.lost + self._given_up
