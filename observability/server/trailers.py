"""Whether grpc can send what a handler has set for the end of its call."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

from ..calls.metadata import encoded, is_sendable

Fault: TypeAlias = Literal["refused", "unsendable"]

REFUSED_DETAILS: Final = "Invalid metadata"


def fault_of(details: Any, metadata: Any) -> Fault | None:
    """
    Say what keeps grpc from sending a status with this text and trailing metadata, or None where nothing does.

    It is `refused` where grpc's core does not take the metadata, and ends the call as INTERNAL; and `unsendable` where
    they, or the text, cannot even be handed to it: grpc then forgets the caller, who waits.
    """
    try:
        encoded(details)
        pairs = metadata if metadata is not None and len(metadata) else ()
        refused = [pair for pair in pairs if not is_sendable(*pair)]
    except Exception:  # noqa: BLE001 - whatever it is, grpc raises for it too
        return "unsendable"
    return "refused" if refused else None
