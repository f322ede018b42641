"""Values of others: how they are copied, printed and cut, whatever they are."""

from __future__ import annotations

import json
import traceback
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import FrameType

VALUE_LIMIT: Final = 1024
"""How many bytes of UTF-8 a value may have; the rest is cut."""
STACKTRACE_LIMIT: Final = 8192
"""How many bytes of a stack trace are kept, from its end."""
_PLUMBING: Final = (__package__.partition(".")[0], "grpc")


class TruncationCounter:
    """Counts the values that were cut."""

    def __init__(self) -> None:
        self.count = 0


truncations: Final = TruncationCounter()


def truncate(value: str, limit: int = VALUE_LIMIT) -> str:
    """Keep the first `limit` bytes of a value's UTF-8, in whole characters."""
    kept = first_bytes(value, limit)
    truncations.count += kept is not value
    return kept


def first_bytes(value: str, limit: int) -> str:
    """Return the first `limit` bytes of a value's UTF-8, in whole characters; the cut is not counted."""
    data = value[: limit + 1].encode("utf-8", "surrogatepass")
    if len(data) <= limit:
        return value
    end = limit
    while _continues(data[end]):
        end -= 1
    return data[:end].decode("utf-8", "surrogatepass")


def truncate_start(value: str) -> str:
    """Keep the last 8 KiB of a stack trace's UTF-8, in whole characters."""
    kept = last_bytes(value, STACKTRACE_LIMIT)
    truncations.count += kept is not value
    return kept


def last_bytes(value: str, limit: int) -> str:
    """Return the last `limit` bytes of a value's UTF-8, in whole characters; the cut is not counted."""
    data = value[-limit - 1 :].encode("utf-8", "surrogatepass")
    start = len(data) - limit
    if start <= 0:
        return value
    while start < len(data) and _continues(data[start]):
        start += 1
    return data[start:].decode("utf-8", "surrogatepass")


def _continues(byte: int) -> bool:
    """Return whether this byte of UTF-8 continues a character."""
    return byte & 0xC0 == 0x80  # noqa: PLR2004 - as UTF-8 defines it


def stacktrace(error: BaseException) -> str:
    """Render an exception's stack trace from the handler on; the last 8 KiB of it."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next and _package(frames.tb_frame) in _PLUMBING:
        frames = frames.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except Exception:  # noqa: BLE001 - an exception that cannot be printed is still an exception
        text = f"{type(error).__qualname__} (unprintable)"
    return truncate_start(text)


def _package(frame: FrameType) -> str:
    """Return the top-level package whose code a frame runs, or an empty string."""
    return str(frame.f_globals.get("__package__") or "").partition(".")[0]


def json_text(value: Any) -> str | None:
    """Encode what JSON knows, or return None for what it does not: NaN, a circle, a key that is a tuple."""
    try:
        return encode_json(value)
    except Exception:  # noqa: BLE001 - a value that cannot be encoded, or changes meanwhile, costs no line
        return None


def snapshot(value: Any) -> Any:
    """Copy a list or a dict, which its owner may change before it is rendered; leave anything else as it is."""
    if not isinstance(value, dict | list):
        return value
    text = json_text(value)
    return safe_str(value) if text is None else json.loads(text)


def safe_str(value: Any) -> str:
    """Return a value's own text, whatever its __str__ does."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a value that cannot be printed costs no line
        return f"<unprintable {type(value).__qualname__}>"


encode_json: Final = json.JSONEncoder(allow_nan=False, default=safe_str).encode
