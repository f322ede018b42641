"""Traces: one span per call by the stable RPC conventions, and the context carried from caller to server."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote

import grpc
from opentelemetry import baggage, trace
from opentelemetry import context as contexts
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import Getter, Setter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from ..calls.call import SERVER_FAULTS
from ..calls.errors import report
from ..calls.metadata import is_sendable
from ..calls.observers import Signal
from ..logs.observer import QUIET_SERVICES, is_quiet
from ..logs.render import VALUE_LIMIT, printed, stacktrace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.context import Context
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from ..calls.call import Call, Observer, Outcome
    from ..calls.method import Method

# The RPC conventions are stable since 1.45.0; the Python package of constants stops at 1.44.
RPC_SYSTEM_NAME: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_METHOD_ORIGINAL: Final = "rpc.method_original"
RPC_STATUS_CODE: Final = "rpc.status_code"
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
NETWORK_PEER_ADDRESS: Final = "network.peer.address"
NETWORK_PEER_PORT: Final = "network.peer.port"

_logger = logging.getLogger("observability")
_W3C: Final = {"traceparent", "tracestate", "baggage"}
_TRACEPARENT: Final = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})").fullmatch
_KINDS: Final = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT}
_HOST_AND_PORT: Final = re.compile(r"(?:.*/|[a-z][a-z0-9+.-]*:(?!\d+$))?(\[[^\]]+\]|[^:/\[\]]+)(?::(\d+))?").fullmatch


class _FilterDetails(NamedTuple):
    """What opentelemetry.instrumentation.grpc.filters ask of a call."""

    method: str
    invocation_metadata: Any
    metadata: Any


class _CarrierGetter(Getter[Any]):
    """Reads what `_carrier` makes of request metadata."""

    def get(self, carrier: dict[str, list[str]], key: str) -> list[str] | None:
        """Return the values of a key."""
        return carrier.get(key.lower())

    def keys(self, carrier: dict[str, list[str]]) -> list[str]:
        """Return the keys."""
        return list(carrier)


def _carrier(metadata: Sequence[tuple[str, Any]]) -> dict[str, list[str]]:
    """Order request metadata by its keys, in one pass; bytes are no business of a propagator's."""
    carrier: dict[str, list[str]] = {}
    for key, value in metadata:
        if isinstance(value, str):
            carrier.setdefault(key, []).append(value)
    return carrier


def _plain_context(metadata: Sequence[tuple[str, Any]], here: Context) -> Context | None:
    """
    Read a plain traceparent, such as nearly every caller sends, as W3C's propagators do for four times as much.

    Returns None where there is more to read than this one header, or another form of it.
    """
    traceparent = None
    for key, value in metadata:
        if key in _W3C:
            if traceparent is not None or key != "traceparent":
                return None
            traceparent = value
    if traceparent is None:
        return here
    match = _TRACEPARENT(traceparent)
    if match is None:
        return None
    trace_id, span_id, flags = match.groups()
    remote = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
    return trace.set_span_in_context(NonRecordingSpan(remote), here) if remote.is_valid else None


def _set(metadata: list[Any], key: str, value: str) -> None:
    """Set a key of request metadata to this one value, in place of what a caller further out has written."""
    if metadata:
        metadata[:] = [pair for pair in metadata if not _has_key(pair, key)]
    metadata.append((key, value))


def _has_key(pair: Any, key: str) -> bool:
    try:
        return bool(pair[0] == key)
    except Exception:  # noqa: BLE001 - it is the caller's, and grpc says what is wrong with it
        return False


class _MetadataSetter(Setter[Any]):
    """
    Writes what a propagator wants in request metadata.

    What gRPC cannot send would fail the call: it is left out, and reported once.
    """

    def __init__(self, propagator: TextMapPropagator) -> None:
        self._propagator = type(propagator).__qualname__
        self._has_reported = False

    def set(self, carrier: list[Any], key: str, value: str) -> None:
        """Set a key to this one value."""
        try:
            key = key.lower()
            sendable = is_sendable(key, value)
        except Exception:  # noqa: BLE001 - whatever it is, it cannot be sent
            sendable = False
        if sendable:
            _set(carrier, key, value)
        elif not self._has_reported:
            self._has_reported = True
            _logger.warning("%s writes metadata that gRPC cannot send: %r is left out", self._propagator, key)


_getter: Final = _CarrierGetter()


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
    from opentelemetry import propagate  # noqa: PLC0415 - its import raises for a bad OTEL_PROPAGATORS

    return _Traced(tracer_provider.get_tracer("observability"), propagator or propagate.get_global_textmap(), filter_)


