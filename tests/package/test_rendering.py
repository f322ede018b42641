"""Rendering: whatever a value holds, its line is one line, and parsing it gives the value back."""

import datetime as dt
import enum
import json
import shutil
import subprocess
import unicodedata
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from client.lines import fields
from observability.calls.values import stacktrace, truncations
from observability.logs.render import render_json, render_keyvalue

HOSTILE = [
    "",
    "two words",
    'say "hi"',
    "back\\slash \\n",
    "a=b code=OK",
    "line\nbreak",
    "carriage\rreturn\r\n",
    "\x1b[31mred\x1b[0m",
    "\x00",
    "\x7f\x85\x9b",
    "\x0b\x0c\x1c\x1d\x1e",
    "\u2028\u2029",
    "\u202erlo\u2066\u2069\u200f\u061c",
    "\ud800",
    "a\udfff",
    "zwölf 😀",
    "\n2026-02-04 10:00:00,000 service=A endpoint=/echo status=ok",
    '" code=OK forged="',
    "x" * 1_000_000,
    "€" * 1_000_000,
    "😀" * 257,
]
TEXT = st.text(st.characters()) | st.text(st.sampled_from('a ="\\\n\r\t\x00\x1b\x85\u2028\u202e\ud800\udfff€😀'))


def short(value: object) -> str:
    """Name a text in a test's id."""
    return ascii(value)[:24] if isinstance(value, str) else type(value).__name__


def normal(text: str) -> str:
    """Join what is written as two halves of one character, as JSON does."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def whole(text: str) -> str:
    """Join halves of a character, and replace a half that is alone."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def kept(text: str) -> str:
    """Cut a text after the last whole character within its first 1,024 bytes."""
    size = 0
    for index, character in enumerate(text[:1025]):
        size += len(character.encode("utf-8", "surrogatepass"))
        if size > 1024:
            return text[:index]
    return text


def is_harmless(character: str) -> bool:
    """Return whether a terminal, an encoder and a reader of lines all take a character for text."""
    bidirectional = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    return unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp") and character not in bidirectional


@pytest.mark.parametrize("value", ["A", "/call-echo", "ipv4:127.0.0.1:40112", "echo.v1.EchoService/Echo", "0", "_"])
def test_plain_value_is_bare(value: str) -> None:
    """ASCII letters, digits and ._/:- stand as they are."""
    line = render_keyvalue({"key": value})

    assert f"key={value}" == line.split(" ", 2)[2]


@pytest.mark.parametrize("value", ["", "a b", "a=b", 'a"b', "é", "a,b", "1+1", "a@b", "[::1]", "100%"])
def test_any_other_value_is_quoted(value: str) -> None:
    """A value that is empty or holds anything else is quoted as in JSON."""
    line = render_keyvalue({"key": value})

    assert f"key={json.dumps(value, ensure_ascii=False)}" == line.split(" ", 2)[2]


@given(TEXT)
def test_keyvalue_gives_any_value_back(value: str) -> None:
    """Parsing a key=value line gives the value back, or its first 1,024 bytes of whole characters."""
    line = render_keyvalue({"service": "A", "key": value, "last": "z"})

    assert {"service": "A", "key": normal(kept(value)), "last": "z"} == fields(line)


@pytest.mark.parametrize("value", HOSTILE, ids=short)
def test_keyvalue_gives_hostile_values_back(value: str) -> None:
    """Parsing a key=value line gives back what has broken logs before, up to 1 MB of it."""
    line = render_keyvalue({"service": "A", "key": value, "last": "z"})

    assert {"service": "A", "key": normal(kept(value)), "last": "z"} == fields(line)


@given(TEXT)
@example("\u2028\x85\ud800\u202e\x1b")
def test_keyvalue_line_is_harmless(value: str) -> None:
    """A key=value line is one line of text that can be encoded, and no terminal obeys it."""
    line = render_keyvalue({"key": value})

    assert [] == [character for character in line if not is_harmless(character)]


@given(TEXT)
@example("\n2026-02-04")
@example("forged=yes key")
def test_keyvalue_key_cannot_forge(key: str) -> None:
    """A hostile field name is one key, of harmless characters, and its value is its own."""
    line = render_keyvalue({key: "value", "last": "z"})

    assert ["value", "z"] == list(fields(line).values())


