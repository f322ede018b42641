"""A call as bytes on the wire, such as no grpc client would send."""

import contextlib
import socket
from collections.abc import Iterator

HEADERS, SETTINGS, CONTINUATION, DATA = 1, 4, 9, 0  # types of frames: RFC 9113, section 6
END_STREAM, END_HEADERS = 1, 4
LARGEST = 16_384  # bytes of a frame


@contextlib.contextmanager
def raw_call(
    address: str, path: bytes, *metadata: tuple[bytes, bytes], message: bytes | None = bytes(5)
) -> Iterator[socket.socket]:
    """Send a unary call with this message or none, an empty one unless given, all just as it is; hang up at the end."""
    host, port = address.split(":")
    headers = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", address.encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *metadata,
    )
    block = b"".join(b"\0" + text(name) + text(value) for name, value in headers)
    first, *more = [block[start : start + LARGEST] for start in range(0, len(block), LARGEST)]
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(SETTINGS, 0, 0)
            + frame(HEADERS, END_STREAM if message is None else 0, 1, first)
            + b"".join(frame(CONTINUATION, 0, 1, part) for part in more)
            + frame(CONTINUATION, END_HEADERS, 1)
            + (b"" if message is None else frame(DATA, END_STREAM, 1, message))
        )
        yield connection


def received(connection: socket.socket, text: bytes, seconds: float) -> bool:
    """Wait until the server has sent this, for this long at most; return whether it has."""
    connection.settimeout(seconds)
    got = b""
    with contextlib.suppress(TimeoutError):
        while text not in got and (data := connection.recv(LARGEST)):
            got += data
    return text in got


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame: RFC 9113, section 4.1."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def text(value: bytes) -> bytes:
    """Return a text of a header as HPACK has it, its length first: RFC 7541, section 5."""
    length = len(value)
    if length < 127:
        return bytes([length]) + value
    length -= 127
    prefix = [127]
    while length >= 128:
        prefix.append(length % 128 + 128)
        length //= 128
    return bytes([*prefix, length]) + value
