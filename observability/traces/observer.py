"""Traces: one span per call by the stable RPC conventions, and the context carried from caller to server."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry import baggage, trace
from opentelemetry import context as contexts
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import SpanKind, Status, StatusCode

from ..calls.errors import record_error
from ..calls.method import INFRASTRUCTURE_SERVICES
from ..calls.observer import LifecycleObserver
from ..calls.status import OK, SERVER_FAULTS, name_of
from ..calls.values import VALUE_LIMIT, safe_str, stacktrace
from .attributes import (
    PEER_IDENTITY,
    RPC_METHOD,
    end_attributes,
    method_attributes,
    target_attributes,
)
from .propagation import W3C, MetadataSetter, carrier_of, fast_extract, getter, set_metadata
from .span import end_span
from .start import MethodSpans, SpanStarter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.context import Context
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from ..calls.call import Call, Outcome
    from ..calls.observer import Observer


_logger = logging.getLogger("observability")
_KINDS: Final = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT}


class _FilterDetails(NamedTuple):
    """What opentelemetry.instrumentation.grpc.filters ask of a call."""

    method: str
    invocation_metadata: Any
    metadata: Any


def trace_calls(
    tracer_provider: TracerProvider,
    propagator: TextMapPropagator | None = None,
    filter_: Callable[[Any], bool] | None = None,
) -> Observer:
    """
    Trace every call with a span of this provider.

    `propagator` reads the caller's context and writes ours; the global one unless given. `filter_` is one of
    opentelemetry.instrumentation.grpc.filters: what it refuses has no span, though its context is carried on;
    unless given, health checks and reflection have none.
    """
    from opentelemetry import propagate  # noqa: PLC0415 - its import raises for an invalid OTEL_PROPAGATORS

    return TraceObserver(
        tracer_provider.get_tracer("observability"), propagator or propagate.get_global_textmap(), filter_
    )


def default_filter() -> Callable[[Any], bool]:
    """Refuse health checks and reflection."""
    from opentelemetry.instrumentation.grpc import filters  # noqa: PLC0415 - as in trace_calls

    return filters.negate(filters.any_of(*(filters.service_prefix(prefix) for prefix in INFRASTRUCTURE_SERVICES)))


def without_services(filter_: Callable[[Any], bool] | None, names: Sequence[str]) -> Callable[[Any], bool] | None:
    """Return a filter that refuses these services as well; None stands for the default one."""
    if not names:
        return filter_
    from opentelemetry.instrumentation.grpc import filters  # noqa: PLC0415 - as in trace_calls

    refused = filters.any_of(*(filters.service_name(name) for name in names))
    return filters.all_of(filter_ or default_filter(), filters.negate(refused))


def filter_details(call: Call) -> _FilterDetails:
    """Return what a filter asks of this call."""
    return _FilterDetails(f"/{call.descriptor.full_name}", call.metadata, call.metadata)


class CallSpan:
    """The span of one call, once there is one."""

    __slots__ = ("span",)

    def __init__(self, span: Span | None = None) -> None:
        self.span = span


class Spans(LifecycleObserver):
    """What our own spans and other people's share."""

    def on_annotate(self, _call: Call, state: CallSpan | None, fields: dict[str, Any]) -> None:
        """Set the application's fields as attributes, at once."""
        if state is not None and state.span is not None:
            _annotate(state.span, fields)