@given(TEXT)
def test_json_gives_any_value_back(value: str) -> None:
    """Parsing a JSON line gives the value back, or its first 1,024 bytes, but for halves of characters."""
    line = render_json({"key": value})

    assert whole(kept(value)) == json.loads(line)["key"]
    assert line.isascii()
    assert line.isprintable()


@pytest.mark.parametrize("value", HOSTILE, ids=short)
def test_json_gives_hostile_values_back(value: str) -> None:
    """Parsing a JSON line gives back what has broken logs before, up to 1 MB of it."""
    line = render_json({"key": value})

    assert whole(kept(value)) == json.loads(line)["key"]


class Broken:
    """Cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Colour(str, enum.Enum):  # noqa: UP042 - not a StrEnum: its format() is not its value
    """A string with a name."""

    RED = "dark red"


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, "3"),
        (-2.5, "-2.5"),
        (True, "true"),
        (None, "null"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (Decimal("1.10"), "1.10"),
        (dt.date(2026, 2, 4), "2026-02-04"),
        ({"a": [1, "x y"]}, '{"a": [1, "x y"]}'),
        ({("a", 1): 2}, "{('a', 1): 2}"),
        (CIRCLE, "[[...]]"),
        (b"bytes", "b'bytes'"),
        (Colour.RED, "dark red"),
        (Broken(), "<unprintable Broken>"),
        ([Broken()], '["<unprintable Broken>"]'),
        (10**5000, "<unprintable int>"),
    ],
    ids=short,
)
def test_keyvalue_writes_what_is_no_text(value: object, expected: str) -> None:
    """What is no text is written as JSON where JSON knows it, else as Python prints it, and costs no line."""
    line = render_keyvalue({"key": value})

    assert {"key": expected} == fields(line)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (-2.5, -2.5),
        (True, True),
        (None, None),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (Decimal("1.10"), "1.10"),
        ({"a": [1, "x y"]}, {"a": [1, "x y"]}),
        ({"a": float("nan")}, "{'a': nan}"),
        ({("a", 1): 2}, "{('a', 1): 2}"),
        (CIRCLE, "[[...]]"),
        (Colour.RED, "dark red"),
        (Broken(), "<unprintable Broken>"),
        (10**5000, "<unprintable int>"),
        ({"a": "x" * 2000}, '{"a": "' + "x" * 1017),
    ],
    ids=short,
)
def test_json_keeps_numbers_and_structure(value: object, expected: object) -> None:
    """Numbers stay numbers and structures structures; what JSON does not know is text, and costs no line."""
    line = render_json({"key": value})

    assert expected == json.loads(line, parse_constant=pytest.fail)["key"]


def test_json_time_comes_first_and_no_field_replaces_it() -> None:
    """A JSON line starts with its time in RFC 3339, UTC, which no field replaces."""
    before = dt.datetime.now(dt.UTC) - dt.timedelta(milliseconds=1)

    line = json.loads(render_json({"service": "A", "time": "noon"}))

    assert ["time", "service"] == list(line)[:2]
    assert before <= dt.datetime.fromisoformat(line["time"]) <= dt.datetime.now(dt.UTC)


def test_keyvalue_time_is_utc_with_milliseconds() -> None:
    """A key=value line starts with its time, UTC, as YYYY-MM-DD HH:MM:SS,mmm."""
    before = dt.datetime.now(dt.UTC) - dt.timedelta(milliseconds=1)

    time = render_keyvalue({"service": "A"}).removesuffix(" service=A")

    found = dt.datetime.strptime(f"{time}+0000", "%Y-%m-%d %H:%M:%S,%f%z")
    assert before <= found <= dt.datetime.now(dt.UTC)


def fail(text: str, cause: Exception | None = None) -> None:
    """Raise a ValueError."""
    raise ValueError(text) from cause


def raised(text: str, cause: Exception | None = None) -> ValueError:
    """Return an exception that has been raised, and so has a stack trace."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its text is the test's own
        fail(text, cause)
    return caught.value


