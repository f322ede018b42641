"""Calls and answers as bytes on the wire, such as no client or server of grpc's would send."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

DATA, HEADERS, RST_STREAM, SETTINGS, CONTINUATION = 0, 1, 3, 4, 9  # types of frames: RFC 9113, section 6
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INTERNAL_ERROR, REFUSED_STREAM, CANCEL = 2, 7, 8  # error codes: RFC 9113, section 7
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LARGEST = 16_384  # bytes of a frame


@contextlib.contextmanager
def raw_call(
    address: str, path: bytes, *metadata: tuple[bytes, bytes], message: bytes | None = bytes(5)
) -> Iterator[socket.socket]:
    """Send a unary call with this message or none, an empty one unless given, all just as it is; hang up at the end."""
    host, port = address.split(":")
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", address.encode()),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *metadata,
    )
    block = header_block(*fields)
    first, *more = [block[start : start + LARGEST] for start in range(0, len(block), LARGEST)]
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            PREFACE
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


Answer = Callable[[int], bytes]
"""What a server sends when a call comes, by the number of its stream."""


def reset(code: int) -> Answer:
    """Return an answer that resets the stream."""
    return lambda stream: frame(RST_STREAM, 0, stream, code.to_bytes(4))


def headers(*fields: tuple[bytes, bytes]) -> Answer:
    """Return an answer of headers alone."""
    return lambda stream: frame(HEADERS, END_STREAM | END_HEADERS, stream, header_block(*fields))


@contextlib.contextmanager
def raw_server(answer: Answer) -> Iterator[str]:
    """Serve on a free port, and answer each call so, whatever it asks; gives the address."""

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as sent:
            connection.sendall(frame(SETTINGS, 0, 0))
            sent.read(len(PREFACE))
            while head := sent.read(9):
                sent.read(int.from_bytes(head[:3]))
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:])
                if kind == HEADERS:
                    connection.sendall(answer(stream))
                elif kind == SETTINGS and not flags & ACK:
                    connection.sendall(frame(SETTINGS, ACK, 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=[listener.accept()[0]]).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def header_block(*fields: tuple[bytes, bytes]) -> bytes:
    """Return headers as HPACK has them, each a literal: RFC 7541, section 6.2.2."""
    return b"".join(b"\0" + text(name) + text(value) for name, value in fields)


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
