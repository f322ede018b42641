"""Whether an address can be listened on, and the one line that says why not."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, Final

LAST_PORT: Final = 65535


class ListenError(OSError):
    """An address cannot be listened on; the text is `cannot listen on HOST:PORT: address already in use`, say."""

    def __init__(self, address: str, cause: OSError) -> None:
        reason = cause.strerror or str(cause)
        if cause.errno == errno.EADDRINUSE:
            reason = os.strerror(errno.EADDRINUSE)
        super().__init__(cause.errno, f"cannot listen on {address}: {reason[:1].lower()}{reason[1:]}")

    def __str__(self) -> str:
        return str(self.strerror)


def bare_host(host: str) -> str:
    """Return a host without the brackets that an IPv6 address may have."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def host_port(host: str, port: object) -> str:
    """Join a host and a port, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_address(address: str) -> None:
    """
    Raise ListenError where nobody could listen on HOST:PORT now.

    grpc shares a port with whoever listens there already, unless it was told not to, and says little when it
    cannot have one.
    """
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or "/" in host:
        return  # a Unix socket
    if int(port) > LAST_PORT:  # grpc and getaddrinfo would take the rest of a division
        raise ListenError(address, OSError(errno.EINVAL, f"ports end at {LAST_PORT}"))
    try:
        found = socket.getaddrinfo(bare_host(host) or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(address, error) from error
    failures = [failure for family, *_, where in found if (failure := bind_failure(family, where))]
    for failure in failures:
        # grpc is content with one of several. Those that this machine does not have are no loss, unlike one that
        # somebody else listens on.
        if failure.errno == errno.EADDRINUSE or len(failures) == len(found):
            raise ListenError(address, failure) from failure


def bind_failure(family: int, where: Any) -> OSError | None:
    """Try to listen there; return what prevents it, or None."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except OSError as error:
        return error
    return None
