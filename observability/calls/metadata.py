"""Which metadata gRPC can send."""

from __future__ import annotations

import re
from typing import Any, Final

_legal_key: Final = re.compile(rb"[a-z0-9_.-]+").fullmatch
_legal_value: Final = re.compile(rb"[ -~]*").fullmatch


def is_sendable(key: Any, value: Any) -> bool:
    """
    Return whether gRPC's core takes this pair.

    Raises TypeError or ValueError where grpc does not even hand it over: of text that UTF-8 cannot hold, of what is
    neither text nor bytes, of text under a key that ends in `-bin`.
    """
    key = encoded(key)
    if key.endswith(b"-bin"):
        if not isinstance(value, bytes):
            raise TypeError("metadata under a key that ends in -bin are bytes")
        return _legal_key(key) is not None
    return _legal_key(key) is not None and _legal_value(encoded(value)) is not None


def encoded(value: Any) -> bytes:
    """Encode a text as grpc does."""
    if value is None:
        return b""
    return value if isinstance(value, bytes) else str.encode(value)
