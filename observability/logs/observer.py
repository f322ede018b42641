"""The log: one line per call, and the application's own lines beside it with the ids of the call they belong to."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import grpc
from opentelemetry import baggage

from ..calls.observer import LifecycleObserver
from ..calls.status import OK, SERVER_FAULTS
from ..calls.values import safe_str, stacktrace
from .limit import LineLimit
from .render import LINE_KEYS, safe_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..calls.call import Call, Outcome
    from ..calls.observer import Observer


_LEFT_OUT: Final = "Method not implemented!"
"""What the base of every generated servicer says of a method that nobody has written: by choice, so no fault."""


def level_of(outcome: Outcome) -> str:
    """Name the level of a call's line: error for a server's fault, warning for any other failure."""
    if outcome.code is OK:
        return "info"
    left_out = outcome.code is grpc.StatusCode.UNIMPLEMENTED and outcome.details == _LEFT_OUT
    return "error" if outcome.code in SERVER_FAULTS and not left_out else "warning"


class CallEnded(str):
    """The event of a call's line: equal to the application's own event of that name, and not the same."""

    __slots__ = ("at_ns",)
    at_ns: int
    """When the call ended, in nanoseconds since the epoch: its line may be rendered later."""


def _call_ended(at_ns: int) -> CallEnded:
    event = CallEnded("call")
    event.at_ns = at_ns
    return event


def log_calls(logger: Any, *, only: str | float = "all", baggage_keys: Sequence[str] = ()) -> Observer:
    """
    Log every call with this structlog logger: logger.info("call", endpoint=…, status=…, …) when it has ended.

    `only` is all, failed, or a number of milliseconds: then only calls that failed or took longer have a line.
    `baggage_keys` names the W3C baggage entries that become fields of the line. A server's calls that never ran have
    a line each up to a rate; beyond it one line a second has their number.
    """
    return log_observer(logger, only, baggage_keys)


def log_observer(logger: Any, only: str | float = "all", baggage_keys: Sequence[str] = ()) -> LogObserver:
    """Return what log_calls does, with the limit of its lines."""
    return BaggageLogObserver(logger, only, baggage_keys) if baggage_keys else LogObserver(logger, only)


class LogObserver(LifecycleObserver):
    """Logs calls."""

    def __init__(self, logger: Any, only: str | float) -> None:
        self.limit = LineLimit(logger)
        self._logger = logger
        self._only = only

    def on_end(self, call: Call, _state: None, outcome: Outcome) -> None:
        """Log the call, if it is to have a line."""
        if self._only == "all" or _should_log(outcome, self._only):
            level = "debug" if call.descriptor.is_infrastructure else level_of(outcome)
            if outcome.code is not OK and _never_ran(call) and not self.limit.allows(level, outcome.code.name):
                return
            ended = _call_ended(call.after(outcome.seconds))
            getattr(self._logger, level)(ended, **_line(call, outcome, level))


class BaggageLogObserver(LogObserver):
    """Logs calls with entries of their baggage, which a server's handler has in its context."""

    def __init__(self, logger: Any, only: str | float, keys: Sequence[str]) -> None:
        super().__init__(logger, only)
        self._keys = keys

    def on_start(self, call: Call) -> None:
        """Add the entries of a client's call, whose context is that of its caller."""
        if call.kind == "client":
            self.on_handler_start(call, None)

    def on_handler_start(self, call: Call, _state: None) -> None:
        """Add the entries of a server's call."""
        found = {key: value for key in self._keys if (value := baggage.get_baggage(key)) is not None}
        if found:
            call.fields = {**found, **(call.fields or {})}


def _never_ran(call: Call) -> bool:
    """Return whether a server has refused a call, or its caller left, before its handler started."""
    return call.queue_seconds is None and call.kind == "server"


def _should_log(outcome: Outcome, only: str | float) -> bool:
    if outcome.code is not OK:
        return True
    return not isinstance(only, str) and outcome.seconds * 1000 > only


def _line(call: Call, outcome: Outcome, level: str) -> dict[str, Any]:
    line: dict[str, Any] = {"endpoint": call.descriptor.endpoint}
    if outcome.code is OK:
        line["status"] = "ok"
    else:
        line["status"] = "error"
        line["error"] = _error(outcome)
    line["latency_ms"] = round(outcome.seconds * 1000, 3)
    line["level"] = level
    line["kind"] = call.kind
    line["method"] = call.descriptor.full_name
    line["code"] = outcome.code.name
    if call.kind == "server":
        if call.peer is not None:
            line["peer"] = call.peer
        if call.peer_identity is not None:
            line["peer_identity"] = call.peer_identity
        if call.deadline is not None:
            line["deadline_ms"] = round(call.deadline * 1000)
    if call.type != "unary":
        line["sent"] = outcome.sent
        line["received"] = outcome.received
    if call.span_context is not None:
        line["trace_id"] = call.trace_id
        line["span_id"] = call.span_id
    if call.fields:
        _add_fields(line, call.fields)
    if outcome.error is not None:
        line["stacktrace"] = stacktrace(outcome.error)
    return line


def _error(outcome: Outcome) -> str:
    if outcome.error is None:
        return f"StatusCode.{outcome.code.name}: {outcome.details}"
    return f"{type(outcome.error).__qualname__}: {safe_str(outcome.error)}"


def _add_fields(line: dict[str, Any], fields: dict[str, Any]) -> None:
    for key, value in fields.items():
        if (safe := safe_key(key)) in LINE_KEYS:
            _reserved(safe)
        else:
            line[key] = value


_reserved_keys: Final[set[str]] = set()


def _reserved(key: str) -> None:
    """Report once that the application added a key of the line's own, which is ignored."""
    if key not in _reserved_keys:
        _reserved_keys.add(key)
        logging.getLogger("observability").warning("field %r is a call line's own and is ignored", key)
