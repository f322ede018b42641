"""The details of a call with other metadata, in the type that their owner gave them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

if TYPE_CHECKING:
    from .call import ClientCall


def details_with(details: Any, metadata: Any) -> Any:
    """Return such details with this metadata; of an interceptor's own kind they stay, with what they have and lack."""
    try:
        if isinstance(details, tuple):
            return details._replace(metadata=metadata)  # type: ignore[attr-defined]  # grpc's own are named
        changed = copy.copy(details)
        _ = changed.metadata  # what they lack, grpc takes from those that the caller made
        object.__setattr__(changed, "metadata", metadata)
    except Exception:  # noqa: BLE001 - then the call goes through, without what is ours
        return details
    return changed


def aio_metadata(call: ClientCall, given: Any) -> Any:
    """Return a call's metadata as grpc takes it; what was `given`, where grpc is to say what is wrong with it."""
    if type(given) in (tuple, list):
        return type(given)(call.metadata)
    if given is None or isinstance(given, Iterable):
        with contextlib.suppress(TypeError, ValueError):
            return grpc.aio.Metadata(*call.metadata)
    return given


def aio_details_with(details: Any, metadata: Any) -> Any:
    """Return the same details with this metadata: of the same type, with all that somebody has added to them."""
    if type(details) is not grpc.aio.ClientCallDetails or vars(details):
        try:
            changed = _changed(details, metadata)
            if changed.metadata is metadata:
                return changed
        except Exception:  # noqa: BLE001, S110 - what cannot be changed is made anew
            pass
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )


def _changed(details: Any, metadata: Any) -> Any:
    if isinstance(details, tuple):
        changed = details._replace(metadata=metadata)  # type: ignore[attr-defined]  # a named one, as grpc's own is
        vars(changed).update(vars(details))
        return changed
    changed = copy.copy(details)
    if changed is not details:
        object.__setattr__(changed, "metadata", metadata)  # it may be frozen
    return changed
