"""What a call is, and how it is told: observers start with it and finish with its outcome."""

from __future__ import annotations

import contextvars
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, TypeAlias

import grpc

from .faults import report

if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence, Sequence

    from .method import Method, Type

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


class Watcher(Protocol):
    """Is told when a call's handler starts and when it ends, which may be after the call's own end."""

    def entered(self, call: Call) -> None:
        """Tell that the call's handler starts; runs where the handler runs, in its context."""

    def left(self, call: Call) -> None:
        """Tell that the call's handler has ended."""


class Call:
    """
    One call on one side, from its start to its end.

    `service` and `method` are its full service name and its method's name, `kind` is server or client, `type`
    its arity. `peer` is who called, as grpc names it, or the client channel's target. `deadline` is the time
    that the caller gave, in seconds from the call's start, or None. A server learns both when the handler
    starts. `metadata` is the request metadata; a client's may be changed until the call is sent. `sent` counts
    the messages handed to grpc, `received` those handed to the application. `trace_id` and `span_id` are 32 and
    16 lower-case hex digits, or None where there is no valid span.
    """

    __slots__ = (
        "_annotators",
        "_watchers",
        "deadline",
        "descriptor",
        "fields",
        "kind",
        "metadata",
        "method",
        "peer",
        "queue_seconds",
        "received",
        "sampled",
        "sent",
        "service",
        "span_id",
        "started_ns",
        "trace_id",
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
        self.trace_id: str | None = None
        self.span_id: str | None = None
        self.sampled = False
        self.queue_seconds: float | None = None
        self.fields: dict[str, Any] | None = None
        self._annotators: tuple[Callable[[dict[str, Any]], None], ...] = ()
        self._watchers: tuple[Watcher, ...] = ()

    def annotate(self, **fields: Any) -> None:
        """Add fields to the call's log line, and to its span as attributes, at once."""
        self.fields = {**(self.fields or {}), **fields}
        for annotator in self._annotators:
            annotator(fields)

    def on_annotate(self, annotator: Callable[[dict[str, Any]], None]) -> None:
        """Hand every later annotation to this function as well."""
        self._annotators += (annotator,)

    def watch(self, watcher: Watcher) -> None:
        """Tell this watcher when the call's handler starts and ends."""
        self._watchers += (watcher,)

    def entered(self) -> None:
        """Tell the watchers that the handler starts."""
        for watcher in self._watchers:
            _attempt(watcher.entered, self)

    def left(self) -> None:
        """Tell the watchers that the handler has ended."""
        for watcher in self._watchers:
            _attempt(watcher.left, self)


def _attempt(tell: Callable[[Call], None], call: Call) -> None:
    """Let an observer do this; what it raises is reported, since telemetry never changes a call."""
    try:
        tell(call)
    except BaseException as error:  # noqa: BLE001 - as in start
        _caught(tell, error)


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
Pending: TypeAlias = "list[tuple[Observer, Finish]]"


def ignore(_outcome: Outcome) -> None:
    """Finish a call that is not observed."""


def start(observers: Sequence[Observer], call: Call) -> Pending:
    """Start observers of a call; what one raises is reported, and changes nothing for the call or the others."""
    pending = []
    for observer in observers:
        try:
            pending.append((observer, observer(call)))
        except BaseException as error:  # noqa: BLE001 - telemetry never changes a call
            _caught(observer, error)
    return pending


def finish(pending: Pending, outcome: Outcome) -> None:
    """Finish what `start` has started, in the same way."""
    for observer, finish_one in pending:
        try:
            finish_one(outcome)
        except BaseException as error:  # noqa: BLE001 - as in start
            _caught(observer, error)


def _caught(source: Any, error: BaseException) -> None:
    """
    Report what an observer raised, whatever it is: grpc's callbacks must not raise, on pain of callers that wait.

    An interrupt in the main thread goes on: a signal's handler has raised it, and the process is to end.
    """
    interrupt = isinstance(error, KeyboardInterrupt | SystemExit)
    if interrupt and threading.current_thread() is threading.main_thread():
        raise error
    report(source)


class Observation:
    """Starts every observer of a call, and finishes each exactly once, by whichever end comes first."""

    __slots__ = ("_pending", "_started", "call")

    def __init__(self, call: Call, observers: Sequence[Observer], started: float) -> None:
        self.call = call
        self._started = started
        self._pending = [start(observers, call)]

    @property
    def seconds(self) -> float:
        """How long the call has been going on."""
        return time.perf_counter() - self._started

    def end(
        self,
        code: grpc.StatusCode,
        details: str = "",
        error: BaseException | None = None,
        seconds: float | None = None,
    ) -> None:
        """
        Finish every observer; a later end changes nothing. Never raises in grpc's callbacks, which must not.

        `seconds` is when the end was, if not now.
        """
        try:
            pending = self._pending.pop()
        except IndexError:
            return
        call = self.call
        finish(
            pending,
            Outcome(code, details, self.seconds if seconds is None else seconds, error, call.sent, call.received),
        )


def current_call() -> Call | None:
    """Return the call that is being served here, or None outside a handler."""
    return _current.get()


def set_current_call(call: Call) -> None:
    """Make this the call being served; never reset: every RPC has a context of its own (otel-contrib#2357)."""
    _current.set(call)


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


def final_code(
    answer: grpc.StatusCode | None,
    chosen: grpc.StatusCode | None,
    deadline: float | None,
    remaining: float | None,
) -> grpc.StatusCode:
    """
    Decide the code of a call on the server.

    `answer` is the status that grpc sends by itself for how the handler ended (OK, UNKNOWN for an exception,
    INTERNAL for a response that cannot be serialised), or None where the call was cut off before it had one.
    `chosen` is the code that the handler chose, which takes precedence. `deadline` is the time that the call
    had at its start and `remaining` what was left of it at its end, both in seconds, or None.
    """
    if answer is not None:
        return chosen or answer
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
