"""A span that is made when somebody looks is the SDK's own to everybody who does, whatever they do to it, and when."""

import copy
import json
import logging
import pickle
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, Tracer, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from observability.traces.encoding import encode
from observability.traces.span import LazySpan, end_span
from observability.traces.start import MethodSpans, SpanStarter

ATTRIBUTES = {"rpc.system.name": "grpc", "rpc.method": "test.v1.Words/Unary"}
ENDING = {"rpc.response.status_code": "OK", "network.peer.address": "127.0.0.1", "network.peer.port": 8080}
REMOTE = SpanContext(
    1 << 100,
    1 << 50,
    is_remote=True,
    trace_flags=TraceFlags(TraceFlags.SAMPLED),
    trace_state=TraceState([("vendor", "1")]),
)
STARTED, ENDED = 1_000, 2_000


class Counting(IdGenerator):
    """Gives the same ids to the first span of each provider."""

    def __init__(self) -> None:
        self._last = 0

    def generate_span_id(self) -> int:
        """Return the next."""
        self._last += 1
        return self._last

    def generate_trace_id(self) -> int:
        """Return the next."""
        return self.generate_span_id()


class Seeing(SpanProcessor):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's name
        """Keep a span that starts."""
        self.events.append(("start", span))

    def _on_ending(self, span: Span) -> None:
        self.events.append(("ending", span))

    def on_end(self, span: ReadableSpan) -> None:
        """Keep one that ends."""
        self.events.append(("end", span))


class Spans:
    """
    A provider, and a call's span from it: an ordinary one, or one that is made when somebody looks.

    Another one was started before it, whose ids are gone; a lazy one is started like that, unless it is the `first`.
    """

    def __init__(
        self,
        *processors: SpanProcessor,
        lazy: bool,
        first: bool = False,
        parent: Context | None = None,
        **options: Any,
    ) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(id_generator=Counting(), shutdown_on_exit=False, **options)
        self.seen = Seeing()
        tracer = self.provider.get_tracer("observability", "1")
        starter = SpanStarter(tracer)
        if not lazy:
            starter.start, starter.is_lazy = tracer.start_span, False
        started = [MethodSpans(starter, "test.v1.Words/Unary", SpanKind.SERVER, ATTRIBUTES) for _ in range(2)]
        logging.disable()
        started[first].start(parent or Context(), STARTED)
        logging.disable(logging.NOTSET)
        for processor in (*processors, self.seen, SimpleSpanProcessor(self.exporter)):
            self.provider.add_span_processor(processor)
        self.span: Any = started[0].start(parent or Context(), STARTED)

    def end(self, status: Status | None = None) -> ReadableSpan:
        """End it, and return what was exported."""
        if self.span.is_recording():
            end_span(self.span, ENDING, status, ENDED)
        else:
            self.span.end(ENDED)
        [span] = self.exporter.get_finished_spans()
        return span


def shown(span: Any) -> Any:
    """Return a span as JSON, or why the SDK has none."""
    try:
        return json.loads(span.to_json())
    except TypeError as error:
        return repr(error)


def view(span: Any) -> dict[str, Any]:
    """Return all that a span shows."""
    return {
        "json": shown(span),
        "attributes": dict(span.attributes),
        "events": [(event.name, event.timestamp, dict(event.attributes)) for event in span.events],
        "links": [(link.context, dict(link.attributes)) for link in span.links],
        "dropped": (span.dropped_attributes, span.dropped_events, span.dropped_links),
        "ids": (span.context, span.get_span_context(), span.parent),
        "times": (span.start_time, span.end_time),
        "status": (span.status.status_code, span.status.description),
        "scope": span.instrumentation_scope,
        "kind": span.kind,
        "name": span.name,
    }


def normalized(span: ReadableSpan) -> Any:
    """Return a span's OTLP form, with its attributes in order."""
    [resource] = encode([span]).resource_spans
    [one] = resource.scope_spans[0].spans
    attributes = sorted(one.attributes, key=lambda attribute: attribute.key)
    del one.attributes[:]
    one.attributes.extend(attributes)
    return resource


def raised() -> ValueError:
    """Return an exception that has been raised."""
    try:
        int("no bread")
    except ValueError as error:
        return error
    raise AssertionError


