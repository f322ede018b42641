"""
What an asyncio call shows of its end, whoever's it is, as events of a `ClientCall`.

grpc's own finalizers cancel calls, and run their done-callbacks, inside garbage collections. What runs there asks the
call alone, and reports nothing: a status of CANCELLED is deferred.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from ..calls.status import OK
from .status import carried_by

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from .call import ClientCall

_NOT_THERE: Final = (AttributeError, NotImplementedError)
"""What somebody's own call raises for what it has not."""
GOES_ON: Final = (*_NOT_THERE, grpc.aio.UsageError, asyncio.InvalidStateError, GeneratorExit)
"""What a call raises, or its waiter, that is not its end."""


class _PendingError(Exception):
    """A call has no answer yet."""


def _result_now(answer: Coroutine[Any, Any, Any] | Generator[Any, Any, Any]) -> Any:
    """Return what a call that is over answers at once."""
    try:
        answer.send(None)
    except StopIteration as stopped:
        return stopped.value
    answer.close()
    raise _PendingError


def _status(call: Any) -> tuple[grpc.StatusCode, str] | None:
    """
    Return the status that a call has got, or None where it has none, or shows none: it may be anybody's.

    Raises what an interceptor raised, if the call has ended so.
    """
    try:
        if not call.done():
            return None
        code, details = _result_now(call.code()), _result_now(call.details())
    except (*_NOT_THERE, _PendingError):
        return None
    return (code, details or "") if isinstance(code, grpc.StatusCode) else None


def report_end(observation: ClientCall, call: Any) -> None:
    """Report how a call has ended, if it shows that. Never raises: grpc's callbacks must not."""
    try:
        status = _status(call)
    except Exception as error:  # noqa: BLE001 - it is how the call has ended
        observation.raised(error, *carried_by(error))
        return
    if status is not None:
        observation.status_received(*status)


def report_response_and_end(observation: ClientCall, call: Any) -> None:
    """Report how a unary call has ended, its response before: grpc parses that at once after it has called this."""
    try:
        status = _status(call)
        loop = asyncio.get_running_loop()
    except Exception:  # noqa: BLE001 - as in report_end; or it was cancelled where no loop runs
        status = None
    if status is None or status[0] is not OK:
        report_end(observation, call)
    else:
        loop.call_soon(_report_response, observation, call)


def _report_response(observation: ClientCall, call: Any) -> None:
    with contextlib.suppress(Exception, asyncio.CancelledError):  # who waits for it sees what it is
        observation.answered(_result_now(call.__await__()))
    report_end(observation, call)


def report_end_at_last(observation: ClientCall, call: Any) -> None:
    """Report how a call that its caller has dropped has ended, or that it was dropped."""
    report_end(observation, call)
    observation.dropped()


def follow(call: Any, observation: ClientCall, loop: asyncio.AbstractEventLoop | None) -> None:
    """Report the end of a call that nobody has any more, and that goes on, when it comes; in the finalizers' thread."""
    report_end(observation, call)
    if not observation.ended and not _in_loop(loop, partial(_report_when_ended, observation, call)):
        observation.dropped()


def drop_and_cancel(call: Any, observation: ClientCall, loop: asyncio.AbstractEventLoop | None) -> None:
    """Report the end of a call that nobody has any more, and cancel it on the wire if it is not over; as above."""
    report_end(observation, call)
    if not observation.ended:
        observation.dropped()
        if not _in_loop(loop, partial(_cancel, call)):
            _cancel(call)


def _report_when_ended(observation: ClientCall, call: Any) -> None:
    try:
        call.add_done_callback(partial(report_end_at_last, observation))
    except Exception:  # noqa: BLE001 - it is somebody's own, and shows no end
        observation.dropped()


def _in_loop(loop: asyncio.AbstractEventLoop | None, action: Callable[[], object]) -> bool:
    """Let an event loop run this soon; return False if it is closed, or there is none."""
    try:
        if loop is not None:
            loop.call_soon_threadsafe(action)
    except RuntimeError:
        return False
    return loop is not None


def _cancel(call: Any) -> None:
    with contextlib.suppress(Exception):  # it may be anybody's, and the event loop closed
        call.cancel()


def is_bookkeeping(callback: Any) -> bool:
    """Distinguish a caller's done-callback from grpc.aio.Channel's own, which comes through an interceptor's call."""
    inner = callback.args[0] if isinstance(callback, partial) and callback.args else callback
    return isinstance(getattr(inner, "__self__", None), weakref.WeakSet)
