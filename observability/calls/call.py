"""What a call is, and its outcome."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from .values import snapshot

if TYPE_CHECKING:
    from collections.abc import MutableSequence, Sequence

    import grpc
    from opentelemetry.trace import SpanContext

    from .method import Method, Type

Kind: TypeAlias = Literal["server", "client"]


current: contextvars.ContextVar[Call | None] = contextvars.ContextVar("observability_call", default=None)


class Call:
    """
    One call on one side, from its start to its end.

    `service` and `method` are its full service name and its method's name, `kind` is server or client, `type`
    its arity. `peer` is who called, as grpc names it, or the client channel's target. `peer_identity` is what the
    caller's certificate says of it: its alternative names with commas between, or else its common name; None where
    it has shown none. `deadline` is the time that the caller gave, in seconds from the call's start, or None. A server
    learns these three when the handler starts. `queue_seconds` is how long a server's call waited for that: None before
    it, and on a client. `metadata` is the request metadata; a client's may be changed until the call is sent. `sent`
    counts the messages handed to grpc, `received` those handed to the application. `span_context` is that of its span,
    or None where there is no valid one.
    """

    __slots__ = (
        "deadline",
        "descriptor",
        "fields",
        "kind",
        "metadata",
        "method",
        "peer",
        "peer_identity",
        "queue_seconds",
        "received",
        "sent",
        "service",
        "span_context",
        "started_ns",
        "type",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - what is known at its start
        self,
        descriptor: Method,
        kind: Kind,
        metadata: MutableSequence[Any] | Sequence[Any],
        started_ns: int,
        deadline: float | None = None,
        peer: str | None = None,
    ) -> None:
        self.started_ns = started_ns
        self.descriptor = descriptor
        self.service = descriptor.service
        self.method = descriptor.name
        self.type: Type = descriptor.type
        self.kind: Kind = kind
        self.metadata: Any = metadata
        self.deadline = deadline
        self.peer = peer
        self.peer_identity: str | None = None
        self.sent = 0
        self.received = 0
        self.span_context: SpanContext | None = None
        self.queue_seconds: float | None = None
        self.fields: dict[str, Any] | None = None

    @property
    def trace_id(self) -> str | None:
        """The trace's id, in 32 lower-case hex digits, or None where there is no valid span."""
        context = self.span_context
        return None if context is None else f"{context.trace_id:032x}"

    @property
    def span_id(self) -> str | None:
        """The span's id, in 16 lower-case hex digits, or None where there is no valid span."""
        context = self.span_context
        return None if context is None else f"{context.span_id:016x}"

    def after(self, seconds: float) -> int:
        """Return when it was so many seconds after the call's start, in nanoseconds since the epoch."""
        return self.started_ns + int(seconds * 1e9)

    def annotate(self, **fields: Any) -> None:
        """Add fields, as they are now, to the call's log line, and to its span as attributes, at once."""
        self.fields = {**(self.fields or {}), **{key: snapshot(value) for key, value in fields.items()}}


class Outcome(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    """The final status code: a server's is what it sent, a client's what its caller got."""
    details: str
    """The status message, or an empty string."""
    seconds: float
    """From the first sight of the call to its true end."""
    error: BaseException | None
    """The handler's uncaught exception, or None."""
    sent: int = 0
    """The messages handed to grpc by then: a handler that outlives its call may hand over more."""
    received: int = 0
    """The messages handed to the application by then."""


def current_call() -> Call | None:
    """Return the call that is being served here, or None outside a handler."""
    return current.get()