ERROR = raised()
ACTS: dict[str, Callable[[Any], object]] = {
    "nothing": lambda _span: None,
    "text": lambda span: span.set_attribute("key", "value"),
    "numbers": lambda span: span.set_attributes({"int": 1, "float": 1.5, "bool": True, "big": 2**70}),
    "sequences": lambda span: span.set_attributes({"texts": ["a", "b"], "numbers": (1, 2), "mixed": ["a", 1]}),
    "bytes": lambda span: span.set_attribute("bytes", b"value"),
    "none": lambda span: span.set_attribute("none", None),
    "object": lambda span: span.set_attribute("object", object),
    "empty key": lambda span: span.set_attribute("", "value"),
    "long text": lambda span: span.set_attribute("long", "x" * 10_000),
    "surrogate": lambda span: span.set_attribute("text", "\ud800"),
    "over ours": lambda span: span.set_attribute("rpc.method", "other"),
    "over the end's": lambda span: span.set_attribute("network.peer.port", "other"),
    "many": lambda span: span.set_attributes({f"key{number}": number for number in range(200)}),
    "event": lambda span: span.add_event("happened", {"key": "value"}, 1_500),
    "many events": lambda span: [span.add_event("happened", {"n": n}, 1_500) for n in range(200)],
    "link": lambda span: span.add_link(REMOTE, {"key": "value"}),
    "link to nothing": lambda span: span.add_link(trace.INVALID_SPAN_CONTEXT),
    "exception": lambda span: span.record_exception(ERROR, {"key": "value"}, 1_500),
    "name": lambda span: span.update_name("other"),
    "ok": lambda span: span.set_status(StatusCode.OK),
    "error": lambda span: span.set_status(StatusCode.ERROR, "why"),
    "unset": lambda span: span.set_status(StatusCode.UNSET),
    "ok then error": lambda span: (span.set_status(StatusCode.OK), span.set_status(StatusCode.ERROR)),
    "status with description": lambda span: span.set_status(Status(StatusCode.ERROR, "why"), "ignored"),
    "start again": lambda span: span.start(5),
    "end": lambda span: span.end(1_700),
    "attribute of one's own": lambda span: setattr(span, "_mine", 1),
    "name by its private field": lambda span: setattr(span, "_name", "other"),
    "ids by their private field": lambda span: setattr(span, "_context", REMOTE),
    "parent by its private field": lambda span: setattr(span, "_parent", REMOTE),
    "private attributes": lambda span: span._attributes.__setitem__("key", "value"),
    "read": lambda span: (span.attributes, span.events, span.links, span.status, span.resource),
    "readable": lambda span: view(span._readable_span()),
    "json": lambda span: span.to_json(indent=None),
}
LIMITS: dict[str, Callable[[], SpanLimits | None]] = {
    "none": lambda: None,
    "few attributes": lambda: SpanLimits(max_span_attributes=3),
    "no attributes": lambda: SpanLimits(max_span_attributes=0),
    "unlimited": lambda: SpanLimits(max_span_attributes=SpanLimits.UNSET),
    "short values": lambda: SpanLimits(max_span_attribute_length=4),
    "few events and links": lambda: SpanLimits(max_events=1, max_links=0),
}
STATUSES = {"ok": None, "failed": Status(StatusCode.ERROR, "as asked")}


WAYS: tuple[dict[str, bool], ...] = ({"lazy": False}, {"lazy": True, "first": True}, {"lazy": True})
"""An ordinary span, a lazy one that the SDK has started, and one that is started like it."""


