"""Sending spans: what becomes of those that cannot be sent, and of an exporter that raises."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

from observability.traces.answers import Answer, Answers
from observability.traces.delivery import CountingProcessor, Said, SpanDelivery
from observability.traces.provider import Tracing


class Exporter(SpanExporter):
    """Keeps what it is given, and then behaves as it was asked to."""

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


class Answering(Exporter):
    """Is answered in this way, one batch after the other."""

    def __init__(self, answers: Answers, *given: Answer | None) -> None:
        super().__init__()
        self._answers = answers
        self._given = list(given)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Keep a batch."""
        self._answers.last = answer = self._given.pop(0)
        super().export(spans)
        return SpanExportResult.FAILURE if answer and answer.failed else SpanExportResult.SUCCESS


def said(caplog: pytest.LogCaptureFixture, *given: Answer | None) -> list[str]:
    """Return what is logged of batches that were answered so: the event and the reason, where there is one."""
    answers = Answers()
    delivery = SpanDelivery(Answering(answers, *given), "http://localhost:4317", answers=answers)
    with caplog.at_level("INFO"):
        for _ in given:
            delivery.export([])
    return [f"{record.getMessage()} {getattr(record, 'reason', '')}".strip() for record in caplog.records]


def test_each_reason_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """
    Within one outage each reason is logged once, whatever numbers and addresses it names; in the next one, again.
    """
    refused = Answer("UNAVAILABLE", "last error: ipv4:127.0.0.1:1: Connection refused")
    as_refused = Answer("UNAVAILABLE", "last error: ipv6:[::1]:2: Connection refused")
    late, known = Answer("DEADLINE_EXCEEDED", "request 7f3a late"), Answer("DEADLINE_EXCEEDED", "request 12bc late")

    assert [
        f"{LOST} {refused.text}",
        f"{LOST} {late.text}",
        "spans are exported again",
        f"{LOST} {as_refused.text}",
    ] == said(caplog, refused, as_refused, late, refused, known, as_refused, None, None, as_refused, refused)


LOST = "spans cannot be exported and are lost"


def test_reasons_without_end(caplog: pytest.LogCaptureFixture) -> None:
    """
    A collector that never gives the same reason twice does not fill the log.
    """
    words = [f"{a}{b}" for a in "ghijklmn" for b in "ghijklmn"]

    assert 10 == len(said(caplog, *(Answer("UNAVAILABLE", word) for word in words)))


def test_reason_that_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A reason that comes back after another one is logged again once 5 minutes have passed.
    """
    times = iter([0, 1, 2, 301, 302, 9999])
    # Its own alone: whatever else asked for the time would take one of these.
    monkeypatch.setattr("observability.traces.delivery.time", SimpleNamespace(monotonic=lambda: next(times)))
    one, other, news = Answer("A"), Answer("B"), Said()

    assert [True, True, False, False, True, False] == [
        news.is_news(answer) for answer in (one, other, one, other, one, one)
    ]


def test_secrets_in_a_collectors_text(caplog: pytest.LogCaptureFixture) -> None:
    """
    Of a collector's or a library's own words, the secrets that we know and any user information are left out.
    """
    answers = Answers()
    exporter = Answering(answers, Answer("ProxyError", "s3cr3t and p4ss at http://a:b@c/d and me@home"))
    delivery = SpanDelivery(
        exporter,
        "http://user:p4ss@localhost:4318/v1/traces?key=1",
        answers=answers,
        proxy="you:pr0xy@proxy:3128",
        secrets=["s3cr3t", ""],
    )
    delivery.export([])
    [record] = caplog.records

    assert "*** and *** at http://***@c/d and me@home" == vars(record)["reason"]
    assert ("http://localhost:4318/v1/traces", "proxy:3128") == (
        vars(record)["endpoint_url"],
        vars(record)["proxy"],
    )
