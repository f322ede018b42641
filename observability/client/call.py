"""How a client's call ends: what both stacks share."""

from __future__ import annotations

from concurrent.futures import CancelledError as FutureCancelledError
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc

from ..calls.status import CUT_OFF_DETAILS

if TYPE_CHECKING:
    from ..calls.observation import Observation

CANCELLED_DETAILS: Final = "Locally cancelled by application!"
DROPPED_DETAILS: Final = "Dropped before its end"
NO_STATUS: Final = (None, "")

End: TypeAlias = tuple[grpc.StatusCode, str, BaseException | None]
"""How a call ends: its code, its details, and what was raised that is no status, or None."""


def end_raised(observation: Observation, error: BaseException) -> None:
    """End a call with what its caller is about to see raised."""
    observation.end(*raised_end(error))


def raised_end(error: BaseException) -> End:
    """Return how a call ends whose caller sees this raised."""
    if not isinstance(error, Exception):
        # KeyboardInterrupt, CancelledError: the caller goes away, and the call with it.
        return grpc.StatusCode.CANCELLED, CUT_OFF_DETAILS[grpc.StatusCode.CANCELLED], None
    if isinstance(error, grpc.FutureCancelledError | FutureCancelledError):
        return grpc.StatusCode.CANCELLED, CANCELLED_DETAILS, None
    code, details = status_of(error) if isinstance(error, grpc.RpcError | grpc.Call) else NO_STATUS
    if code is None or code is grpc.StatusCode.OK:
        return grpc.StatusCode.UNKNOWN, "", error
    return code, details, None


def status_of(call: Any) -> tuple[grpc.StatusCode | None, str]:
    """
    Return the code and details of an error, or of a call that is over; NO_STATUS where it has none.

    Never raises: somebody else's own may have a `code` that does, or that is no status code.
    """
    try:
        code = call.code()
    except Exception:  # noqa: BLE001 - as above
        return NO_STATUS
    if not isinstance(code, grpc.StatusCode):
        return NO_STATUS
    try:
        details = call.details()
    except Exception:  # noqa: BLE001 - as above
        details = None
    return code, details if isinstance(details, str) else ""
