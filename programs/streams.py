"""The standard streams of a program, also where one was closed, is full, or cannot hold every character."""

import codecs
import contextlib
import io
import json
import os
import sys
from typing import Any

# What the client draws with, and what stands for it where the encoding has nothing of the kind.
DRAWN = str.maketrans(
    dict.fromkeys("─╌", "-")
    | dict.fromkeys("│├╎", "|")
    | dict.fromkeys("▏▎▍▌▋▊▉█▐▕", "#")
    | dict.fromkeys(map(chr, range(0x2800, 0x2900)), "*")  # a spinner's
    | {"└": "`", "→": ">", "▶": ">", "←": "<", "…": ".", "·": "."}
)


def escaped(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for characters that an encoding does not have: escapes as in JSON; an error handler."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def drawn(error: UnicodeError) -> tuple[str, int]:
    """Return the same, but one character of ASCII for each one that the client draws with."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(DRAWN)
    return json.dumps(text)[1:-1], error.end


codecs.register_error("escaped", escaped)
codecs.register_error("drawn", drawn)


class Stdout(io.FileIO):
    """The file of stdout, which remembers why it did not take something."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write."""
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


class Stderr(io.FileIO):
    """The file of stderr: what cannot be written is dropped, and all else goes on."""

    def write(self, data: Any) -> int:
        """Write, or drop the text."""
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(data)


def prepare() -> Stdout:
    """
    Let standard streams that were closed lead nowhere, stdout hold every text, and stderr bear everything.

    Returns the file of stdout.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # It takes the number that is free, its own, which a socket would get otherwise, with all that grpc's core
            # writes to stderr.
            nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(nowhere, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - it stays open
    file = Stdout(sys.stdout.fileno(), "wb", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(file), encoding=sys.stdout.encoding, errors="escaped", line_buffering=sys.stdout.isatty()
    )
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(Stderr(sys.stderr.fileno(), "wb", closefd=False)),
        encoding=sys.stderr.encoding,
        errors=sys.stderr.errors,
        line_buffering=True,
    )
    return file


def draw_on(stream: object) -> None:
    """Let a stream have drawings, in ASCII where its encoding has no others."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="drawn")
