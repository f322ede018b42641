"""OTLP spans from pieces that are encoded once: what one call's span has in common with the next."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, SpanFlags, Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from ..threads.process import ForkLock
from .encodable import encodable
from .span import LazySpan, Parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.trace import SpanKind

_PIECES: Final = 4096
"""How many pieces of each kind are kept."""
_LONGEST_KEPT: Final = 256
"""Characters of a value that is kept; a longer one is hardly met again."""
_LOCAL: Final = Span(flags=SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK).SerializeToString()
_REMOTE: Final = Span(
    flags=SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
).SerializeToString()
_VALUES: Final = {bool: "bool_value", str: "string_value", int: "int_value", float: "double_value"}


class CachingExporter(OTLPSpanExporter):
    """
    The OTLP/gRPC exporter, with an encoder that costs a third of theirs, which lets the process fork.

    Each process makes its channel for its first batch. In a forked process its parent's is closed, and where gRPC has
    been used before a fork, without GRPC_ENABLE_FORK_SUPPORT, a child cannot use it at all.
    """

    def __init__(self, **options: Any) -> None:
        self._process: int | None = None
        """The process that the channel belongs to."""
        self._sending = ForkLock()
        super().__init__(**options)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        with self._sending:
            if self._process != os.getpid():
                self._process = os.getpid()
                self._initialize_channel_and_stub()
            return super().export(spans)

    # What follows is not public. Where a later version no longer asks for it, that version's own means are used.

    def _initialize_channel_and_stub(self) -> None:
        make = getattr(super(), "_initialize_channel_and_stub", None)
        if make is None or self._process is None:
            return
        make()

    def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        return encode(data)


def encode(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """
    Encode spans, to what opentelemetry's own encode_spans makes of them.

    Protobuf messages can be put together from encoded parts (a message's fields may come in any order, and one
    part after the other is their merger), so that a method's name, an attribute and a status are encoded once.
    A span with more than these, such as events or links, is encoded by encode_spans. What that cannot encode, and
    would drop or fail for, is replaced.
    """
    request = ExportTraceServiceRequest()
    resources: dict[int, ResourceSpans] = {}
    groups: dict[tuple[int, int], ScopeSpans] = {}
    for span in spans:
        parts = span.parts() if type(span) is LazySpan else None
        resource, scope = (parts or span).resource, parts.scope if parts else span.instrumentation_scope
        # By identity: a resource's own hash costs more than all the rest.
        key = id(resource), id(scope)
        group = groups.get(key)
        if group is None:
            bare = ReadableSpan("", span.context, resource=resource, instrumentation_scope=scope)
            [whole] = encode_spans([encodable(bare)]).resource_spans
            if key[0] not in resources:
                resources[key[0]] = request.resource_spans.add(resource=whole.resource, schema_url=whole.schema_url)
            resources[key[0]].scope_spans.append(whole.scope_spans[0])
            group = groups[key] = resources[key[0]].scope_spans[-1]
            del group.spans[:]
        try:
            group.spans.add().MergeFromString(_encoded(parts or _parts(span)))
        except (TypeError, ValueError):
            [whole] = encode_spans([encodable(span)]).resource_spans
            group.spans[-1].CopyFrom(whole.scope_spans[0].spans[0])
    return request


def _parts(span: ReadableSpan) -> Parts:
    """Return what an ordinary span consists of; ValueError if it has events, links and the like."""
    context = span.context
    if context is None or span.events or span.links or _dropped(span):
        raise ValueError("more than its parts")
    attributes: Any = span.attributes
    return Parts(
        span.resource,
        span.instrumentation_scope,
        context,
        span.parent,
        span.name,
        span.kind,
        span.status,
        span.start_time or 0,
        span.end_time or 0,
        attributes.copy(),
    )


def _encoded(parts: Parts) -> bytes:
    """Encode a span of these; TypeError or ValueError if one of its values is no text, number or truth value."""
    context, parent, status = parts.context, parts.parent, parts.status
    own = Span(
        trace_id=context.trace_id.to_bytes(16),
        span_id=context.span_id.to_bytes(8),
        parent_span_id=parent.span_id.to_bytes(8) if parent else b"",
        start_time_unix_nano=parts.started_ns,
        end_time_unix_nano=parts.ended_ns,
    )
    if context.trace_state:
        own.trace_state = context.trace_state.to_header()
    code, description = (status.status_code, status.description) if status else (StatusCode.UNSET, None)
    is_remote = parent is not None and parent.is_remote
    pieces = parts.name, parts.kind, code, description, is_remote, *parts.attributes, *parts.attributes.values()
    try:
        rest = _kept_rest(*pieces)
    except _RareError:
        rest = _rest(*pieces)
    return own.SerializeToString() + rest


def _dropped(span: ReadableSpan) -> int:
    return span.dropped_attributes + span.dropped_events + span.dropped_links


class _RareError(Exception):
    """A piece is hardly met again."""


def _rest(*pieces: Any) -> bytes:
    """
    Encode all of a span but its ids and times, which it has in common with others.

    `pieces` are its name, kind, status code and description, whether its parent is remote, the keys of its attributes,
    and then their values.
    """
    name, kind, code, description, is_remote, *attributes = pieces
    count = len(attributes) // 2
    pairs = zip(attributes[:count], attributes[count:], strict=True)
    where = _REMOTE if is_remote else _LOCAL
    return b"".join([_what(name, kind, code, description), where, *[_attribute(*pair) for pair in pairs]])


# Typed, since 1 is equal to True. An equal tuple may hold either: of such, nothing is kept.
@lru_cache(_PIECES, typed=True)
def _kept_rest(*pieces: Any) -> bytes:
    """Encode the same, and keep it; _RareError where one of the pieces is hardly met again."""
    if any(map(_is_rare, pieces)):
        raise _RareError
    return _rest(*pieces)


@lru_cache(_PIECES)
def _what(name: str, kind: SpanKind, code: StatusCode, description: str | None) -> bytes:
    status = Status(code=Status.StatusCode.Value(f"STATUS_CODE_{code.name}"), message=description or "")
    return Span(name=name, kind=Span.SpanKind.Value(f"SPAN_KIND_{kind.name}"), status=status).SerializeToString()


def _attribute(key: str, value: Any) -> bytes:
    return (_encoded_attribute if _is_rare(value) else _kept_attribute)(key, value)


def _is_rare(value: Any) -> bool:
    return type(value) is float or (type(value) is str and len(value) > _LONGEST_KEPT)


def _encoded_attribute(key: str, value: Any) -> bytes:
    known = _VALUES.get(type(value))
    if known is None:
        raise TypeError(f"{key} is neither text nor number")
    return Span(attributes=[KeyValue(key=key, value=AnyValue(**{known: value}))]).SerializeToString()


_kept_attribute = lru_cache(_PIECES, typed=True)(_encoded_attribute)
