"""
What an asyncio call shows of its end, whoever's it is.

grpc's own finalizers cancel calls, and run their done-callbacks, inside garbage collections. So an end by CANCELLED is
deferred (see `finalizers`), and reported at the latest where it is raised to the caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc
import grpc.aio

from ..calls.method import RESPONSE_STREAMS
from .call import DROPPED_DETAILS, end_raised

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ..calls.observation import Observation

_NOT_THERE: Final = (AttributeError, NotImplementedError)
"""What somebody's own call raises for what it has not."""
GOES_ON: Final = (*_NOT_THERE, grpc.aio.UsageError, asyncio.InvalidStateError, GeneratorExit)
"""What a call raises, or its waiter, that is not its end."""


class Status(NamedTuple):
    """How a call has ended."""

    code: grpc.StatusCode
    details: str

    def end(self, observation: Observation) -> None:
        """End an observation with it."""
        if self.code is grpc.StatusCode.CANCELLED:
            observation.end_deferred(self.code, self.details)
            return
        if self.code is grpc.StatusCode.OK and observation.type not in RESPONSE_STREAMS:
            observation.received = 1
        observation.end(self.code, self.details)


class _PendingError(Exception):
    """A call has no answer yet."""


def _now(answer: Coroutine[Any, Any, Any]) -> Any:
    """Return what a call that is over answers at once."""
    try:
        answer.send(None)
    except StopIteration as settled:
        return settled.value
    answer.close()
    raise _PendingError


def _status(call: Any) -> Status | None:
    """
    Return the status that a call has got, or None where it has none, or shows none: it may be anybody's.

    Raises what an interceptor raised, if the call has ended so.
    """
    try:
        if not call.done():
            return None
        code, details = _now(call.code()), _now(call.details())
    except (*_NOT_THERE, _PendingError):
        return None
    return Status(code, details or "") if isinstance(code, grpc.StatusCode) else None


def end_as_shown(observation: Observation, call: Any) -> None:
    """End an observation as its call has ended, if it shows that. Never raises: grpc's callbacks must not."""
    try:
        status = _status(call)
    except Exception as error:  # noqa: BLE001 - it is how the call has ended
        end_raised(observation, error)
        return
    if status is not None:
        status.end(observation)


def end_at_last(observation: Observation, call: Any) -> None:
    """End an observation as its call has ended, or as dropped."""
    end_as_shown(observation, call)
    end_dropped(observation)


def in_loop(loop: asyncio.AbstractEventLoop | None, action: Callable[[], object]) -> bool:
    """Let an event loop run this soon; return False if it is closed, or there is none."""
    try:
        if loop is not None:
            loop.call_soon_threadsafe(action)
    except RuntimeError:
        return False
    return loop is not None


def cancel(call: Any) -> None:
    """Cancel a call, if it can be."""
    with contextlib.suppress(Exception):  # it may be anybody's, and the event loop closed
        call.cancel()


def is_bookkeeping(callback: Any) -> bool:
    """Distinguish a caller's done-callback from grpc.aio.Channel's own, which comes through an interceptor's call."""
    inner = callback.args[0] if isinstance(callback, partial) and callback.args else callback
    return isinstance(getattr(inner, "__self__", None), weakref.WeakSet)


def end_dropped(observation: Observation) -> None:
    """End a call that its caller has dropped, or that shows no other end."""
    observation.end(grpc.StatusCode.CANCELLED, DROPPED_DETAILS)


def follow(observation: Observation, call: Any) -> None:
    """End an observation when its call ends."""
    try:
        call.add_done_callback(partial(end_at_last, observation))
    except Exception:  # noqa: BLE001 - it is somebody's own, and shows no end
        end_dropped(observation)


def drop_and_cancel(call: Any, observation: Observation, loop: asyncio.AbstractEventLoop | None) -> None:
    """End a call that nobody has any more, and cancel it on the wire if it is not over."""
    end_as_shown(observation, call)
    if not observation.ended:
        end_dropped(observation)
        if not in_loop(loop, partial(cancel, call)):
            cancel(call)
