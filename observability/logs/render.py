"""Renders a log line: key=value or JSON, on one line whatever the values hold, and parseable."""

from __future__ import annotations

import functools
import json
import re
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..calls.values import (
    STACKTRACE_LIMIT,
    VALUE_LIMIT,
    encode_json,
    first_bytes,
    json_text,
    last_bytes,
    safe_str,
    truncate,
    truncate_start,
    truncations,
)

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

LINE_BYTES: Final = 16 * 1024
"""How many bytes a line may have, its line break included: container runtimes split a longer one."""
LINE_KEYS: Final = frozenset(
    [
        "service",
        "endpoint",
        "status",
        "error",
        "latency_ms",
        "level",
        "kind",
        "method",
        "code",
        "peer",
        "peer_identity",
        "deadline_ms",
        "sent",
        "received",
        "trace_id",
        "span_id",
        "stacktrace",
        "event",
        "time",
    ]
)
"""The keys of a call's line, which a field of the application's own may not take."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9._/:-]+").fullmatch
# Controls, line separators, bidirectional marks and surrogates, which a terminal or a reader of lines obeys.
_HARMFUL: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_KEY: Final = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST_CHARACTER: Final = 4
_SURELY_SHORT: Final = VALUE_LIMIT // _LONGEST_CHARACTER
_DEPTH_LIMIT: Final = 100  # structures within each other: jq reads 256, with ours around them
_LINE_FRAME: Final = 64  # bytes: the time, what is around the fields, and the line break
_SEPARATOR: Final = 2  # bytes
_SURROGATES: Final = re.compile(r"\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|(\\ud[89a-f][0-9a-f]{2})")
_quote: Final = json.JSONEncoder(ensure_ascii=False).encode


def quoted(value: str) -> str:
    """Quote a value as in JSON, with every harmful character escaped."""
    return _HARMFUL.sub(lambda match: f"\\u{ord(match[0]):04x}", _quote(value))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or isinstance(value, bool | dict | list | tuple):
        return json_text(value) or safe_str(value)
    return safe_str(value)


def render_keyvalue(fields: MutableMapping[str, Any], at_ns: int | None = None) -> str:
    """
    Render one line: UTC time, that of `at_ns`, of a call's line, or now, then key=value in the order of the fields.

    It is no longer than LINE_BYTES.
    """
    pairs = _OTHER_PAIRS
    if fields.get("endpoint") == "/unknown":
        pairs = _UNKNOWN_PAIRS
    elif at_ns is not None and len(fields.get("method", "")) <= _SURELY_SHORT:
        pairs = _CALL_PAIRS
    parts = [clock(at_ns), *[pairs.get(key, _pair)(key, value) for key, value in fields.items()]]
    line = " ".join(parts)
    if len(line) * _LONGEST_CHARACTER < LINE_BYTES or len(line.encode()) < LINE_BYTES:
        return line
    return " ".join([parts[0], *_fitting(fields, parts[1:], lambda key, text: f"{safe_key(key)}={quoted(text)}")])


def _pair(key: str, value: Any, *, quote: bool = False) -> str:
    text = value if type(value) is str else _text(value)
    if len(text) > _SURELY_SHORT:
        text = truncate(text)
    if quote or not _PLAIN(text):
        text = quoted(text)
    return f"{safe_key(key)}={text}"


def _latency_pair(key: str, value: Any) -> str:
    return f"latency_ms={value:.3f}" if type(value) is float else _pair(key, value)


def _stacktrace_pair(_key: str, value: Any) -> str:
    return f"stacktrace={quoted(truncate_start(_text(value)))}"


def _repeated_pair(key: str, value: Any) -> str:
    return (_kept_pair if type(value) is str and len(value) <= _SURELY_SHORT else _pair)(key, value)


_kept_pair: Final = functools.lru_cache(maxsize=1024, typed=True)(_pair)
_quoted_pair: Final = functools.partial(_pair, quote=True)
_plain_pair: Final = "{}={}".format

_Pairs: TypeAlias = "dict[str, Callable[[str, Any], str]]"
_OTHER_PAIRS: Final[_Pairs] = {
    "service": _repeated_pair,
    "level": _repeated_pair,
    "error": _quoted_pair,
    "latency_ms": _latency_pair,
    "stacktrace": _stacktrace_pair,
}
"""How pairs are rendered whose values may be anything; others as by `_pair`."""
_UNKNOWN_PAIRS: Final[_Pairs] = {**_OTHER_PAIRS, "method": _quoted_pair}
"""The same in the line of a call of an unknown method."""
_CALL_PAIRS: Final[_Pairs] = {
    **_OTHER_PAIRS,
    **dict.fromkeys(["endpoint", "status", "level", "kind", "method", "code", "peer"], _kept_pair),
    **dict.fromkeys(["deadline_ms", "sent", "received", "trace_id", "span_id"], _plain_pair),
    "peer_identity": _repeated_pair,
}
"""The same in the line of another call, whose own values are known for short texts and numbers: without a look."""


def render_json(fields: MutableMapping[str, Any], at_ns: int | None = None) -> str:
    """
    Render one line of JSON with the same keys, `time` first, in RFC 3339.

    It is ASCII, no longer than LINE_BYTES, and nothing that a reader of JSON refuses: of a surrogate without its other
    half there is U+FFFD.
    """
    time_ = f'"time": "{clock(at_ns).replace(" ", "T").replace(",", ".")}Z"'
    fields = {key: value for key, value in fields.items() if key != "time"}
    parts = [f"{encode_json(str(key))}: {_json_value(key, value)}" for key, value in fields.items()]
    line = _joined(time_, parts)
    if len(line) < LINE_BYTES:
        return line
    return _joined(time_, _fitting(fields, parts, lambda key, text: f"{encode_json(str(key))}: {encode_json(text)}"))


def _joined(time_: str, parts: list[str]) -> str:
    line = f"{{{', '.join([time_, *parts])}}}"
    return _SURROGATES.sub(lambda match: "\\ufffd" if match[1] else match[0], line) if "\\ud" in line else line


def _json_value(key: str, value: Any) -> str:
    """Encode a value: numbers as numbers, structures that are not too long as such, the rest as text."""
    if value is None or isinstance(value, int | float | dict | list | tuple):
        text = json_text(value)
        if text is not None and len(text) <= VALUE_LIMIT and not _is_deep(value, text):
            return text
    text = _text(value)
    return encode_json(truncate_start(text) if key == "stacktrace" else truncate(text))


def _is_deep(value: Any, text: str) -> bool:
    """Return whether more structures are within each other than every reader of JSON takes."""
    if text.count("[") + text.count("{") <= _DEPTH_LIMIT:
        return False
    level = [value]
    for _ in range(_DEPTH_LIMIT):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list | tuple)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


def _fitting(fields: MutableMapping[str, Any], parts: list[str], render: Callable[[str, str], str]) -> list[str]:
    """
    Return the parts of a line that is too long, one for each field, so that they fit into it.

    A call's own keys come first: their values are cut further where their escapes take too much. Of the application's
    fields, what there is no room for is left out.
    """
    left = LINE_BYTES - _LINE_FRAME
    kept: dict[int, str] = {}
    for place, (key, value) in sorted(enumerate(fields.items()), key=lambda item: _rank(item[1][0])):
        part = parts[place]
        if key in LINE_KEYS:
            part = _shortened(part, key, value, render, min(left, _limit(key)))
        size = len(part.encode()) + _SEPARATOR
        if size <= left:
            left -= size
            kept[place] = part
        # What is longer than it may be has been counted before.
        if kept.get(place) != parts[place] and len(_text(value).encode("utf-8", "surrogatepass")) <= _limit(key):
            truncations.count += 1
    return [part for _, part in sorted(kept.items())]


def _rank(key: str) -> int:
    if key == "stacktrace":
        return 1
    return 0 if key in LINE_KEYS else 2


def _limit(key: str) -> int:
    return STACKTRACE_LIMIT if key == "stacktrace" else VALUE_LIMIT


def _shortened(part: str, key: str, value: Any, render: Callable[[str, str], str], limit: int) -> str:
    """Render a field anew, with less of its value, until it is no longer than it may be, escapes and key included."""
    text, size = _text(value), limit
    while (length := len(part.encode())) > limit and size > 0:
        size = min(size - 1, size * limit // length)
        part = render(key, last_bytes(text, size) if key == "stacktrace" else first_bytes(text, size))
    return part


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
