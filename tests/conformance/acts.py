"""What the handlers of the cases do: each takes the call's context, and what pauses until the call is over."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from grpc import StatusCode

DETAILS: Final = "as asked"


class Status(NamedTuple):
    """What context.abort_with_status takes."""

    code: StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, str], ...] = ()


def succeed(_context: Any, _pause: Any) -> None:
    """Do nothing but answer."""


def abort(context: Any, _pause: Any) -> Any:
    """End the call with a code of the handler's choice."""
    return context.abort(StatusCode.INVALID_ARGUMENT, DETAILS)


def abort_at_length(context: Any, _pause: Any) -> Any:
    """End the call with a text that is longer than a caller accepts."""
    return context.abort(StatusCode.INVALID_ARGUMENT, "x" * 20_000)


def abort_with_status(context: Any, _pause: Any) -> Any:
    """End the call with a status object."""
    return context.abort_with_status(Status(StatusCode.FAILED_PRECONDITION, DETAILS))


def set_code(context: Any, _pause: Any) -> None:
    """Choose a code, and go on to answer."""
    context.set_code(StatusCode.NOT_FOUND)
    context.set_details(DETAILS)


def fail(_context: Any, _pause: Any) -> None:
    """Raise what nobody catches."""
    raise ValueError("secret")


def fail_with_code(context: Any, _pause: Any) -> None:
    """Choose a code, then raise what nobody catches."""
    context.set_code(StatusCode.DATA_LOSS)
    raise ValueError("secret")


def choose_and_raise(context: Any, _pause: Any) -> None:
    """Choose a code and a text, then raise an exception that says no more."""
    set_code(context, None)
    raise LookupError(DETAILS)


def choose_and_fail(context: Any, _pause: Any) -> None:
    """Choose a code and a text, then raise what nobody catches."""
    set_code(context, None)
    raise ValueError("secret")


def end_with_upper_case(context: Any, _pause: Any) -> None:
    """Set trailing metadata with a key that is none."""
    context.set_trailing_metadata((("KEY", "value"),))


def end_with_accents(context: Any, _pause: Any) -> None:
    """Set trailing metadata with a value that is no ASCII."""
    context.set_trailing_metadata((("key", "valeur dépassée"),))


def abort_with_upper_case(context: Any, pause: Any) -> Any:
    """End the call with a code of the handler's choice, and such metadata."""
    end_with_upper_case(context, pause)
    return abort(context, pause)


def end_with_text_for_bytes(context: Any, _pause: Any) -> None:
    """Set trailing metadata with a text where bytes belong."""
    context.set_trailing_metadata((("key-bin", "value"),))


def end_with_a_number(context: Any, _pause: Any) -> None:
    """Set trailing metadata with a value that is no text."""
    context.set_trailing_metadata((("key", 5),))


def compress(context: Any, _pause: Any) -> None:
    """Ask for a compression by its name, not by its number."""
    context.set_compression("gzip")


def leave(_context: Any, _pause: Any) -> None:
    """Ask the process to end, which ends no server."""
    raise SystemExit("secret")


def leave_with_code(context: Any, _pause: Any) -> None:
    """Choose a code, then ask the process to end."""
    context.set_code(StatusCode.DATA_LOSS)
    raise SystemExit("secret")


def cancel_itself(_context: Any, _pause: Any) -> None:
    """Let a cancellation escape that is not the call's but, say, an inner task's."""
    raise asyncio.CancelledError("secret")


def hang(_context: Any, pause: Callable[[], Any]) -> Any:
    """Wait until the call is over."""
    return pause()


def fail_late(_context: Any, pause: Callable[[], Any]) -> Any:
    """Wait until the call is over, then raise; an async handler is cancelled before."""
    waiting = pause()
    if waiting is None:
        raise ValueError("too late")
    return waiting
