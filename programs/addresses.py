"""The addresses behind a gRPC target: how many there may be, and whether they change."""

import contextlib
import ipaddress
import re
import socket
from typing import Final

from observability.address import bare_host

_NAMED: Final = re.compile(r"(?:dns:(?:///)?)?([^/]+):(\d+)")
"""A target whose host is looked up as the system looks it up: no scheme, or `dns` without a server of its own."""


def is_one_address(target: str) -> bool:
    """Return whether this target, which is none of several addresses, is an address: a name may stand for many."""
    host = target.removeprefix("ipv4:").removeprefix("ipv6:").rpartition(":")[0]
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(bare_host(host)))
    return False


class Addresses:
    """The addresses of a name, as the system knows them now."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._found: frozenset[str] = frozenset()

    @classmethod
    def behind(cls, target: str) -> "Addresses | None":
        """Return those behind a target's name; None where it has none, or asks a server of its own."""
        match = None if is_one_address(target) else _NAMED.fullmatch(target)
        return match and cls(match[1], int(match[2]))

    def current(self) -> frozenset[str]:
        """Look them up; return those of before where that fails, as gRPC goes on with those."""
        with contextlib.suppress(OSError, UnicodeError):
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self._found = frozenset(str(where[0]) for *_, where in found)
        return self._found