@pytest.mark.parametrize("text", ["short", "x" * 100_000, "€" * 100_000, "\ud800" * 100_000, "a\n" * 10_000])
def test_stacktrace_is_bounded(text: str) -> None:
    """A stack trace is at most 8 KiB of UTF-8, from its end, of whole characters."""
    found = stacktrace(raised(text))

    assert len(found.encode("utf-8", "surrogatepass")) <= 8192
    assert found.endswith(f"{text[-1000:]}\n")
    assert "\ufffd" not in found


@pytest.mark.parametrize(("text", "count"), [("short", 0), ("x" * 100_000, 1)], ids=["short", "long"])
def test_cut_stacktrace_is_counted(text: str, count: int) -> None:
    """A stack trace that is truncated is counted as a truncated value."""
    before = truncations.count
    stacktrace(raised(text))

    assert count == truncations.count - before


def test_long_stacktrace_keeps_its_end() -> None:
    """The stack trace of a deep failure keeps the innermost frames and the message."""
    error = raised("the first cause")
    for _ in range(100):
        error = raised("the last word", error)

    assert stacktrace(error).endswith("in fail\n    raise ValueError(text) from cause\nValueError: the last word\n")


def test_stacktrace_of_what_cannot_be_printed() -> None:
    """An exception whose text raises has a stack trace."""

    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert "UnprintableError" in stacktrace(UnprintableError())


def test_stacktrace_of_what_python_cannot_format() -> None:
    """An exception that Python itself fails to format costs no more than its stack trace."""

    class UnnotableError(Exception):
        @property
        def __notes__(self) -> list[str]:  # type: ignore[override]  # that is what is wrong with it
            raise RuntimeError("no notes")

    assert "UnnotableError" in stacktrace(UnnotableError())


@pytest.mark.parametrize("render", [render_keyvalue, render_json])
def test_a_field_of_any_type_under_a_name_of_a_call_line_renders(render: Any) -> None:
    """An application's own latency_ms, error or stacktrace need not be what a call's is."""
    line = render({"event": "done", "latency_ms": "slow", "error": None, "stacktrace": "x" * 100_000, "method": 3})

    assert '"slow"' in line or "=slow" in line
    assert len(line) < 10_000


LIMIT = 16 * 1024
"""Bytes of a line, line break included, that container runtimes leave in one piece."""
RENDERERS = pytest.mark.parametrize("render", [render_keyvalue, render_json])
WIDE = ["x", "\x00", "\x7f", "é", "€", "😀", "\u2028", "\ud800", '"', "\\"]
"""Characters that become one to twelve bytes of a line."""
CALL = {
    "service": "A",
    "endpoint": "/echo",
    "status": "error",
    "error": "",
    "latency_ms": 0.412,
    "level": "error",
    "kind": "server",
    "method": "",
    "code": "UNKNOWN",
    "peer": "ipv4:127.0.0.1:40112",
    "deadline_ms": 950,
    "sent": 1,
    "received": 2,
    "trace_id": "a" * 32,
    "span_id": "b" * 16,
}


def parsed(line: str) -> dict[str, Any]:
    """Parse a line of either kind."""
    return json.loads(line) if line.startswith("{") else dict(fields(line))


def size(line: str) -> int:
    """Count the bytes of a line and its line break."""
    return len(f"{line}\n".encode())


@RENDERERS
@pytest.mark.parametrize("character", WIDE, ids=ascii)
@pytest.mark.parametrize("count", [0, 14, 15, 16, 100])
def test_line_is_bounded(render: Any, character: str, count: int) -> None:
    """Whatever a call's line holds, it is one piece to a container runtime, and has every key of the call."""
    text = character * 100_000
    own = {f"field_{number}": text for number in range(count)}
    line = render({**CALL, "error": text, "method": text, **own, "stacktrace": text})

    assert size(line) <= LIMIT
    found = parsed(line)
    assert [*CALL, "stacktrace"] == [key for key in found if key != "time" and not key.startswith("field_")]
    assert {key: str(CALL[key]) for key in ("code", "trace_id", "span_id", "peer", "sent")}.items() <= {
        key: str(value) for key, value in found.items()
    }.items()
    assert len(found["stacktrace"].encode("utf-8", "replace")) >= 1_300


