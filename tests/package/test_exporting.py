"""Sending spans: what becomes of those that cannot be sent, and of an exporter that fails in its own way."""

from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

from observability.exporting import CountingProcessor, SpanDelivery, Tracing


class Exporter(SpanExporter):
    """Keeps what it is given, and does then what it is told."""

    def __init__(self, *results: SpanExportResult | Exception) -> None:
        self.spans: list[str] = []
        self.closed = False
        self._results = list(results)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Keep a batch."""
        self.spans += [span.name for span in spans]
        result = self._results.pop(0) if self._results else SpanExportResult.SUCCESS
        if isinstance(result, Exception):
            raise result
        return result

    def shutdown(self) -> None:
        """Remember it."""
        self.closed = True

    def force_flush(self, _timeout_millis: int = 30000) -> bool:
        """Keep nothing back."""
        return True


class RecordOnly(Sampler):
    """Has spans recorded and not sampled."""

    def should_sample(self, *_args: Any, **_kwargs: Any) -> SamplingResult:
        """Record."""
        return SamplingResult(Decision.RECORD_ONLY)

    def get_description(self) -> str:
        """Say so."""
        return "record only"


def sent(exporter: Exporter, count: int, sampler: Sampler | None = None) -> tuple[SpanDelivery, CountingProcessor]:
    """End this many spans, one batch each, and send them."""
    delivery = SpanDelivery(exporter, "http://localhost:4317")
    processor = CountingProcessor(delivery, 100, 1)
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    for number in range(count):
        provider.get_tracer("app").start_span(str(number)).end()
        provider.force_flush()
    provider.shutdown()
    return delivery, processor


def test_spans_that_arrive() -> None:
    """Nothing is lost where every batch arrives, and the exporter is closed at the end."""
    exporter = Exporter()
    delivery, processor = sent(exporter, 3)

    assert ["0", "1", "2"] == exporter.spans
    assert (0, 0, True) == (delivery.failures, processor.dropped, exporter.closed)


@pytest.mark.parametrize("failure", [SpanExportResult.FAILURE, RuntimeError("no wire")])
def test_batch_that_fails(caplog: pytest.LogCaptureFixture, failure: SpanExportResult | Exception) -> None:
    """A batch that fails, or whose exporter raises, is lost and counted; one line says so, and one that it is over."""
    with caplog.at_level("INFO"):
        delivery, processor = sent(Exporter(failure, failure), 3)

    assert (2, 2) == (delivery.failures, processor.dropped)
    assert ["spans cannot be exported and are lost", "spans are exported again"] == [
        record.getMessage() for record in caplog.records if record.name == "observability"
    ]


def test_span_that_is_not_sampled() -> None:
    """A span that is recorded and not sampled is not sent, and not lost either."""
    exporter = Exporter()
    _, processor = sent(exporter, 200, RecordOnly())

    assert ([], 0) == (exporter.spans, processor.dropped)


def test_flush_reaches_the_exporter() -> None:
    """What flushes the exporter does so through the one around it."""
    assert SpanDelivery(Exporter(), "").force_flush()


class Stubborn(SimpleSpanProcessor):
    """Fails to shut down."""

    def shutdown(self) -> None:
        """Raise."""
        raise RuntimeError("not now")


@pytest.mark.expects_errors("the tracer provider's shutdown failed")
def test_shutdown_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A tracer provider that fails to shut down is reported, and does not raise."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Stubborn(Exporter()))
    Tracing(provider, owned=True).close(5)

    assert ["the tracer provider's shutdown failed"] == [record.getMessage() for record in caplog.records]
