"""A span's attributes, by the RPC semantic conventions."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    from ..calls.method import Method

# The RPC conventions are stable since 1.45.0; the Python package of constants stops at 1.44.
RPC_SYSTEM_NAME: Final = "rpc.system.name"
"""`grpc`."""
RPC_METHOD: Final = "rpc.method"
"""The method with its service, as in `echo.v1.EchoService/Echo`; `_OTHER` of one that the server does not know."""
RPC_METHOD_ORIGINAL: Final = "rpc.method_original"
"""The name under which an unknown method was called."""
RPC_STATUS_CODE: Final = "rpc.status_code"
"""The name of the final status code, as in `NOT_FOUND`."""
ERROR_TYPE: Final = "error.type"
"""The same of a call that failed: on a client any but OK, on a server those that are its own faults."""
SERVER_ADDRESS: Final = "server.address"
"""Host of the channel's `target`, or the path of a Unix socket; without a target there is none."""
SERVER_PORT: Final = "server.port"
"""Port of that target, as a number."""
NETWORK_PEER_ADDRESS: Final = "network.peer.address"
"""Address of the caller as grpc names it, or the path of a Unix socket; there once a handler has started."""
NETWORK_PEER_PORT: Final = "network.peer.port"
"""Port of that address, as a number."""
PEER_IDENTITY: Final = "peer_identity"
"""With mutual TLS the names in the caller's certificate. Ours: the conventions have none for alternative names."""
_HOST_AND_PORT: Final = re.compile(r"(?:.*/|[a-z][a-z0-9+.-]*:(?!\d+$))?(\[[^\]]+\]|[^:/\[\]]+)(?::(\d+))?").fullmatch


def method_attributes(method: Method) -> dict[str, Any]:
    """Return what is known of a call before it starts, by its method."""
    name = method.full_name
    if method.registered:
        return {RPC_SYSTEM_NAME: "grpc", RPC_METHOD: name}
    return {RPC_SYSTEM_NAME: "grpc", RPC_METHOD: "_OTHER", RPC_METHOD_ORIGINAL: name}


@functools.lru_cache(maxsize=1024)
def target_attributes(target: str) -> dict[str, Any]:
    """Return the server's address and port, from a channel's target, such as dns:///host:8080."""
    return _address(target, SERVER_ADDRESS, SERVER_PORT)


@functools.lru_cache(maxsize=1024)
def peer_attributes(peer: str) -> dict[str, Any]:
    """Return a peer's address and port, from grpc's name for it, such as ipv4:127.0.0.1:40112."""
    return _address(unquote(peer), NETWORK_PEER_ADDRESS, NETWORK_PEER_PORT)


@functools.lru_cache(maxsize=1024)
def end_attributes(peer: str | None, code: str, *, failed: bool) -> dict[str, Any]:
    """Return what is known when a call has ended with this code: who a server's peer was too, unless it is None."""
    attributes = {} if peer is None else peer_attributes(peer)
    return {**attributes, RPC_STATUS_CODE: code, **({ERROR_TYPE: code} if failed else {})}


def _address(name: str, address_key: str, port_key: str) -> dict[str, Any]:
    if name.startswith("unix"):
        path = name.partition(":")[2].removeprefix("//")
        return {address_key: path} if path else {}
    match = _HOST_AND_PORT(name)
    if match is None:
        return {address_key: name}
    address = {address_key: match[1].strip("[]")}
    return address if match[2] is None else {**address, port_key: int(match[2])}
