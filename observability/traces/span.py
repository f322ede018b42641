"""
An SDK span that is made in full when somebody looks at it.

Nearly every call's span is started, ended and encoded, and nobody else reads or writes anything of it. It keeps what
the SDK has given for its making, and makes the rest when any of it is asked for: it is an ordinary span from then on.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.trace import Span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry import trace
    from opentelemetry.context import Context

_FEWEST: Final = 32
"""Attributes that a limit must allow for a span to be encoded from its parts: ours have less, samplers add few."""
_FREEZES: Final = "_immutable" in getattr(getattr(Span.end, "__code__", None), "co_names", ())
"""Whether nobody can write into an ended span's attributes, as since 1.43 of the SDK."""
_Ordinary: Final[Any] = getattr(sdk, "_Span", Span)


class Parts(NamedTuple):
    """An ended span that has no more than these."""

    resource: Any
    scope: Any
    context: trace.SpanContext
    parent: trace.SpanContext | None
    name: str
    kind: trace.SpanKind
    status: trace.Status | None
    started_ns: int
    ended_ns: int
    attributes: Mapping[str, Any]


class LazySpan(_Ordinary):  # type: ignore[misc]  # it is the SDK's own class
    """
    A span that keeps what it is to be made of until somebody looks: its ids, and in `_given` the rest.

    Many share what is given: none changes it. `_is_made` is whether it is an ordinary span by now: then all else here
    is of no more interest, but the ids, which are where the SDK has them. `_started` and `_ended` are times, `_added`
    and `_status_then` the attributes and the status that it ended with. All that the SDK's own methods use of a span is
    made together and appears together, so that a thread sees either nothing or all of it. `_making` is held meanwhile,
    by this span alone: the collector may run a finalizer there, which may look as well, or wait for another thread
    that ends a call.
    """

    __slots__ = ("_added", "_context", "_ended", "_given", "_is_made", "_making", "_parent", "_started", "_status_then")

    _added: Mapping[str, Any]
    _context: trace.SpanContext
    _ended: int | None
    _given: Mapping[str, Any]
    _is_made: bool
    _making: threading.RLock
    _parent: trace.SpanContext | None
    _started: int | None
    _status_then: trace.Status | None

    def __new__(
        cls,
        *,
        context: trace.SpanContext,
        parent: trace.SpanContext | None,
        given: Mapping[str, Any] | None = None,
        **parts: Any,
    ) -> Self:
        """Make one of what the tracer gives for its making, or of what another one was given."""
        span = object.__new__(cls)
        span._context = context
        span._parent = parent
        span._given = given or parts
        span._is_made = False
        span._making = threading.RLock()
        span._started = None
        span._ended = None
        return span

    def __init__(self, **_parts: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self._is_made:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self._make()
        return getattr(self, name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Be copied, and refuse to be pickled, as an ordinary span."""
        del protocol
        self._make()
        return object.__new__, (_Ordinary,), {**self.__dict__, "_context": self._context, "_parent": self._parent}

    def _make(self) -> None:
        """Be an ordinary span, as one that has seen the same."""
        with self._making:
            if self._is_made:
                return
            made: Any = _Made(context=self._context, parent=self._parent, **self._given)
            made._start_time = self._started  # noqa: SLF001 - as Span.start, whose processors have been called
            if self._ended is not None:
                made.set_attributes(self._added)
                if self._status_then is not None:
                    made.set_status(self._status_then)
                made._end_time = self._ended  # noqa: SLF001 - as Span.end, likewise
                if _FREEZES:
                    made._attributes._immutable = True  # noqa: SLF001 - as above
            if not self._is_made:  # by a finalizer, in between
                self.__dict__.update({**made.__dict__, **self.__dict__})
                self._is_made = True

    def start(self, start_time: int | None = None, parent_context: Context | None = None) -> None:
        """Start it, as the tracer does, or warn that it has been started."""
        if self._started is not None:
            super().start(start_time, parent_context)
            return
        self._started = time.time_ns() if start_time is None else start_time
        self._given["span_processor"].on_start(self, parent_context=parent_context)

    def is_recording(self) -> bool:
        """Whether it has not ended."""
        return super().is_recording() if self._is_made else self._ended is None

    def end_with(self, attributes: Mapping[str, Any], status: trace.Status | None, ended_ns: int) -> bool:
        """End a span at which nobody has looked, with these; return whether that is so."""
        with self._making:
            if self._is_made or self._ended is not None:
                return False
            self._added, self._status_then, self._ended = attributes, status, ended_ns
        given = self._given
        if record_end_metrics := given.get("record_end_metrics"):
            record_end_metrics()
        processor = given["span_processor"]
        processor._on_ending(self)  # noqa: SLF001 - as Span.end
        processor.on_end(self)
        return True

    def parts(self) -> Parts | None:
        """Return what it consists of, once it has ended, or None where an ordinary span may have more or less."""
        given, ended = self._given, self._ended
        limits = given["limits"]
        most = limits.max_span_attributes
        if self._is_made or ended is None or self.__dict__ or limits.max_span_attribute_length is not None:
            return None
        attributes = {**(given["attributes"] or {}), **self._added}
        if (most is not None and most < _FEWEST) or len(attributes) > _FEWEST or given["links"]:
            return None
        return Parts(
            given["resource"],
            given["instrumentation_scope"],
            self._context,
            self._parent,
            given["name"],
            given["kind"],
            self._status_then,
            self._started or 0,
            ended,
            attributes,
        )


class _Made(_Ordinary):  # type: ignore[misc]  # as above
    """What a lazy span is made of."""


LazySpan.__name__ = LazySpan.__qualname__ = _Ordinary.__name__  # which its repr has


def end_span(span: trace.Span, attributes: Mapping[str, Any], status: trace.Status | None, ended_ns: int) -> None:
    """End a span that is recording, with these attributes, and this status unless it is None."""
    if type(span) is LazySpan and span.end_with(attributes, status, ended_ns):
        return
    if status is not None:
        span.set_status(status)
    span.set_attributes(attributes)
    span.end(ended_ns)