def both(make: Callable[..., Spans], act: Callable[[Spans], Any], caplog: pytest.LogCaptureFixture) -> list[Any]:
    """Return what an act gives, and is warned of, of an ordinary span and of lazy ones, which all give the same."""
    results = []
    for way in WAYS:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            given = act(make(**way))
        results.append((given, [record.getMessage() for record in caplog.records]))
    ordinary, first, lazy = results
    assert first == lazy
    return [ordinary, lazy]


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("act", ACTS)
def test_looked_at_while_it_goes_on(act: str, limits: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is done to a span that goes on is in it at its end, as the SDK has it, within the same limits."""

    def play(spans: Spans) -> Any:
        ACTS[act](spans.span)
        exported = spans.end(STATUSES["failed"])
        return view(exported), normalized(exported), view(spans.span), spans.span.is_recording()

    ordinary, lazy = both(lambda **way: Spans(**way, span_limits=LIMITS[limits]()), play, caplog)

    assert ordinary == lazy


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("act", ACTS)
def test_looked_at_when_it_has_ended(act: str, limits: str, status: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is done to a span that has ended changes nothing, and is warned of, as of the SDK's."""

    def play(spans: Spans) -> Any:
        spans.end(STATUSES[status])
        return failure(lambda: ACTS[act](spans.span)), view(spans.span)

    ordinary, lazy = both(lambda **way: Spans(**way, span_limits=LIMITS[limits]()), play, caplog)

    assert ordinary == lazy


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("limits", LIMITS)
def test_encoded_unseen(limits: str, status: str) -> None:
    """A span at which nobody has looked is encoded as OpenTelemetry's own encoder encodes an ordinary one."""
    parent = trace.set_span_in_context(trace.NonRecordingSpan(REMOTE))
    spans = [Spans(lazy=lazy, span_limits=LIMITS[limits](), parent=parent) for lazy in (False, True)]
    ordinary, lazy = [one.end(STATUSES[status]) for one in spans]

    assert type(lazy) is LazySpan
    assert unordered(encode_spans([ordinary])) == unordered(encode([lazy]))


def unordered(request: Any) -> tuple[str, list[str], str]:
    """Return the only span without its attributes, these in order, and its scope."""
    [group] = request.resource_spans[0].scope_spans
    [span] = group.spans
    attributes = sorted(map(str, span.attributes))
    del span.attributes[:]
    return str(span), attributes, str(group.scope)


def test_nothing_is_made_while_nobody_looks() -> None:
    """A call's span is started, ended, kept and encoded without what the SDK makes of one."""
    span: Any = Spans(lazy=True).end()

    encode([span])

    assert not span._is_made
    assert {} == vars(span)


def failure(act: Callable[[], Any]) -> str | None:
    """Return what an act raises, or None."""
    try:
        act()
    except Exception as error:  # noqa: BLE001 - whatever the SDK's raises
        return repr(error)
    return None


LOOKS: dict[str, Callable[[Any], Any]] = {
    "repr": repr,
    "instance": lambda span: (isinstance(span, Span), isinstance(span, ReadableSpan), isinstance(span, trace.Span)),
    "class name": lambda span: type(span).__name__,
    "unknown attribute": lambda span: failure(lambda: span.nope),
    "unknown dunder": lambda span: hasattr(span, "__nope__"),
    "pickle": lambda span: failure(lambda: pickle.dumps(span)),
    "copy": lambda span: view(copy.copy(span)),
    "deep copy": lambda span: failure(lambda: copy.deepcopy(span)),
    "recording": lambda span: span.is_recording(),
    "as context manager": lambda span: span.__enter__() is span,
    "fields": lambda span: sorted(span.__dict__) if span.attributes else None,
    "truth": bool,
    "hash": lambda span: isinstance(hash(span), int),
    "equal": lambda span: (span == span, span == object()),  # noqa: PLR0124 - to itself
    "info": lambda span: span.instrumentation_scope.name,
}


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("look", LOOKS)
def test_what_it_looks_like(look: str, ended: bool, caplog: pytest.LogCaptureFixture) -> None:  # noqa: FBT001 - a parameter
    """It looks like the SDK's own, and fails as that does."""

    def play(spans: Spans) -> Any:
        if ended:
            spans.end()
        return LOOKS[look](spans.span)

    ordinary, lazy = both(Spans, play, caplog)

    assert ordinary == lazy


class Changing(SpanProcessor):
    """Reads baggage when a span starts, keeps the span, and changes it at each moment."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Copy the baggage."""
        span.set_attributes({key: str(value) for key, value in baggage.get_all(parent_context).items()})
        self.kept.append(span)

    def _on_ending(self, span: Span) -> None:
        self.kept.append(span.attributes)

    def on_end(self, span: ReadableSpan) -> None:
        """Rename it, as those do that hide what is in names."""
        span._name = "hidden"


def test_processor_that_changes_it(caplog: pytest.LogCaptureFixture) -> None:
    """A processor that writes into spans finds the SDK's, and the exporter after it what it has written."""
    context = baggage.set_baggage("tenant", "acme")

    def play(spans: Spans) -> Any:
        exported = spans.end()
        return view(exported), normalized(exported)

    ordinary, lazy = both(lambda **way: Spans(Changing(), **way, parent=context), play, caplog)

    assert ordinary == lazy
    assert "hidden" == lazy[0][0]["name"]
    assert "acme" == lazy[0][0]["attributes"]["tenant"]


class Renaming(SpanProcessor):
    """Renames a span at its end alone."""

    def on_end(self, span: ReadableSpan) -> None:
        """Rename it."""
        span._name = "hidden"


def test_renamed_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """What is written into a span that is not made yet is exported too."""

    def play(spans: Spans) -> Any:
        exported = spans.end()
        return normalized(exported), view(exported)

    ordinary, lazy = both(lambda **way: Spans(Renaming(), **way), play, caplog)

    assert ordinary == lazy
    assert "hidden" == lazy[0][1]["name"]


@pytest.mark.parametrize("lazy", [False, True])
def test_processors_see_every_moment(lazy: bool) -> None:  # noqa: FBT001 - a parameter
    """A processor sees the start, the ending and the end, once and in this order."""
    spans = Spans(lazy=lazy)

    spans.end()

    assert ["start", "ending", "end"] == [moment for moment, _ in spans.seen.events]
    assert {spans.span} == {span for moment, span in spans.seen.events if moment != "end"}


class Deciding(Sampler):
    """Adds attributes and trace state, and decides as it is asked to."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    def should_sample(self, *_args: Any, **_options: Any) -> SamplingResult:
        """Decide."""
        return SamplingResult(self._decision, {"sampler": "mine", "rpc.method": "other"}, TraceState([("mine", "1")]))

    def get_description(self) -> str:
        """Say what it is."""
        return "Deciding"


@pytest.mark.parametrize("decision", Decision)
@pytest.mark.parametrize("parent", [None, trace.set_span_in_context(trace.NonRecordingSpan(REMOTE))])
def test_sampler(decision: Decision, parent: Context | None) -> None:
    """The sampler's decision, attributes and trace state are those of the span."""
    ordinary, _, lazy = [Spans(**way, sampler=Deciding(decision), parent=parent) for way in WAYS]

    assert ordinary.span.get_span_context() == lazy.span.get_span_context()
    assert ordinary.span.get_span_context().trace_state == lazy.span.get_span_context().trace_state
    assert (decision is not Decision.DROP) is isinstance(lazy.span, Span) is isinstance(ordinary.span, Span)
    if decision is Decision.RECORD_AND_SAMPLE:
        exported = [ordinary.end(), lazy.end()]
        assert normalized(exported[0]) == normalized(exported[1])
        assert view(exported[0]) == view(exported[1])


SAMPLERS = [
    ALWAYS_ON,
    ALWAYS_OFF,
    TraceIdRatioBased(0.5),
    ParentBased(ALWAYS_ON),
    ParentBased(ALWAYS_OFF),
    ParentBased(TraceIdRatioBased(0.5), remote_parent_not_sampled=ALWAYS_ON, local_parent_sampled=ALWAYS_OFF),
    ParentBased(Deciding(Decision.RECORD_ONLY), remote_parent_sampled=Deciding(Decision.DROP)),
]


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.get_description()[:40])
@pytest.mark.parametrize("is_remote", [False, True])
@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_ids_and_flags(sampler: Sampler, way: dict[str, bool], flags: int, is_remote: bool) -> None:  # noqa: FBT001 - a parameter
    """A span's ids, flags and trace state come from its parent, the id generator and the sampler as the SDK's do."""
    state = TraceState([("vendor", "1")])
    context = SpanContext(1 << 100, 1 << 50, is_remote=is_remote, trace_flags=TraceFlags(flags), trace_state=state)
    parent = trace.set_span_in_context(trace.NonRecordingSpan(context))
    for given in (None, parent):
        ordinary, lazy = [Spans(**one, sampler=sampler, parent=given) for one in ({"lazy": False}, way)]
        assert ordinary.span.get_span_context() == lazy.span.get_span_context()
        assert ordinary.span.get_span_context().trace_state == lazy.span.get_span_context().trace_state
        assert type(ordinary.span).__name__ == type(lazy.span).__name__


