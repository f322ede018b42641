"""What a call is, and how it is told: observers start with it and finish with its outcome."""

from __future__ import annotations

import contextvars
import time
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

import grpc
from opentelemetry import context as contexts

from ..logs.render import as_now
from ..threads.finalizers import finalizers

if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence, Sequence

    from opentelemetry.trace import SpanContext

    from .method import Method, Type
    from .observers import Signals

Kind: TypeAlias = Literal["server", "client"]

_CUT_OFF_SLACK: Final = 0.025
_CUT_OFF_SHARE: Final = 0.02
_FOREVER: Final = 1e9
# grpc.aio takes numbers up to DATA_LOSS, and the one after it, UNAUTHENTICATED, for none that it knows.
_NUMBERS: Final[dict[int, grpc.StatusCode]] = {
    code.value[0]: code for code in grpc.StatusCode if code is not grpc.StatusCode.UNAUTHENTICATED
}
# What is worth an error: the codes that tell of a server's own fault, by the RPC semantic conventions.
SERVER_FAULTS: Final = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)

_current: contextvars.ContextVar[Call | None] = contextvars.ContextVar("observability_call", default=None)


class Call:
    """
    One call on one side, from its start to its end.

    `service` and `method` are its full service name and its method's name, `kind` is server or client, `type`
    its arity. `peer` is who called, as grpc names it, or the client channel's target. `deadline` is the time
    that the caller gave, in seconds from the call's start, or None. A server learns both when the handler
    starts. `metadata` is the request metadata; a client's may be changed until the call is sent. `sent` counts
    the messages handed to grpc, `received` those handed to the application. `span_context` is that of its span,
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
        """Tell when it was so long after the call's start, in nanoseconds since the epoch."""
        return self.started_ns + int(seconds * 1e9)

    def annotate(self, **fields: Any) -> None:
        """Add fields, as they are now, to the call's log line, and to its span as attributes, at once."""
        self.fields = {**(self.fields or {}), **{key: as_now(value) for key, value in fields.items()}}


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


Finish: TypeAlias = "Callable[[Outcome], None]"
Observer: TypeAlias = "Callable[[Call], Finish]"


class Observation(Call):
    """A call that is told of, and ends once, by whichever end comes first."""

    __slots__ = ("_deferred", "_open", "_signals", "_states", "started")

    def __init__(  # noqa: PLR0913, PLR0917 - made for every call, for which names cost
        self,
        descriptor: Method,
        kind: Kind,
        metadata: MutableSequence[Any] | Sequence[Any],
        signals: Signals,
        started: float,
        started_ns: int,
        deadline: float | None = None,
        peer: str | None = None,
    ) -> None:
        super().__init__(descriptor, kind, metadata, started_ns, deadline, peer)
        self.started = started  # by time.perf_counter
        self._signals = signals
        self._open = [True]
        self._deferred: list[Outcome] | tuple[()] = ()
        if kind == "server":
            _current.set(self)  # never reset: every RPC has a context of its own (otel-contrib#2357)
        self._states = signals.nothing()  # by now: an observer may annotate at the start
        signals.start(self, self._states)

    @property
    def seconds(self) -> float:
        """How long the call has been going on."""
        return time.perf_counter() - self.started

    @property
    def ended(self) -> bool:
        """Whether its end has been decided. Safe inside a garbage collection."""
        return not self._open

    def annotate(self, **fields: Any) -> None:
        """Add fields to the call's log line, and to its span as attributes, at once."""
        super().annotate(**fields)
        self._signals.annotated(self, self._states, fields)

    def entered(self) -> None:
        """Report that the handler starts, where it runs; it is current there wherever interceptors ran."""
        if _current.get() is not self:
            _current.set(self)
        self._signals.tell(self._signals.entering, self._states, self)

    def left(self) -> None:
        """Tell that the handler has ended."""
        self._signals.tell(self._signals.leaving, self._states, self)

    def end(
        self,
        code: grpc.StatusCode,
        details: str = "",
        error: BaseException | None = None,
        seconds: float | None = None,
    ) -> None:
        """
        Tell of the end; a later end changes nothing. Never raises: grpc's callbacks must not.

        `seconds` is when the end was, if not now.
        """
        outcome = self._decide(code, details, error, seconds)
        if outcome is not None:
            self._signals.ended(self, self._states, outcome)
        elif self._deferred:
            self._report_deferred()

    def end_deferred(
        self,
        code: grpc.StatusCode,
        details: str = "",
        error: BaseException | None = None,
        seconds: float | None = None,
    ) -> None:
        """
        Decide the end now and report it soon, from another thread, or with the next call of `end`.

        Safe inside a garbage collection, where `end` is not: see `finalizers`.
        """
        outcome = self._decide(code, details, error, seconds)
        if outcome is not None:
            self._deferred = [outcome]
            finalizers.defer(self._report_deferred)

    def left_deferred(self) -> None:
        """Report soon, from another thread, that the handler has ended: safe where `end_deferred` is."""
        if self._signals.leaving:
            finalizers.defer(self.left)

    def _decide(
        self, code: grpc.StatusCode, details: str, error: BaseException | None, seconds: float | None
    ) -> Outcome | None:
        """Return the call's outcome to whoever is the first to ask for one, without a lock; None to any other."""
        try:
            self._open.pop()
        except IndexError:
            return None
        if seconds is None:
            seconds = time.perf_counter() - self.started
        return Outcome(code, details, seconds, error, self.sent, self.received)

    def _report_deferred(self) -> None:
        try:
            outcome = self._deferred.pop()  # type: ignore[union-attr]  # end_deferred has made it a list
        except IndexError:
            return  # reported already
        self._signals.ended(self, self._states, outcome)


