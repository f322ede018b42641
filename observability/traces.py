"""Traces: one span per call by the stable RPC conventions, and the context carried from caller to server."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote

import grpc
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.propagators.textmap import Getter, Setter
from opentelemetry.trace import SpanKind, Status, StatusCode

from .call import SERVER_FAULTS, ignore
from .logs import QUIET_SERVICES, is_quiet
from .method import PerMethod
from .rendering import VALUE_LIMIT, printed, stacktrace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.context import Context
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from .call import Call, Finish, Observer, Outcome
    from .method import Method

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


class _MetadataSetter(Setter[Any]):
    """Writes request metadata, in place of what a caller further out has written."""

    def set(self, carrier: list[tuple[str, Any]], key: str, value: str) -> None:
        """Set a key to this one value."""
        key = key.lower()
        if any(name == key for name, _ in carrier):
            carrier[:] = [pair for pair in carrier if pair[0] != key]
        carrier.append((key, value))


_getter: Final = _CarrierGetter()
_setter: Final = _MetadataSetter()


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

    tracer = tracer_provider.get_tracer("observability")
    carried = propagator or propagate.get_global_textmap()
    server, client = _Server(tracer, carried), _Client(tracer, carried)

    def observe(call: Call) -> Finish:
        side = server if call.kind == "server" else client
        wanted = not is_quiet(call.service) if filter_ is None else filter_(_filter_details(call))
        return side.start(call) if wanted else side.carry(call)

    return observe


def default_filter() -> Callable[[Any], bool]:
    """Refuse health checks and reflection."""
    from opentelemetry.instrumentation.grpc import filters  # noqa: PLC0415 - as in trace_calls

    return filters.negate(filters.any_of(*(filters.service_prefix(prefix) for prefix in QUIET_SERVICES)))


def _filter_details(call: Call) -> _FilterDetails:
    return _FilterDetails(f"/{call.descriptor.full_name}", call.metadata, call.metadata)


class _Side:
    """What a server's and a client's spans share."""

    def __init__(self, tracer: Tracer, propagator: TextMapPropagator) -> None:
        self._tracer = tracer
        self._propagator = propagator
        self._known: PerMethod[Method, dict[str, Any]] = PerMethod(_method_attributes)

    def _attributes(self, method: Method) -> dict[str, Any]:
        """Tell what is known before the call; of unknown methods, of which there is no end, nothing is kept."""
        return self._known[method] if method.known else _method_attributes(method)

    def _span(self, call: Call, parent: Context | None, attributes: dict[str, Any]) -> Span:
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
        return span


def identify(call: Call, span: Span) -> None:
    """Give a call the ids of its span, and its span the call's later annotations."""
    context = span.get_span_context()
    if not context.is_valid:
        return
    call.trace_id = trace.format_trace_id(context.trace_id)
    call.span_id = trace.format_span_id(context.span_id)
    call.sampled = context.trace_flags.sampled
    if span.is_recording():
        call.on_annotate(functools.partial(_annotate, span))


def _annotate(span: Span, fields: dict[str, Any]) -> None:
    if span.is_recording():  # a handler may outlive its call
        span.set_attributes({key: _attribute(value) for key, value in fields.items()})


def _attribute(value: Any) -> Any:
    return value if isinstance(value, str | bool | int | float) else printed(value)


class _Server(_Side):
    def carry(self, call: Call) -> Finish:
        """Carry the caller's context into the handler, without a span."""
        call.watch(_Carried(self))
        return ignore

    def start(self, call: Call) -> Finish:
        """Give the call a span, which starts with its handler: what is done before is done on grpc's one thread."""
        served = _ServedSpan(self)
        call.watch(served)
        return functools.partial(served.finish, call)

    def parent(self, call: Call) -> Context:
        """Read the caller's context."""
        return self._propagator.extract(_carrier(call.metadata), getter=_getter)

    def span(self, call: Call, parent: Context) -> Span:
        """Start the call's span."""
        return self._span(call, parent, self._attributes(call.descriptor))