@RENDERERS
@given(st.dictionaries(TEXT, TEXT, max_size=60), st.integers(0, 300))
def test_any_line_is_bounded(render: Any, own: dict[str, str], times: int) -> None:
    """A line with fields of any names and values is bounded too, and can be parsed."""
    line = render({**{key: value * times for key, value in own.items()}, "service": "A"})

    assert size(line) <= LIMIT
    assert "A" == parsed(line)["service"]


@RENDERERS
def test_line_that_just_fits(render: Any) -> None:
    """A line of just that many bytes is left as it is; of a longer one, what does not fit is left out and counted."""
    own = {f"field_{number}": "x" * 950 for number in range(16)}
    own["last"] = ""
    quotes = 2 * (render is render_keyvalue)  # of an empty value
    own["last"] = "x" * (LIMIT - size(render(own)) + quotes)
    before = truncations.count
    whole = render(own)
    counted = truncations.count - before
    own["last"] += "x"
    cut_off = render(own)

    assert (LIMIT, 0) == (size(whole), counted)
    assert own.keys() - {"last"} == parsed(cut_off).keys() - {"time"}
    assert 1 == truncations.count - before


@RENDERERS
def test_what_a_line_loses_is_counted_once(render: Any) -> None:
    """Each value that is truncated, once or twice, or left out is counted once."""
    before = truncations.count
    render({"service": "A", "error": "x" * 2_000, "method": "x", **{f"field_{n}": "x" * 1_000 for n in range(20)}})

    # A field takes 1,010 bytes or a little more, so that there is room for 15 of them beside the error.
    assert 1 + 5 == truncations.count - before


@RENDERERS
def test_a_name_can_be_too_long(render: Any) -> None:
    """A field whose name alone is longer than a line is left out."""
    line = render({"service": "A", "x" * 20_000: 1, "last": "z"})

    assert {"service": "A", "last": "z"} == {key: value for key, value in parsed(line).items() if key != "time"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("\ud800", "\ufffd"),
        ("a\udfffb", "a\ufffdb"),
        ("\ud83d\ude00", "😀"),
        ("\ud83d\ud83d\ude00\ude00", "\ufffd😀\ufffd"),
        ("\\ud800", "\\ud800"),
        ("\\\ud800", "\\\ufffd"),
        (["\ud800", {"\udfff": "\\ud800"}], ["\ufffd", {"\ufffd": "\\ud800"}]),
    ],
    ids=ascii,
)
def test_json_has_no_half_characters(value: Any, expected: Any) -> None:
    """Half of a surrogate pair, at which readers of JSON give up, is U+FFFD; what looks like one is left alone."""
    line = render_json({"key": value, "\ud800": 1})

    assert expected == json.loads(line)["key"]
    assert "\ufffd" in json.loads(line)
    json.dumps(json.loads(line), ensure_ascii=False).encode()  # raises for what is left


def nested(depth: int) -> list[Any]:
    """Return lists within each other."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(("depth", "kind"), [(100, list), (101, str), (250, str)])
def test_json_is_no_deeper_than_its_readers(depth: int, kind: type) -> None:
    """Structures deeper than readers of JSON follow are text."""
    assert kind is type(json.loads(render_json({"key": nested(depth)}))["key"])


def test_json_of_many_brackets_is_not_deep() -> None:
    """What has many brackets and is not deep is a structure as it was."""
    value = [{"a": "[["}] * 50

    assert value == json.loads(render_json({"key": value}))["key"]


@pytest.mark.skipif(not shutil.which("jq"), reason="there is no jq here")
@pytest.mark.parametrize("value", [*HOSTILE, nested(100), nested(250), [HOSTILE], 10**400, 1e308], ids=short)
def test_jq_reads_what_is_written(value: Any) -> None:
    """jq, stricter than Python, reads every line, and the next one after it."""
    lines = "".join(f"{render_json(fields)}\n" for fields in ({"key": value}, {"key": "next"}))
    result = subprocess.run(
        ["jq", "-r", ".key | type"], input=lines, capture_output=True, encoding="utf-8", check=False
    )

    assert ("", 0) == (result.stderr, result.returncode)
    assert "string" == result.stdout.splitlines()[-1]
