"""Connections as sockets, beside what gRPC and HTTP's clients make of them."""

import contextlib
import socket


def end_of(connection: socket.socket) -> bytes:
    """Read until the other side closes or breaks the connection; return what came."""
    data = b""
    with connection, contextlib.suppress(ConnectionError):
        while more := connection.recv(1 << 16):
            data += more
    return data
