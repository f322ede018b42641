"""How a client's call ends: what both stacks share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from .call import CUT_OFF_DETAILS

if TYPE_CHECKING:
    from .call import Observation

CANCELLED_DETAILS: Final = "Locally cancelled by application!"
DROPPED_DETAILS: Final = "Dropped before its end"


def end_raised(observation: Observation, error: BaseException) -> None:
    """End a call with what its caller is about to see raised."""
    if isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        observation.end(error.code(), error.details() or "")
    elif isinstance(error, Exception):
        observation.end(grpc.StatusCode.UNKNOWN, "", error)
    else:  # KeyboardInterrupt, CancelledError: the caller goes away, and the call with it
        end_cancelled(observation, CUT_OFF_DETAILS[grpc.StatusCode.CANCELLED])


def end_cancelled(observation: Observation, details: str = CANCELLED_DETAILS) -> None:
    """End a call that its caller cancelled or dropped."""
    observation.end(grpc.StatusCode.CANCELLED, details)


def pass_on(name: str) -> Any:
    """Return a method that passes this one on to grpc's own call."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._call, name)(*args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"Pass {name} on to grpc's own call."
    return method