def current_call() -> Call | None:
    """Return the call that is being served here, or None outside a handler."""
    return _current.get()


def enabled_by(is_enabled: Callable[[], bool]) -> Callable[[], bool]:
    """Ask whether instrumentation is suppressed only where a context has any values: most calls' has none."""
    return lambda: not contexts.get_current() or is_enabled()


def status_code(value: Any, *, numbers: bool) -> grpc.StatusCode | None:
    """
    Tell the status code that a handler set, as a code or, where grpc knows `numbers`, as its number.

    Returns None where it set none. What is no code at all is sent as UNKNOWN.
    """
    if value is None or isinstance(value, grpc.StatusCode):
        return value
    if numbers and isinstance(value, int):
        return _NUMBERS.get(value, grpc.StatusCode.UNKNOWN)
    return grpc.StatusCode.UNKNOWN


def deadline_of(time_remaining: float | None) -> float | None:
    """Tell the seconds that are left, or None without a deadline (9.2e18 on a sync server: grpc#26236)."""
    return None if time_remaining is None or time_remaining > _FOREVER else time_remaining


def cut_off_code(deadline: float | None, remaining: float | None) -> grpc.StatusCode:
    """
    Decide the code of a call on the server that was cut off before it had a status.

    `deadline` is the time that the call had at its start and `remaining` what was left of it at its end, both in
    seconds, or None.
    """
    if deadline is not None and remaining is not None and remaining <= max(_CUT_OFF_SLACK, _CUT_OFF_SHARE * deadline):
        # grpc-timeout is rounded up on the wire, so the caller gives up a little before our own deadline.
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return grpc.StatusCode.CANCELLED


def unserved_code(waited: float) -> grpc.StatusCode:
    """
    Decide the code of a call that was cut off before its handler started, after `waited` seconds.

    grpc hides the deadline of such a call, and whether it ran out. Waiting in the queue ends by the caller's
    deadline as a rule; what ends at once was refused by grpc's core or given up by hand.
    """
    return grpc.StatusCode.DEADLINE_EXCEEDED if waited > _CUT_OFF_SLACK else grpc.StatusCode.CANCELLED


CUT_OFF_DETAILS: Final = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "Deadline Exceeded",
    grpc.StatusCode.CANCELLED: "Cancelled",
}
