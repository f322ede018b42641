"""Whether an address can be listened on, and the one line that says why not."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from typing import Any, Final
from urllib.parse import unquote_to_bytes

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


def check_address(address: str, *, reuse_port: bool = False) -> None:
    """
    Raise ListenError where nobody could listen on this address of grpc's now: HOST:PORT, or a Unix socket's.

    With `reuse_port` others may listen there as well who share the port, as processes of the same user can.

    grpc shares a port with another server, unless so_reuseport is 0, takes a Unix socket over from the one that serves
    it, and says little when it cannot have an address.
    """
    unix = _unix_socket(address)
    if unix is not None:
        if failure := _unix_failure(unix):
            raise ListenError(address, failure)
        return
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return
    if int(port) > LAST_PORT:  # grpc and getaddrinfo would take the rest of a division
        raise ListenError(address, OSError(errno.EINVAL, f"ports end at {LAST_PORT}"))
    if _is_ipv6(host):  # grpc takes the port for the end of the address
        raise ListenError(
            address, OSError(errno.EINVAL, f"an IPv6 address has brackets, as in {host_port(host, port)}")
        )
    try:
        found = socket.getaddrinfo(bare_host(host) or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(address, error) from error
    failures = [
        failure for family, *_, where in found if (failure := bind_failure(family, where, reuse_port=reuse_port))
    ]
    for failure in failures:
        # grpc is content with one of several. Those that this machine does not have are no loss, unlike one that
        # somebody else listens on.
        if failure.errno == errno.EADDRINUSE or len(failures) == len(found):
            raise ListenError(address, failure) from failure


def is_reachable(address: str) -> bool:
    """Return whether others than this machine may reach what listens on this address of grpc's."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or address.startswith(("unix:", "unix-abstract:")):
        return False
    try:
        found = socket.getaddrinfo(bare_host(host) or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return True
    return not all(ipaddress.ip_address(where[0]).is_loopback for *_, where in found)


def bind_failure(family: int, where: Any, *, reuse_port: bool = False) -> OSError | None:
    """Try to listen there; return what prevents it, or None."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if reuse_port else socket.SO_REUSEADDR, 1)
            probe.bind(where)
            if not reuse_port:  # else others may be serving there: to listen would take connections from them
                probe.listen(1)
    except OSError as error:
        return error
    return None


def _is_ipv6(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, host)
    except OSError:
        return False
    return True


def _unix_socket(address: str) -> bytes | None:
    """Return where the socket is that grpc would make for `unix:…` or `unix-abstract:…`; None for another address."""
    scheme, _, path = address.partition(":")
    if scheme == "unix":
        return unquote_to_bytes(path)
    return b"\0" + unquote_to_bytes(path) if scheme == "unix-abstract" else None


def _unix_failure(path: bytes) -> OSError | None:
    """
    Return what prevents a server from listening on this Unix socket: somebody who does, or may; else None.

    A socket's file that nobody listens on was left behind, and grpc puts another one in its place.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)  # connecting to a busy server would wait
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                return error
            if error.errno not in (errno.EAGAIN, errno.EPROTOTYPE):  # busy, or for datagrams
                return None
    return OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
