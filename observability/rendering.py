"""Renders a log line: key=value or JSON, on one line whatever the values hold, and parseable."""

from __future__ import annotations

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

_PLAIN: Final = re.compile(r"[A-Za-z0-9._/:-]+").fullmatch
# Controls, line separators, bidirectional marks and surrogates, which a terminal or a reader of lines obeys.
_HARMFUL: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_KEY: Final = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST_CHARACTER: Final = 4
_quote: Final = json.JSONEncoder(ensure_ascii=False).encode


class Cuts:
    """Counts the values that were cut."""

    def __init__(self) -> None:
        self.count = 0


cuts: Final = Cuts()


def cut(value: str, limit: int = VALUE_LIMIT) -> str:
    """Keep the first `limit` bytes of a value's UTF-8, in whole characters."""
    if len(value) * _LONGEST_CHARACTER <= limit:
        return value
    data = value.encode("utf-8", "surrogatepass")
    if len(data) <= limit:
        return value
    cuts.count += 1
    end = limit
    while data[end] & 0xC0 == 0x80:  # noqa: PLR2004 - a continuation byte of UTF-8
        end -= 1
    return data[:end].decode("utf-8", "surrogatepass")


def stacktrace(error: BaseException) -> str:
    """Render an exception's stack trace from the handler on; the last 8 KiB of it."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next and frames.tb_frame.f_globals.get("__package__") == __package__:
        frames = frames.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except Exception:  # noqa: BLE001 - an exception that cannot be printed is still an exception
        text = f"{type(error).__qualname__} (unprintable)"
    data = text.encode("utf-8", "surrogatepass")
    return data[-STACKTRACE_LIMIT:].decode("utf-8", "replace") if len(data) > STACKTRACE_LIMIT else text


def quoted(value: str) -> str:
    """Quote a value as in JSON, with every harmful character escaped."""
    return _HARMFUL.sub(lambda match: f"\\u{ord(match[0]):04x}", _quote(value))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool | dict | list | tuple):
        try:
            return json.dumps(value, default=_printed)
        except (TypeError, ValueError):
            return _printed(value)
    return _printed(value)


def _printed(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a value that cannot be printed costs no line
        return f"<unprintable {type(value).__qualname__}>"


def render_keyvalue(fields: MutableMapping[str, Any]) -> str:
    """Render one line: UTC time, then key=value in the order of the fields."""
    parts = [clock()]
    unknown = fields.get("endpoint") == "/unknown"
    for key, value in fields.items():
        if key == "latency_ms":
            parts.append(f"latency_ms={value:.3f}")
            continue
        text = value if type(value) is str else _text(value)
        if key == "stacktrace":
            text = quoted(text)
        elif key == "error" or (unknown and key == "method") or not _PLAIN(text):
            text = quoted(cut(text))
        elif len(text) > VALUE_LIMIT:
            text = cut(text)
        parts.append(f"{safe_key(key)}={text}")
    return " ".join(parts)


def render_json(fields: MutableMapping[str, Any]) -> str:
    """Render one line of JSON with the same keys, `time` first, in RFC 3339."""
    line: dict[str, Any] = {"time": clock().replace(" ", "T").replace(",", ".") + "Z"}
    for key, value in fields.items():
        line[key] = cut(value) if isinstance(value, str) and key != "stacktrace" else value
    return json.dumps(line, default=lambda value: cut(_printed(value)))


RENDERERS: Final[dict[str, Callable[[MutableMapping[str, Any]], str]]] = {
    "keyvalue": render_keyvalue,
    "json": render_json,
}


def safe_key(key: str) -> str:
    """Make a key that cannot end itself: other characters than letters, digits, `.`, `_` and `-` become `_`."""
    return key if key.isidentifier() and key.isascii() else _UNSAFE_KEY.sub("_", str(key)) or "_"


def clock() -> str:
    """Tell the time, UTC, as YYYY-MM-DD HH:MM:SS,mmm."""
    nanoseconds = time.time_ns()
    second, rest = divmod(nanoseconds, 1_000_000_000)
    text = _second.get(second)
    if text is None:
        _second.clear()
        text = _second[second] = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(second))
    return f"{text},{rest // 1_000_000:03d}"


_second: Final[dict[int, str]] = {}