def test_tracer_that_changes() -> None:
    """A sampler that is put in the place of another, or a tracer that is disabled, decides from the next span on."""
    tracer: Any = TracerProvider(shutdown_on_exit=False).get_tracer("changes")
    spans = MethodSpans(SpanStarter(tracer), "test.v1.Words/Unary", SpanKind.SERVER, ATTRIBUTES)

    def recorded() -> list[bool]:
        return [spans.start(Context(), STARTED).is_recording() for _ in range(2)]

    assert [True, True] == recorded()
    tracer.sampler = ALWAYS_OFF
    assert [False, False] == recorded()
    tracer.sampler = ALWAYS_ON
    assert [True, True] == recorded()
    tracer._is_enabled = lambda: False
    assert [False, False] == recorded()


def test_environment_of_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT and the limit of values' length hold."""
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "4")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3")

    ordinary, lazy = [Spans(lazy=lazy).end() for lazy in (False, True)]

    assert normalized(ordinary) == normalized(lazy)
    assert view(ordinary) == view(lazy)
    assert 4 == len(lazy.attributes or {})


class Other(trace.Tracer):
    """Another vendor's tracer."""

    def start_span(self, *_args: Any, **_options: Any) -> trace.Span:
        """Start nothing."""
        return trace.INVALID_SPAN

    def start_as_current_span(self, *_args: Any, **_options: Any) -> Any:
        """Start nothing."""


