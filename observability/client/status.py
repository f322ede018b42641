"""The status that a call or an exception carries, whoever's it is."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import grpc

Status: TypeAlias = tuple[grpc.StatusCode | None, str]
"""A code and its details; no code where there is no status."""
_NO_STATUS: Final[Status] = (None, "")


def status_of(call: Any) -> Status:
    """
    Return the status of an error, or of a call that is over, if it has one.

    Never raises: somebody else's own may have a `code` that does, or that is no status code.
    """
    try:
        code = call.code()
    except Exception:  # noqa: BLE001 - as above
        return _NO_STATUS
    if not isinstance(code, grpc.StatusCode):
        return _NO_STATUS
    try:
        details = call.details()
    except Exception:  # noqa: BLE001 - as above
        details = None
    return code, details if isinstance(details, str) else ""


def carried_by(error: BaseException) -> Status:
    """Return the status that an exception carries, if it carries one: never raises, as above."""
    return status_of(error) if isinstance(error, grpc.RpcError | grpc.Call) else _NO_STATUS