def default_filter() -> Callable[[Any], bool]:
    """Refuse health checks and reflection."""
    from opentelemetry.instrumentation.grpc import filters  # noqa: PLC0415 - as in trace_calls

    return filters.negate(filters.any_of(*(filters.service_prefix(prefix) for prefix in QUIET_SERVICES)))


def _filter_details(call: Call) -> _FilterDetails:
    return _FilterDetails(f"/{call.descriptor.full_name}", call.metadata, call.metadata)


class _CallSpan:
    """The span of one call, once there is one."""

    __slots__ = ("span",)

    def __init__(self, span: Span | None = None) -> None:
        self.span = span


class _Spans(Signal):
    """What our own spans and other people's share."""

    def annotated(self, _call: Call, state: _CallSpan | None, fields: dict[str, Any]) -> None:
        if state is not None and state.span is not None:
            _annotate(state.span, fields)


class _Traced(_Spans):
    """Traces calls, and carries the context of those that have no span."""

    def __init__(self, tracer: Tracer, propagator: TextMapPropagator, filter_: Callable[[Any], bool] | None) -> None:
        self._tracer = tracer
        self._propagator = propagator
        self._setter = _MetadataSetter(propagator)
        self._is_w3c = type(propagator) is CompositePropagator and propagator.fields == _W3C
        self._filter = filter_

    def started(self, call: Call) -> _CallSpan | None:
        wanted = not is_quiet(call.service) if self._filter is None else self._filter(_filter_details(call))
        if call.kind == "client":
            return self._start_client(call, wanted=wanted)
        if not wanted:
            return None
        # A server's starts with its handler: what is done before is done on grpc's one serving thread.
        return _CallSpan()

    def _start_client(self, call: Call, *, wanted: bool) -> _CallSpan | None:
        """Start a client's span and write its context into the call's metadata; it is nobody's current span."""
        here = contexts.get_current()
        if not wanted:
            self._inject(call, here)
            return None
        if not here and call.metadata:
            with contextlib.suppress(Exception):  # what is wrong with the caller's metadata is for grpc to say
                here = self._parent(call)  # somebody further out has a trace going on, and no current span
        attributes = self._attributes(call.descriptor)
        if call.peer is not None:
            attributes = attributes | _target_attributes(call.peer)
        span = self._span(call, here, attributes)
        context = call.span_context
        if self._is_w3c and context and not context.trace_state and not (here and baggage.get_all(here)):
            # All that W3C's propagators would write, for a third of what it costs them.
            flags = context.trace_flags
            _set(call.metadata, "traceparent", f"00-{call.trace_id}-{call.span_id}-{flags:02x}")
        else:
            self._inject(call, trace.set_span_in_context(span, here))
        return _CallSpan(span)

    def _inject(self, call: Call, context: Context) -> None:
        """Write a context into a call's metadata; a propagator that fails has written nothing."""
        before = [*call.metadata]
        try:
            self._propagator.inject(call.metadata, context, self._setter)
        except Exception:  # noqa: BLE001 - telemetry never changes a call
            call.metadata[:] = before
            report(self._propagator)

    def entered(self, call: Call, state: _CallSpan | None) -> None:
        """Make the call's span, or else the caller's context, the handler's."""
        context = self._parent(call)
        if state is not None:
            state.span = self._span(call, context, self._attributes(call.descriptor))
            context = trace.set_span_in_context(state.span, context)
        # Never detached: every RPC has a context of its own, and a token does not survive a yield (otel-contrib#2357).
        contexts.attach(context)

    def ended(self, call: Call, state: _CallSpan | None, outcome: Outcome) -> None:
        if state is None:
            return
        # A call whose handler never started has a span as well.
        span = state.span or self._span(call, self._parent(call), self._attributes(call.descriptor))
        ended_ns = call.after(outcome.seconds)
        if span.is_recording():
            server = call.kind == "server"
            attributes = _peer_attributes(call.peer) if server and call.peer else {}
            failed = outcome.code in SERVER_FAULTS if server else outcome.code is not grpc.StatusCode.OK
            _conclude(span, outcome, attributes, ended_ns, failed=failed)
        span.end(ended_ns)

    def _parent(self, call: Call) -> Context:
        """Read the caller's context, beside whatever else is in this one: a span here is not the caller's."""
        here = contexts.get_current()
        if here:
            here = trace.set_span_in_context(trace.INVALID_SPAN, here)
        context = _plain_context(call.metadata, here) if self._is_w3c else None
        if context is not None:
            return context
        carrier = _carrier(call.metadata)
        try:
            return self._propagator.extract(carrier, here, _getter)
        except Exception:  # noqa: BLE001 - the call has a span all the same
            report(self._propagator)
            return here

    def _attributes(self, method: Method) -> dict[str, Any]:
        """Tell what is known before the call."""
        attributes: dict[str, Any] | None = method.notes.get(self)
        if attributes is None:
            attributes = method.notes[self] = _method_attributes(method)
        return attributes

    def _span(self, call: Call, parent: Context, attributes: dict[str, Any]) -> Span:
        """Start a call's span, from the call's own first sight."""
        name = attributes[RPC_METHOD]
        span = self._tracer.start_span(
            "grpc" if name == "_OTHER" else name,
            parent,
            _KINDS[call.kind],
            attributes,
            start_time=call.started_ns,
            record_exception=False,
            set_status_on_exception=False,
        )
        identify(call, span)
        if call.fields:
            _annotate(span, call.fields)
        return span