def test_other_tracers_start_their_own_spans() -> None:
    """Of a tracer that is not the SDK's own, or was changed, the spans are those that it starts."""
    other = Other()
    tracer: Any = TracerProvider(shutdown_on_exit=False).get_tracer("changed")
    start = tracer.start_span = lambda *_args, **_options: trace.INVALID_SPAN

    assert SpanStarter(other).start == other.start_span
    assert SpanStarter(tracer).start is start
    for starter in (SpanStarter(other), SpanStarter(tracer)):
        spans = MethodSpans(starter, "test.v1.Words/Unary", SpanKind.SERVER, ATTRIBUTES)
        assert [trace.INVALID_SPAN] * 2 == [spans.start(Context(), STARTED) for _ in range(2)]


class Changed(Span):
    """A span whose end does more than is known."""

    def end(self, end_time: int | None = None) -> None:
        """End it, and something else."""
        super().end(end_time)
        self.add_event("something else")


def test_sdk_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an SDK that starts or ends spans in another way, they are that SDK's own."""
    tracer: Any = TracerProvider(shutdown_on_exit=False).get_tracer("a")

    with monkeypatch.context() as patched:
        patched.setattr(Span, "end", Changed.end)
        assert SpanStarter(tracer).start == tracer.start_span
    with monkeypatch.context() as patched:
        patched.setattr(Tracer, "start_span", Other.start_span)
        assert SpanStarter(tracer).start == tracer.start_span
    assert SpanStarter(tracer).start != tracer.start_span


def test_threads_that_look_while_it_ends() -> None:
    """
    A thread that writes into a span while another ends it either gets it in, or is warned that it came too late.

    Nothing is lost, and nothing raises.
    """
    count = 10_000
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    started = MethodSpans(SpanStarter(provider.get_tracer("races")), "race", SpanKind.SERVER, ATTRIBUTES)
    spans: list[Any] = [started.start(Context(), STARTED) for _ in range(count)]
    warned: list[str] = []
    failures: list[BaseException] = []
    together = threading.Barrier(2)
    handler, logger = logging.Handler(), logging.getLogger("opentelemetry.sdk.trace")
    handler.emit = lambda record: warned.append(record.getMessage())  # type: ignore[method-assign]

    def write(order: range) -> None:
        try:
            together.wait()
            for number in order:
                spans[number].set_attribute("key", number)
        except BaseException as error:  # noqa: BLE001 - it is looked at below
            failures.append(error)

    logger.addHandler(handler)
    logger.propagate = False
    try:
        writer = threading.Thread(target=write, args=(range(count),))
        writer.start()
        together.wait()
        for span in spans:
            end_span(span, ENDING, None, ENDED)
        writer.join()
    finally:
        logger.removeHandler(handler)
        logger.propagate = True

    exported = exporter.get_finished_spans()
    assert [] == failures
    assert count == len(exported) == len({span.context.span_id for span in exported if span.context})
    assert all(ENDING.items() <= dict(span.attributes or {}).items() for span in exported)
    written = sum("key" in (span.attributes or {}) for span in exported)
    assert count == written + warned.count("Setting attribute on ended span.")


def test_memory_of_a_span_that_waits() -> None:
    """A span that waits to be exported takes less than half of the memory of an ordinary one."""

    def measured(*, lazy: bool) -> int:
        provider = TracerProvider(shutdown_on_exit=False)
        starter = SpanStarter(provider.get_tracer("memory"))
        if not lazy:
            starter.start, starter.is_lazy = starter.tracer.start_span, False
        started = MethodSpans(starter, "waits", SpanKind.SERVER, ATTRIBUTES)
        kept = []
        tracemalloc.start()
        try:
            for _ in range(1000):
                span = started.start(Context(), STARTED)
                end_span(span, ENDING, None, ENDED)
                kept.append(span)
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    measured(lazy=True)  # what is made once
    assert measured(lazy=True) < measured(lazy=False) / 2