class _Carried:
    """Makes the caller's context the handler's."""

    __slots__ = ("_side",)

    def __init__(self, side: _Server) -> None:
        self._side = side

    def entered(self, call: Call) -> None:
        """Attach it where the handler starts."""
        # Never detached: every RPC has a context of its own, and a token does not survive a yield (otel-contrib#2357).
        contexts.attach(self._side.parent(call))

    def left(self, call: Call) -> None:
        """Leave it as it is."""


class _ServedSpan(_Carried):
    """The span of one call, and the handler's current one."""

    __slots__ = ("_span",)

    def __init__(self, side: _Server) -> None:
        super().__init__(side)
        self._span: Span | None = None

    def entered(self, call: Call) -> None:
        """Start it with the handler, from the call's own first sight on."""
        parent = self._side.parent(call)
        self._span = self._side.span(call, parent)
        contexts.attach(trace.set_span_in_context(self._span, parent))  # never detached, as above

    def finish(self, call: Call, outcome: Outcome) -> None:
        """End it with the call; one whose handler never started has a span as well."""
        span = self._span or self._side.span(call, self._side.parent(call))
        if span.is_recording():
            attributes = _peer_attributes(call.peer) if call.peer else {}
            _conclude(span, outcome, attributes, failed=outcome.code in SERVER_FAULTS)
        span.end(call.started_ns + int(outcome.seconds * 1e9))


class _Client(_Side):
    def carry(self, call: Call) -> Finish:
        """Carry the current context on, without a span."""
        self._propagator.inject(call.metadata, setter=_setter)
        return ignore

    def start(self, call: Call) -> Finish:
        """Start a client's span and write its context into the call's metadata; it is nobody's current span."""
        attributes = self._attributes(call.descriptor)
        if call.peer is not None:
            attributes = attributes | _target_attributes(call.peer)
        span = self._span(call, None, attributes)
        self._propagator.inject(call.metadata, trace.set_span_in_context(span), _setter)

        def finish(outcome: Outcome) -> None:
            if span.is_recording():
                _conclude(span, outcome, {}, failed=outcome.code is not grpc.StatusCode.OK)
            span.end(call.started_ns + int(outcome.seconds * 1e9))

        return finish


def _conclude(span: Span, outcome: Outcome, attributes: dict[str, Any], *, failed: bool) -> None:
    """Write the outcome into a span; an uncaught exception is recorded once."""
    code = outcome.code.name
    message = outcome.details
    if outcome.error is not None:
        text = printed(outcome.error)[:VALUE_LIMIT]
        message = message or text
        _record(span, outcome.error, text)
    if failed:
        attributes = {**attributes, RPC_STATUS_CODE: code, ERROR_TYPE: code}
        span.set_status(Status(StatusCode.ERROR, message or None))
    else:
        attributes = {**attributes, RPC_STATUS_CODE: code}
    span.set_attributes(attributes)


def _record(span: Span, error: BaseException, text: str) -> None:
    """Record an exception: as span.record_exception does, but whatever its __str__ does, and within bounds."""
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    span.add_event(
        "exception",
        {"exception.type": name, "exception.message": text, "exception.stacktrace": stacktrace(error)},
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


class _FollowSpan:
    """Reads a call's ids from the current span where somebody else's interceptor has made it: around the handler."""

    def entered(self, call: Call) -> None:
        """Read them where the handler starts."""
        identify(call, trace.get_current_span())

    def left(self, call: Call) -> None:
        """Leave them as they are."""


def follow_spans(filter_: Callable[[Any], bool]) -> Observer:
    """Give calls the ids of the spans that another instrumentation makes further out, of the calls it wants."""
    watcher = _FollowSpan()

    def observe(call: Call) -> Finish:
        if not filter_(_filter_details(call)):
            return ignore
        if call.kind == "server":
            call.watch(watcher)
        else:
            identify(call, trace.get_current_span())
        return ignore

    return observe
