"""What is sent: raw bytes, and functions from and to them that fail as asked."""

from typing import Any, Final

FIRST: Final = b"first"
LAST: Final = b"last"
UNPARSEABLE: Final = b"unparseable"
VANISHING: Final = b"vanishing"
UNSERIALISABLE: Final = 42
VANISHED: Final = 0
LARGE: Final = b"x" * 8192
VERY_LARGE: Final = b"x" * 2**20


def parse(data: bytes) -> bytes | None:
    """Read a message; there is one that it cannot read, and one of which it makes None."""
    if data == UNPARSEABLE:
        raise ValueError("unparseable")
    return None if data == VANISHING else data


def serialize(message: Any) -> bytes | None:
    """Write a message; only bytes can be written, and there is a message of which it makes None."""
    if message is VANISHED:
        return None
    if not isinstance(message, bytes):
        raise TypeError("unserialisable")
    return message
