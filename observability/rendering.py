"""Renders a log line: key=value or JSON, on one line whatever the values hold, and parseable."""

from __future__ import annotations

import functools
import json
import re
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

VALUE_LIMIT: Final = 1024
"""How many bytes of UTF-8 a value may have; the rest is cut."""
STACKTRACE_LIMIT: Final = 8192
"""How many bytes of a stack trace are kept, from its end."""

_PLUMBING: Final = (__package__, "grpc")
_PLAIN: Final = re.compile(r"[A-Za-z0-9._/:-]+").fullmatch
# Controls, line separators, bidirectional marks and surrogates, which a terminal or a reader of lines obeys.
_HARMFUL: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_KEY: Final = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST_CHARACTER: Final = 4
_SURELY_SHORT: Final = VALUE_LIMIT // _LONGEST_CHARACTER
_quote: Final = json.JSONEncoder(ensure_ascii=False).encode


class Cuts:
    """Counts the values that were cut."""

    def __init__(self) -> None:
        self.count = 0


cuts: Final = Cuts()


def cut(value: str, limit: int = VALUE_LIMIT) -> str:
    """Keep the first `limit` bytes of a value's UTF-8, in whole characters."""
    data = value[: limit + 1].encode("utf-8", "surrogatepass")
    if len(data) <= limit:
        return value
    cuts.count += 1
    end = limit
    while _continues(data[end]):
        end -= 1
    return data[:end].decode("utf-8", "surrogatepass")


def _cut_start(value: str) -> str:
    """Keep the last 8 KiB of a stack trace's UTF-8, in whole characters."""
    data = value[-STACKTRACE_LIMIT - 1 :].encode("utf-8", "surrogatepass")
    start = max(0, len(data) - STACKTRACE_LIMIT)
    cuts.count += start > 0
    while start < len(data) and _continues(data[start]):
        start += 1
    return data[start:].decode("utf-8", "surrogatepass")


def _continues(byte: int) -> bool:
    """Tell whether this byte of UTF-8 continues a character."""
    return byte & 0xC0 == 0x80  # noqa: PLR2004 - as UTF-8 defines it


def stacktrace(error: BaseException) -> str:
    """Render an exception's stack trace from the handler on; the last 8 KiB of it."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next and frames.tb_frame.f_globals.get("__package__") in _PLUMBING:
        frames = frames.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except Exception:  # noqa: BLE001 - an exception that cannot be printed is still an exception
        text = f"{type(error).__qualname__} (unprintable)"
    return _cut_start(text)


def quoted(value: str) -> str:
    """Quote a value as in JSON, with every harmful character escaped."""
    return _HARMFUL.sub(lambda match: f"\\u{ord(match[0]):04x}", _quote(value))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or isinstance(value, bool | dict | list | tuple):
        return _json_text(value) or printed(value)
    return printed(value)


def _json_text(value: Any) -> str | None:
    """Encode what JSON knows, or return None for what it does not: NaN, a circle, a key that is a tuple."""
    try:
        return _encode(value)
    except Exception:  # noqa: BLE001 - a value that cannot be encoded, or changes meanwhile, costs no line
        return None


def as_now(value: Any) -> Any:
    """Copy a list or a dict, which its owner may change before it is rendered; leave anything else as it is."""
    if not isinstance(value, dict | list):
        return value
    text = _json_text(value)
    return printed(value) if text is None else json.loads(text)


def printed(value: Any) -> str:
    """Return a value's own text, whatever its __str__ does."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a value that cannot be printed costs no line
        return f"<unprintable {type(value).__qualname__}>"


_encode: Final = json.JSONEncoder(allow_nan=False, default=printed).encode


def render_keyvalue(fields: MutableMapping[str, Any], at_ns: int | None = None) -> str:
    """Render one line: UTC time, that of `at_ns` or now, then key=value in the order of the fields."""
    parts = [clock(at_ns)]
    unknown = fields.get("endpoint") == "/unknown"
    for key, value in fields.items():
        if key in _REPEATED and not unknown and type(value) is str and len(value) <= _SURELY_SHORT:
            parts.append(_repeated_pair(key, value))
        elif key == "latency_ms" and type(value) is float:
            parts.append(f"latency_ms={value:.3f}")
        elif key == "stacktrace":
            parts.append(f"stacktrace={quoted(_cut_start(_text(value)))}")
        else:
            parts.append(_pair(key, value, quote=key == "error" or (unknown and key == "method")))
    return " ".join(parts)


def _pair(key: str, value: Any, *, quote: bool = False) -> str:
    text = value if type(value) is str else _text(value)
    if len(text) > _SURELY_SHORT:
        text = cut(text)
    if quote or not _PLAIN(text):
        text = quoted(text)
    return f"{safe_key(key)}={text}"


_REPEATED: Final = frozenset({"service", "endpoint", "status", "level", "kind", "method", "code", "peer"})
"""Keys whose values come again and again: each pair is rendered once."""
_repeated_pair: Final = functools.lru_cache(maxsize=1024)(_pair)


def render_json(fields: MutableMapping[str, Any], at_ns: int | None = None) -> str:
    """Render one line of JSON with the same keys, `time` first, in RFC 3339."""
    parts = [f'"time": "{clock(at_ns).replace(" ", "T").replace(",", ".")}Z"']
    parts += [f"{_encode(str(key))}: {_json_value(key, value)}" for key, value in fields.items() if key != "time"]
    return f"{{{', '.join(parts)}}}"


def _json_value(key: str, value: Any) -> str:
    """Encode a value: numbers as numbers, structures that are not too long as such, the rest as text."""
    if value is None or isinstance(value, int | float | dict | list | tuple):
        text = _json_text(value)
        if text is not None and len(text) <= VALUE_LIMIT:
            return text
    text = _text(value)
    return _encode(_cut_start(text) if key == "stacktrace" else cut(text))


RENDERERS: Final[dict[str, Callable[[MutableMapping[str, Any], int | None], str]]] = {
    "keyvalue": render_keyvalue,
    "json": render_json,
}


@functools.lru_cache(maxsize=1024)
def safe_key(key: str) -> str:
    """Make a key that cannot end itself: other characters than letters, digits, `.`, `_` and `-` become `_`."""
    return key if key.isidentifier() and key.isascii() else _UNSAFE_KEY.sub("_", str(key)) or "_"


def clock(at_ns: int | None = None) -> str:
    """Write a time in nanoseconds since the epoch, or now, as UTC: YYYY-MM-DD HH:MM:SS,mmm."""
    second, rest = divmod(time.time_ns() if at_ns is None else at_ns, 1_000_000_000)
    text = _second.get(second)
    if text is None:
        _second.clear()
        text = _second[second] = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(second))
    return f"{text},{rest // 1_000_000:03d}"


_second: Final[dict[int, str]] = {}