class TraceObserver(Spans):
    """Traces calls, and carries the context of those that have no span."""

    def __init__(self, tracer: Tracer, propagator: TextMapPropagator, filter_: Callable[[Any], bool] | None) -> None:
        self._starter = SpanStarter(tracer)
        self._propagator = propagator
        self._setter = MetadataSetter(propagator)
        self._is_w3c = type(propagator) is CompositePropagator and propagator.fields == W3C
        self._filter = filter_

    def on_start(self, call: Call) -> CallSpan | None:
        """Start a client's span, and write its context into the metadata; a server's starts with its handler."""
        wanted = not call.descriptor.is_infrastructure if self._filter is None else self._filter(filter_details(call))
        if call.kind == "client":
            return self._start_client(call, wanted=wanted)
        if not wanted:
            return None
        # A server's starts with its handler: what is done before is done on grpc's one serving thread.
        return CallSpan()

    def _start_client(self, call: Call, *, wanted: bool) -> CallSpan | None:
        """Start a client's span and write its context into the call's metadata; it is nobody's current span."""
        here = contexts.get_current()
        if not wanted:
            self._inject(call, here)
            return None
        if not here and call.metadata:
            with contextlib.suppress(Exception):  # what is wrong with the caller's metadata is for grpc to say
                here = self._parent(call)  # somebody further out has a trace going on, and no current span
        span = self._span(call, here)
        context = call.span_context
        if self._is_w3c and context and not context.trace_state and not (here and baggage.get_all(here)):
            # All that W3C's propagators would write, for a third of what it costs them.
            flags = context.trace_flags
            set_metadata(call.metadata, "traceparent", f"00-{call.trace_id}-{call.span_id}-{flags:02x}")
        else:
            self._inject(call, trace.set_span_in_context(span, here))
        return CallSpan(span)

    def _inject(self, call: Call, context: Context) -> None:
        """Write a context into a call's metadata; a propagator that fails has written nothing."""
        before = [*call.metadata]
        try:
            self._propagator.inject(call.metadata, context, self._setter)
        except Exception:  # noqa: BLE001 - telemetry never changes a call
            call.metadata[:] = before
            record_error(self._propagator)

    def on_handler_start(self, call: Call, state: CallSpan | None) -> None:
        """Make the call's span, or else the caller's context, the handler's."""
        context = self._parent(call)
        if state is not None:
            state.span = self._span(call, context)
            context = trace.set_span_in_context(state.span, context)
        # Never detached: every RPC has its own context, and a token does not survive a yield (otel-contrib#2357).
        contexts.attach(context)

    def on_end(self, call: Call, state: CallSpan | None, outcome: Outcome) -> None:
        """End the call's span with its outcome."""
        if state is None:
            return
        # A call whose handler never started has a span as well.
        span = state.span or self._span(call, self._parent(call))
        ended_ns = call.after(outcome.seconds)
        if not span.is_recording():
            span.end(ended_ns)
            return
        is_server = call.kind == "server"
        failed = outcome.code is not OK and (not is_server or outcome.code in SERVER_FAULTS)
        attributes = end_attributes(call.peer if is_server else None, name_of(outcome.code), failed=failed)
        if call.peer_identity is not None:
            attributes = {**attributes, PEER_IDENTITY: call.peer_identity}
        message = outcome.details
        if outcome.error is not None:
            text = safe_str(outcome.error)[:VALUE_LIMIT]
            message = message or text
            _record(span, outcome.error, text, ended_ns)
        end_span(span, attributes, Status(StatusCode.ERROR, message or None) if failed else None, ended_ns)

    def _parent(self, call: Call) -> Context:
        """Read the caller's context, beside whatever else is in this one: a span here is not the caller's."""
        here = contexts.get_current()
        if here:
            here = trace.set_span_in_context(trace.INVALID_SPAN, here)
        context = fast_extract(call.metadata, here) if self._is_w3c else None
        if context is not None:
            return context
        carrier = carrier_of(call.metadata)
        try:
            return self._propagator.extract(carrier, here, getter)
        except Exception:  # noqa: BLE001 - the call has a span anyway
            record_error(self._propagator)
            return here

    def _span(self, call: Call, parent: Context) -> Span:
        """Start a call's span, from the call's own first sight."""
        method = call.descriptor
        spans: MethodSpans | None = method.extensions.get(self)
        if spans is None:
            spans = method.extensions[self] = self._spans_of(call)
        span = spans.start(parent, call.started_ns)
        attach_span_context(call, span)
        if call.fields:
            _annotate(span, call.fields)
        return span

    def _spans_of(self, call: Call) -> MethodSpans:
        """Return what starts the spans of this method: a client's is known to one channel alone, with one target."""
        attributes = method_attributes(call.descriptor)
        if call.kind == "client" and call.peer is not None:
            attributes |= target_attributes(call.peer)
        name = attributes[RPC_METHOD]
        return MethodSpans(self._starter, "grpc" if name == "_OTHER" else name, _KINDS[call.kind], attributes)


def attach_span_context(call: Call, span: Span) -> None:
    """Give a call the ids of its span."""
    context = span.get_span_context()
    if context.is_valid:
        call.span_context = context


def _annotate(span: Span, fields: dict[str, Any]) -> None:
    if span.is_recording():  # a handler may outlive its call
        span.set_attributes({key: _attribute(value) for key, value in fields.items()})


def _attribute(value: Any) -> Any:
    return value if isinstance(value, str | bool | int | float) else safe_str(value)


def _record(span: Span, error: BaseException, text: str, at_ns: int) -> None:
    """Record an exception: as span.record_exception does, but whatever its __str__ does, and within bounds."""
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    span.add_event(
        "exception",
        {"exception.type": name, "exception.message": text, "exception.stacktrace": stacktrace(error)},
        at_ns,
    )
