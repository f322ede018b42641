"""What a sync call shows of its end, whoever's it is."""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING, Any, Final

import grpc

from ..calls.method import RESPONSE_STREAMS
from .call import DROPPED_DETAILS, raised_end, status_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..calls.observation import Observation
    from .call import End

_COLLECTED_DETAILS: Final = "Cancelled upon garbage collection!"
"""What grpc says of a call that it has cancelled because nobody kept it."""
OK: Final[End] = (grpc.StatusCode.OK, "", None)
_DROPPED: Final[End] = (grpc.StatusCode.CANCELLED, DROPPED_DETAILS, None)


def is_over(call: Any) -> bool:
    """Return whether a call says that it is over. Never waits and never raises: a call may have no such method."""
    try:
        return call.done() is True
    except Exception:  # noqa: BLE001 - a grpc.Call alone has none
        try:
            return call.is_active() is False
        except Exception:  # noqa: BLE001 - nor need somebody else's have that, or have it written
            return False


def end_of(call: Any) -> End:
    """Return how a call that is over has ended for its caller: by what its result would raise, if by anything."""
    try:
        error = call.exception()
    except Exception as failure:  # noqa: BLE001 - it is cancelled, or has no such method, or none that is written
        code, details = status_of(call)
        if code is None:
            end = raised_end(failure)
            return end if end[0] is grpc.StatusCode.CANCELLED else OK
        if code is grpc.StatusCode.OK:
            return OK
        return code, DROPPED_DETAILS if details == _COLLECTED_DETAILS else details, None
    return raised_end(error) if isinstance(error, BaseException) else OK


def report(observation: Observation, end: End, seconds: float | None = None) -> None:
    """End an observation like this, its response counted if it has one."""
    if end is OK and observation.type not in RESPONSE_STREAMS:
        observation.received = 1
    observation.end(*end, seconds)


def end_future(reference: Callable[[], Any], observation: Observation) -> None:
    """End a call when grpc's own does; a caller that drops it before ends it itself."""
    call = reference()
    if call is not None:
        report(observation, end_of(call))


def end_if_over(call: Any, observation: Observation, seconds: float, *, over: bool) -> None:
    """End a call if it is over, or says so."""
    if over or is_over(call):
        report(observation, end_of(call), seconds)


def end_dropped(calls: list[Any], observation: Observation, seconds: float) -> None:
    """End a call that nobody keeps: with the status that it has, if it has one. Takes the last reference to it."""
    call = calls.pop()
    end = end_of(call) if is_over(call) else _DROPPED
    del call  # which cancels it on the wire: grpc's own calls are, when nobody keeps them
    report(observation, end, seconds)


def reference(call: Any) -> Callable[[], Any]:
    """Return what returns the call as long as somebody keeps it, where it can be known without being kept."""
    try:
        return weakref.ref(call)
    except TypeError:
        return lambda: call


def call_at_end(call: Any, ended: Callable[[], None]) -> None:
    """Have this called when a call ends, if it can be had; grpc's own add_callback keeps nothing of the call alive."""
    try:
        if not call.add_callback(ended) and is_over(call):
            ended()
    except Exception:  # noqa: BLE001 - somebody else's call has no such method, or none that is written
        with contextlib.suppress(Exception):
            call.add_done_callback(lambda _call: ended())
