"""How a call's span is started: the first of its kind by the SDK's own tracer, and the others like the first."""

from __future__ import annotations

from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry import trace
from opentelemetry.sdk.trace import Span, Tracer
from opentelemetry.sdk.trace.sampling import ParentBased, StaticSampler
from opentelemetry.trace import NonRecordingSpan, SpanContext

from .span import LazySpan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind, TraceFlags

_GIVEN: Final = {
    "attributes",
    "context",
    "instrumentation_scope",
    "kind",
    "limits",
    "links",
    "name",
    "parent",
    "resource",
    "span_processor",
}
"""What `Tracer.start_span` is to make a span of, by these names, beside whatever else."""
_OF_START: Final = {
    "DEFAULT",
    "NonRecordingSpan",
    "RANDOM_TRACE_ID",
    "SAMPLED",
    "SpanContext",
    "TraceFlags",
    "TypeError",
    "_Span",
    "_instrumentation_scope",
    "_is_enabled",
    "_span_limits",
    "_tracer_metrics",
    "attributes",
    "copy",
    "decision",
    "generate_span_id",
    "generate_trace_id",
    "get_current_span",
    "get_span_context",
    "id_generator",
    "instrumentation_info",
    "is_recording",
    "is_sampled",
    "is_trace_id_random",
    "is_valid",
    "isinstance",
    "random_trace_id",
    "resource",
    "sampler",
    "should_sample",
    "span_processor",
    "start",
    "start_span",
    "trace_api",
    "trace_flags",
    "trace_id",
    "trace_state",
}
"""All that `Tracer.start_span` is known to use: a span is started like another one only where it does no more."""
_OF_END: Final = {
    "RuntimeError",
    "_attributes",
    "_end_time",
    "_immutable",
    "_lock",
    "_on_ending",
    "_readable_span",
    "_record_end_metrics",
    "_span_processor",
    "_start_time",
    "logger",
    "on_end",
    "time_ns",
    "warning",
}
"""All that `Span.end` is known to use: `end_with` does the same for a span that is not made."""


class _Like(NamedTuple):
    """What spans of one method have in common whose parents have the same flags."""

    sampler: Any
    """The tracer's, when the first was started."""
    resource: Any
    """Likewise."""
    flags: TraceFlags
    given: Mapping[str, Any] | None
    """What they are made of, or None: they record nothing."""

    def is_outdated(self, tracer: Any) -> bool:
        """Whether the tracer may start the next one in another way."""
        return (
            tracer.sampler is not self.sampler or tracer.resource is not self.resource or not tracer._is_enabled()  # noqa: SLF001 - which it asks for each span
        )


class SpanStarter:
    """
    Starts spans as this tracer does: such as are made when somebody looks, if it is the SDK's.

    The SDK's own `Tracer.start_span` decides all of a span, with another class for the one that it makes. Where that
    cannot be had, the SDK ends spans in a way that is not known here, or the tracer is another, so are the
    spans.
    """

    def __init__(self, tracer: trace.Tracer) -> None:
        self.tracer: Any = tracer
        self.start: Callable[..., trace.Span] = tracer.start_span
        start: Any = vars(Tracer).get("start_span")
        self.is_lazy = type(tracer) is Tracer and "start_span" not in vars(tracer) and _is_known(start)
        if self.is_lazy:
            lazy = FunctionType(
                start.__code__, {**start.__globals__, "_Span": LazySpan}, "start_span", start.__defaults__
            )
            lazy.__kwdefaults__ = start.__kwdefaults__
            self.start = lazy.__get__(tracer)

    def decides_by_flags(self, parent: SpanContext | None) -> bool:
        """Whether each span with such a parent is like the first one, but for its ids."""
        tracer = self.tracer
        if not self.is_lazy or not _OF_START.issuperset(Tracer.start_span.__code__.co_names):
            return False
        is_counting = type(getattr(tracer, "_tracer_metrics", None)).__name__ != "NoOpTracerMetrics"
        if is_counting or not tracer._is_enabled():  # noqa: SLF001 - as Tracer.start_span
            return False
        sampler = tracer.sampler
        if type(sampler) is ParentBased:
            sampler = getattr(sampler, _name_for(parent), None)
        return type(sampler) is StaticSampler


class MethodSpans:
    """
    Starts the spans of one method's calls.

    All but a span's ids follows from its method and its parent's flags, as long as the sampler decides by nothing else:
    so the first span of each kind is what the SDK makes of it, and the others are like it.
    """

    def __init__(self, starter: SpanStarter, name: str, kind: SpanKind, attributes: dict[str, Any]) -> None:
        self._starter = starter
        self._tracer = starter.tracer
        self._name = name
        self._kind = kind
        self._attributes = attributes
        self._likes: dict[tuple[bool, int] | None, _Like] = {}

    def start(self, context: Context, started_ns: int) -> trace.Span:
        """Start a span whose parent, if it has one, is the span of this context."""
        parent: SpanContext | None = trace.get_current_span(context).get_span_context()
        key = None
        if parent is not None and parent.is_valid:
            key = parent.is_remote, parent.trace_flags
        else:
            parent = None
        like, tracer = self._likes.get(key), self._tracer
        if like is None or like.is_outdated(tracer):
            return self._first(key, parent, context, started_ns)
        ids = tracer.id_generator
        if parent is None:
            own = SpanContext(ids.generate_trace_id(), ids.generate_span_id(), False, like.flags)  # noqa: FBT003
        else:
            own = SpanContext(parent.trace_id, ids.generate_span_id(), False, like.flags, parent.trace_state)  # noqa: FBT003
        if like.given is None:
            return NonRecordingSpan(own)
        span = LazySpan.__new__(LazySpan, context=own, parent=parent, given=like.given)
        span.start(started_ns, context)
        return span

    def _first(
        self, key: tuple[bool, int] | None, parent: SpanContext | None, context: Context, started_ns: int
    ) -> trace.Span:
        """Start a span as the tracer does, and keep what the next ones have of it."""
        span = self._starter.start(
            self._name,
            context,
            self._kind,
            self._attributes,
            start_time=started_ns,
            record_exception=False,
            set_status_on_exception=False,
        )
        if self._starter.decides_by_flags(parent):
            given = span._given if type(span) is LazySpan else None  # noqa: SLF001 - ours
            flags = span.get_span_context().trace_flags
            self._likes[key] = _Like(self._tracer.sampler, self._tracer.resource, flags, given)
        return span


def _name_for(parent: SpanContext | None) -> str:
    """Name the sampler that the SDK's `ParentBased` asks of a span with such a parent."""
    if parent is None:
        return "_root"
    origin = "remote" if parent.is_remote else "local"
    return f"_{origin}_parent_{'' if parent.trace_flags.sampled else 'not_'}sampled"


def _is_known(start: Any) -> bool:
    """Whether this `Tracer.start_span` makes spans, and `Span.end` ends them, in the way that is known here."""
    start_code, end_code = _code(start), _code(Span.end)
    if start_code is None or end_code is None or "_Span" not in start_code.co_names:
        return False
    keywords = {name for const in start_code.co_consts if isinstance(const, tuple) for name in const}
    return keywords >= _GIVEN and "on_end" in end_code.co_names and _OF_END.issuperset(end_code.co_names)


def _code(function: Any) -> CodeType | None:
    """Return the code of a plain function, or None of anything else."""
    is_plain = isinstance(function, FunctionType) and function.__closure__ is None
    return function.__code__ if is_plain else None
