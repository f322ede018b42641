"""Status codes: which are a server's fault, what a handler set, and what becomes of a call that was cut off."""

from __future__ import annotations

from typing import Any, Final

import grpc

# Kept, for each call asks for them: an enum finds its members ten times as slowly as a module does (Python 3.11).
OK: Final = grpc.StatusCode.OK
CANCELLED: Final = grpc.StatusCode.CANCELLED
UNKNOWN: Final = grpc.StatusCode.UNKNOWN

_DEADLINE_SLACK: Final = 0.05  # seconds: on a busy machine a request may be seen so much later than it was sent
_DEADLINE_SHARE: Final = 0.02
_FOREVER: Final = 1e9
# grpc.aio takes numbers up to DATA_LOSS, and the one after it, UNAUTHENTICATED, for none that it knows.
_NUMBERS: Final[dict[int, grpc.StatusCode]] = {
    code.value[0]: code for code in grpc.StatusCode if code is not grpc.StatusCode.UNAUTHENTICATED
}
# What is worth an error: the codes of a server's own fault, by the RPC semantic conventions.
SERVER_FAULTS: Final = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


def name_of(code: grpc.StatusCode) -> str:
    """Name a status code: as its own `name`, for a fifth of what that costs where it is OK, as nearly all are."""
    return "OK" if code is OK else code.name


def normalize_code(value: Any, *, accepts_int_codes: bool) -> grpc.StatusCode | None:
    """
    Return the status code that a handler set: a code or, where grpc `accepts_int_codes`, its number.

    Returns None where it set none. What is no code at all is sent as UNKNOWN.
    """
    if value is None or isinstance(value, grpc.StatusCode):
        return value
    if accepts_int_codes and isinstance(value, int):
        return _NUMBERS.get(value, grpc.StatusCode.UNKNOWN)
    return grpc.StatusCode.UNKNOWN


def finite_deadline(time_remaining: float | None) -> float | None:
    """Return the seconds that are left, or None without a deadline (9.2e18 on a sync server: grpc#26236)."""
    return None if time_remaining is None or time_remaining > _FOREVER else time_remaining


def terminated_status(deadline: float | None, remaining: float | None) -> grpc.StatusCode:
    """
    Decide the code of a call on the server that was cut off before it had a status.

    `deadline` is the time that the call had at its start and `remaining` what was left of it at its end, both in
    seconds, or None.
    """
    if deadline is not None and remaining is not None and remaining <= max(_DEADLINE_SLACK, _DEADLINE_SHARE * deadline):
        # grpc-timeout is rounded up on the wire, so the caller gives up a little before our own deadline.
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return grpc.StatusCode.CANCELLED


def status_before_handler(usual: float | None, waited: float) -> grpc.StatusCode:
    """
    Decide the code of a call that was cut off before its handler started, after `waited` seconds.

    grpc hides the deadline of such a call. `usual` is the one that stands for it: that of the method's last call whose
    handler has started, in seconds, or None.
    """
    return terminated_status(usual, None if usual is None else usual - waited)


CUT_OFF_DETAILS: Final = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "Deadline Exceeded",
    grpc.StatusCode.CANCELLED: "Cancelled",
}
