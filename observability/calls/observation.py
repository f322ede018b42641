"""A call that is reported to observers, and its one end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from opentelemetry import context as contexts

from ..threads.finalizers import finalizers
from .call import Call, Outcome, current
from .method import MethodRegistry
from .observers import Observers

if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence, Sequence

    import grpc

    from .call import Kind
    from .method import Method
    from .observer import Observer


class Observation(Call):
    """A call that is reported to observers, and ends once, by whichever end comes first."""

    __slots__ = ("_deferred", "_end_token", "_observers", "_states", "running", "started")

    def __init__(  # noqa: PLR0913, PLR0917 - made for every call, for which names cost
        self,
        descriptor: Method,
        kind: Kind,
        metadata: MutableSequence[Any] | Sequence[Any],
        observers: Observers,
        started: float,
        started_ns: int,
        deadline: float | None = None,
        peer: str | None = None,
    ) -> None:
        super().__init__(descriptor, kind, metadata, started_ns, deadline, peer)
        self.started = started  # by time.perf_counter
        self.running = False  # whether its handler is
        self._observers = observers
        self._end_token = [True]
        self._deferred: list[Outcome] | tuple[()] = ()
        if kind == "server":
            current.set(self)  # never reset: every RPC has its own context (otel-contrib#2357)
        self._states = observers.new_states()  # by now: an observer may annotate at the start
        observers.start(self, self._states)

    @property
    def seconds(self) -> float:
        """How long the call has been going on."""
        return time.perf_counter() - self.started

    @property
    def ended(self) -> bool:
        """Whether its end has been decided. Safe inside a garbage collection."""
        return not self._end_token

    def annotate(self, **fields: Any) -> None:
        """Add fields to the call's log line, and to its span as attributes, at once."""
        super().annotate(**fields)
        self._observers.on_annotate(self, self._states, fields)

    def handler_started(self) -> None:
        """
        Report that the handler starts, where it runs; one that is run again has started already.

        The call is current there, wherever interceptors ran.
        """
        if self.running:
            return
        self.running = True
        self.queue_seconds = time.perf_counter() - self.started
        if current.get() is not self:
            current.set(self)
        self._observers.call_hooks(self._observers.handler_start_hooks, self._states, self)

    def handler_ended(self) -> None:
        """Report that the handler has ended, if it was running."""
        if self.running:
            self.running = False
            self._report_handler_end()

    def message_sent(self, message: Any) -> None:
        """Report a message that is handed to grpc."""
        self._observers.on_message_sent(self, self._states, message)

    def message_received(self, message: Any) -> None:
        """Report a message that is handed to the application."""
        self._observers.on_message_received(self, self._states, message)

    def end(
        self,
        code: grpc.StatusCode,
        details: str = "",
        error: BaseException | None = None,
        seconds: float | None = None,
    ) -> None:
        """
        Report the end; a later end changes nothing. Never raises: grpc's callbacks must not.

        `seconds` is when the end was, if not now.
        """
        if self._claim_end():
            self._observers.on_end(self, self._states, self._outcome(code, details, error, seconds))
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
        if self._claim_end():
            self._deferred = [self._outcome(code, details, error, seconds)]
            finalizers.defer(self._report_deferred)

    def handler_ended_deferred(self) -> None:
        """Report it soon, from another thread: safe where `end_deferred` is."""
        if self.running:
            self.running = False
            if self._observers.handler_end_hooks:
                finalizers.defer(self._report_handler_end)

    def _report_handler_end(self) -> None:
        self._observers.call_hooks(self._observers.handler_end_hooks, self._states, self)

    def _claim_end(self) -> bool:
        """Return True to the first caller alone, of whatever thread; without a lock, since list.pop is atomic."""
        try:
            return self._end_token.pop()
        except IndexError:
            return False

    def _outcome(
        self, code: grpc.StatusCode, details: str, error: BaseException | None, seconds: float | None
    ) -> Outcome:
        if seconds is None:
            seconds = time.perf_counter() - self.started
        return Outcome(code, details, seconds, error, self.sent, self.received)

    def _report_deferred(self) -> None:
        try:
            outcome = self._deferred.pop()  # type: ignore[union-attr]  # end_deferred has made it a list
        except IndexError:
            return  # reported already
        self._observers.on_end(self, self._states, outcome)


class Observing:
    """What reports calls to these observers, on either side, where instrumentation is not suppressed."""

    def __init__(self, *observers: Observer) -> None:
        # Imported here: it reads OTEL_PROPAGATORS, and raises for an invalid one that Telemetry.start leaves out.
        from opentelemetry.instrumentation.utils import is_instrumentation_enabled  # noqa: PLC0415

        self._enabled = _skip_when_context_empty(is_instrumentation_enabled)
        self._report_to(observers)
        self._methods = MethodRegistry()

    def _report_to(self, observers: Sequence[Observer]) -> None:
        """Report to these observers from now on."""
        self._observers = Observers.of(observers)


def _skip_when_context_empty(is_enabled: Callable[[], bool]) -> Callable[[], bool]:
    """Ask whether instrumentation is suppressed only where a context has any values: most calls' has none."""
    return lambda: not contexts.get_current() or is_enabled()
