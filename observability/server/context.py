"""What a handler's context shows, whoever made it, and the contexts that stand for one that shows too little."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

import grpc

from ..calls.status import finite_deadline
from ..calls.values import VALUE_LIMIT, first_bytes

if TYPE_CHECKING:
    from collections.abc import Callable


class RecordingContext:
    """
    A context that remembers the status that the handler sets, around one that does not show it.

    Such are grpc's own for a blocking handler on an asyncio server, and other people's with the abstract methods alone.
    One serves all interceptors of a call, so that each knows what another has set.
    """

    __slots__ = ("_code", "_context", "_details", "_metadata", "is_aborted")

    @classmethod
    def of(cls, context: Any) -> RecordingContext:
        """Return such a context: this one, if it is one, else one around it."""
        return context if type(context) is cls else cls(context)

    def __init__(self, context: Any) -> None:
        self._context = context
        self._code: Any = None
        self._details = ""
        self._metadata: Any = None
        self.is_aborted = False  # on asyncio as soon as that is awaited, and the status is being sent

    @property  # type: ignore[misc]  # nobody sets it
    def __class__(self) -> Any:
        """Be an instance of whatever the context is."""
        return type(self._context)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def code(self) -> Any:
        """Return the status code that the handler set, or None."""
        return self._code

    def details(self) -> str:
        """Return the status message that the handler set."""
        return self._details

    def trailing_metadata(self) -> Any:
        """Return the trailing metadata that the handler set, or None."""
        return self._metadata

    def set_code(self, code: Any) -> None:
        """Set the status code."""
        self._code = code
        self._context.set_code(code)

    def set_details(self, details: str) -> None:
        """Set the status message."""
        self._details = details
        self._context.set_details(details)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Set the trailing metadata."""
        self._context.set_trailing_metadata(trailing_metadata)
        self._metadata = trailing_metadata

    def abort(self, code: Any, *status: Any, **more: Any) -> Any:
        """End the call with this status; always raises, on asyncio when it is awaited."""
        return self._abort(lambda: self._context.abort(code, *status, **more), code, *status, **more)

    def abort_with_status(self, status: Any) -> Any:
        """End the call with this status object; raises as abort does."""
        code, details, metadata = status.code, status.details, status.trailing_metadata
        return self._abort(lambda: self._context.abort_with_status(status), code, details, metadata)

    def _abort(self, abort: Callable[[], Any], code: Any, details: str = "", trailing_metadata: Any = ()) -> Any:
        """Abort by this, and return what is to be awaited on asyncio, where nothing is done before."""
        before = self._code, self._details, self._metadata
        if code == grpc.StatusCode.OK:  # which is not what an abort ends a call with
            code, details = grpc.StatusCode.UNKNOWN, ""
        self._code, self._details = code, details or self._details
        self._metadata = trailing_metadata or self._metadata
        try:
            ending = abort()
        finally:
            self.is_aborted = True
        if not inspect.isawaitable(ending):  # a double's, which does not raise
            return ending
        awaited = self._code, self._details, self._metadata
        (self._code, self._details, self._metadata), self.is_aborted = before, False

        async def end() -> Any:
            (self._code, self._details, self._metadata), self.is_aborted = awaited, True
            return await ending

        return end()


def with_status(context: Any) -> Any:
    """Return this context if it shows the status that the handler has set, else one around it that does."""
    try:
        context.code()
    except Exception:  # noqa: BLE001 - as in ask
        return RecordingContext.of(context)
    return context


def ask(context: Any, question: str, *about: Any) -> Any:
    """Return the answer of this context, which may be anybody's, or None where it has none."""
    try:
        return getattr(context, question)(*about)
    except Exception:  # noqa: BLE001 - those that are not abstract raise NotImplementedError
        return None


def status_in(context: Any) -> tuple[Any, Any, Any]:
    """Return the code, the text and the trailing metadata that this context holds, each None where it has none."""
    try:
        return context.code(), context.details(), context.trailing_metadata()
    except Exception:  # noqa: BLE001 - as in ask
        return ask(context, "code"), ask(context, "details"), ask(context, "trailing_metadata")


def is_around(context: Any, inner: Any) -> bool:
    """Whether these are the same context, but for one that remembers its status."""
    return _behind(context) is _behind(inner)


def _behind(context: Any) -> Any:
    return context._context if type(context) is RecordingContext else context  # noqa: SLF001 - ours


def seconds_left(context: Any) -> float | None:
    """Return how many seconds are left by this context, which may be anybody's, or None without a deadline."""
    remaining = ask(context, "time_remaining")
    return finite_deadline(remaining) if isinstance(remaining, int | float) else None


def identity_text(identities: Any) -> str | None:
    """Return the names in a caller's certificate, with commas between; None where it is anything else."""
    if not isinstance(identities, list | tuple):
        return None
    names = (name.decode(errors="backslashreplace") for name in identities if isinstance(name, bytes))
    return first_bytes(",".join(names), VALUE_LIMIT) or None


class PastContext:
    """Stands for grpc's context once there is nothing more to learn from it, for a handler that outlives it."""

    def __init__(self, context: Any = None) -> None:
        self._code, self._details, self._metadata = status_in(context)

    def code(self) -> Any:
        """Return the code that was chosen by then."""
        return self._code

    def details(self) -> Any:
        """Return the text that was chosen by then."""
        return self._details

    def trailing_metadata(self) -> Any:
        """Return the metadata that were set by then."""
        return self._metadata

    def is_active(self) -> bool:
        """Return that nobody waits."""
        return False

    def done(self) -> bool:
        """Return that it is over."""
        return True


class SettledContext(PastContext):
    """Stands for grpc's context once grpc has taken the status from it, and before the call is over."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self._context = context

    def time_remaining(self) -> Any:
        """Return how many seconds are left until the caller's deadline."""
        return self._context.time_remaining()


OVER: Final = PastContext()
"""What an observed handler has for its context once its call is reported."""
