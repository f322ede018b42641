"""What a sync call shows of its end, whoever's it is, as events of a `ClientCall`."""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING, Any

from ..calls.method import RESPONSE_STREAMS
from ..calls.status import OK
from .status import carried_by, status_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .call import ClientCall


def is_over(call: Any) -> bool:
    """Return whether a call says that it is over. Never waits and never raises: a call may have no such method."""
    try:
        return call.done() is True
    except Exception:  # noqa: BLE001 - a grpc.Call alone has none
        try:
            return call.is_active() is False
        except Exception:  # noqa: BLE001 - nor need somebody else's have that, or have it written
            return False


def report_end(call: Any, observation: ClientCall, seconds: float | None = None) -> None:
    """Report how a call that is over has ended for its caller: by what its result would raise, if by anything."""
    try:
        error = call.exception()
    except Exception as failure:  # noqa: BLE001 - it is cancelled, or has no such method, or none that is written
        code, details = status_of(call)
        if code is None:
            observation.over_without_status(failure, *carried_by(failure), seconds)
        else:
            observation.status_received(code, "" if code is OK else details, seconds)
        return
    if isinstance(error, BaseException):
        observation.raised(error, *carried_by(error), seconds)
    else:
        if observation.reports_messages and observation.type not in RESPONSE_STREAMS:
            with contextlib.suppress(Exception):  # it may be anybody's
                observation.answered(call.result(), seconds)
        observation.status_received(OK, "", seconds)


def report_end_if_kept(reference: Callable[[], Any], observation: ClientCall) -> None:
    """Report a call's end when grpc's own has ended; a caller that drops it before ends it itself."""
    call = reference()
    if call is not None:
        report_end(call, observation)


def report_end_if_over(call: Any, observation: ClientCall, seconds: float, *, over: bool) -> None:
    """Report the end of a call that is over, or says so."""
    if over or is_over(call):
        report_end(call, observation, seconds)


def report_dropped(calls: list[Any], observation: ClientCall, seconds: float) -> None:
    """Report that nobody keeps a call, or the status that it has. Takes the last reference to it."""
    call = calls.pop()
    if is_over(call):
        report_end(call, observation, seconds)
        return
    del call  # which cancels it on the wire: grpc's own calls are, when nobody keeps them
    observation.dropped(seconds)


def reference(call: Any) -> Callable[[], Any]:
    """Return what gives the call as long as somebody keeps it, where that can be had."""
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
