"""What it means that an exception leaves a handler: an abort, a status that was chosen, or what nobody caught."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from ..calls.status import normalize_code
from ..calls.values import safe_str
from .context import ask

if TYPE_CHECKING:
    from collections.abc import Iterator


def chosen(context: Any, *, accepts_int_codes: bool) -> tuple[grpc.StatusCode, str] | None:
    """
    Return the status that was chosen for a call whose handler raises, or None where none was.

    A status is chosen when the handler has set both, a code other than OK and a text, before it raises: as the base
    of every generated servicer does. `accepts_int_codes` is as for normalize_code.
    """
    code, details = (
        normalize_code(ask(context, "code"), accepts_int_codes=accepts_int_codes),
        text(ask(context, "details")),
    )
    return None if code is None or code is grpc.StatusCode.OK or not details else (code, details)


def uncaught(error: BaseException, context: Any, *, accepts_int_codes: bool) -> BaseException | None:
    """
    Return what nobody caught of an exception that leaves a handler, or None.

    An abort is no exception, nor is what was raised from one; a group is what is left of it without them. What says
    no more than the status that was chosen is none either.
    """
    try:
        left = _without_aborts(error, context)
    except Exception:  # noqa: BLE001 - a group of somebody's own class, or one that is its own cause
        left = error
    status = chosen(context, accepts_int_codes=accepts_int_codes)
    return None if status is not None and left is error and safe_str(error) == status[1] else left


def aborted(error: BaseException, context: Any) -> bool:
    """Whether the call was aborted before this was raised, as what is behind it shows."""
    return any(_is_abort(one, context) for one in _behind(error))


def text(details: object) -> str:
    """Read a status message, which a sync server keeps as bytes."""
    if isinstance(details, bytes):
        return details.decode("utf-8", "replace")
    return details if isinstance(details, str) else ""


def _is_abort(error: BaseException, context: Any) -> bool:
    """Whether context.abort has raised this: a bare Exception on a sync server."""
    if isinstance(error, grpc.aio.AbortError):
        return True
    return type(error) is Exception and not error.args and ask(context, "code") is not None


def _without_aborts(error: BaseException, context: Any) -> BaseException | None:
    """Return what is left of an exception: nothing of an abort, or of what was raised from one."""
    left: BaseException | None = error
    cause: BaseException | None = error
    seen: list[BaseException] = []
    while cause is not None and not any(cause is one for one in seen):
        seen.append(cause)
        if isinstance(cause, BaseExceptionGroup):
            rest = cause.split(lambda one: not _is_group(one) and _without_aborts(one, context) is None)[1]
            if rest is None:
                return None
            left = rest if cause is error else left
        elif _is_abort(cause, context):
            return None
        cause = cause.__cause__
    return left


def _behind(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, what it was raised from or after, and what a group holds."""
    found: list[BaseException | None] = [error]
    seen: set[int] = set()
    while found:
        one = found.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            found += (one.__cause__, one.__context__, *(one.exceptions if isinstance(one, BaseExceptionGroup) else ()))


def _is_group(error: BaseException) -> bool:
    return isinstance(error, BaseExceptionGroup)