def identify(call: Call, span: Span) -> None:
    """Give a call the ids of its span."""
    context = span.get_span_context()
    if context.is_valid:
        call.span_context = context


def _annotate(span: Span, fields: dict[str, Any]) -> None:
    if span.is_recording():  # a handler may outlive its call
        span.set_attributes({key: _attribute(value) for key, value in fields.items()})


def _attribute(value: Any) -> Any:
    return value if isinstance(value, str | bool | int | float) else printed(value)


def _conclude(span: Span, outcome: Outcome, attributes: dict[str, Any], ended_ns: int, *, failed: bool) -> None:
    """Write the outcome into a span; an uncaught exception is recorded once."""
    code = outcome.code.name
    message = outcome.details
    if outcome.error is not None:
        text = printed(outcome.error)[:VALUE_LIMIT]
        message = message or text
        _record(span, outcome.error, text, ended_ns)
    if failed:
        attributes = {**attributes, RPC_STATUS_CODE: code, ERROR_TYPE: code}
        span.set_status(Status(StatusCode.ERROR, message or None))
    else:
        attributes = {**attributes, RPC_STATUS_CODE: code}
    span.set_attributes(attributes)


def _record(span: Span, error: BaseException, text: str, at_ns: int) -> None:
    """Record an exception: as span.record_exception does, but whatever its __str__ does, and within bounds."""
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    span.add_event(
        "exception",
        {"exception.type": name, "exception.message": text, "exception.stacktrace": stacktrace(error)},
        at_ns,
    )


def _method_attributes(method: Method) -> dict[str, Any]:
    name = method.full_name
    if method.known:
        return {RPC_SYSTEM_NAME: "grpc", RPC_METHOD: name}
    return {RPC_SYSTEM_NAME: "grpc", RPC_METHOD: "_OTHER", RPC_METHOD_ORIGINAL: name}


@functools.lru_cache(maxsize=1024)
def _target_attributes(target: str) -> dict[str, Any]:
    """Tell the server's address and port from a channel's target, such as dns:///host:8080."""
    return _address(target, SERVER_ADDRESS, SERVER_PORT)


@functools.lru_cache(maxsize=1024)
def _peer_attributes(peer: str) -> dict[str, Any]:
    """Tell a peer's address and port from grpc's name for it, such as ipv4:127.0.0.1:40112."""
    return _address(unquote(peer), NETWORK_PEER_ADDRESS, NETWORK_PEER_PORT)


def _address(name: str, address_key: str, port_key: str) -> dict[str, Any]:
    if name.startswith("unix"):
        path = name.partition(":")[2].removeprefix("//")
        return {address_key: path} if path else {}
    match = _HOST_AND_PORT(name)
    if match is None:
        return {address_key: name}
    address = {address_key: match[1].strip("[]")}
    return address if match[2] is None else {**address, port_key: int(match[2])}


def follow_spans(filter_: Callable[[Any], bool]) -> Observer:
    """Give calls the ids of the spans that another instrumentation makes further out, of the calls it wants."""
    return _FollowedSpan(filter_)


class _FollowedSpan(_Spans):
    """Reads a call's ids from the current span where somebody else's interceptor has made it."""

    def __init__(self, filter_: Callable[[Any], bool]) -> None:
        self._filter = filter_

    def started(self, call: Call) -> _CallSpan | None:
        if not self._filter(_filter_details(call)):
            return None
        state = _CallSpan()
        if call.kind == "client":
            self.entered(call, state)
        return state

    def entered(self, call: Call, state: _CallSpan | None) -> None:
        """Read them: a server's are known around its handler alone."""
        if state is not None:
            state.span = trace.get_current_span()
            identify(call, state.span)
