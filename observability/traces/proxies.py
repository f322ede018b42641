"""Which way leads to a collector: past every proxy to what is inner, and through one to what is outer."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Final
from urllib.parse import urlsplit

_INNER_SUFFIXES: Final = (".localhost", ".local", ".internal", ".svc", ".home.arpa")
_INNER_NETWORKS: Final = [
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/32",
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "100.64.0.0/10",
        "::/127",
        "fc00::/7",
        "fe80::/10",
    )
]
_UNIX: Final = ("unix:", "unix-abstract:", "vsock:")
_NAME_AND_PORT: Final = re.compile(r"(?:(?:dns|ipv4|ipv6):/*)?(\[[^\]]*\]|[^:]*)(?::\d+)?")


def host_of(endpoint: str) -> str:
    """Return the host of an endpoint, a URL or an address such as gRPC takes; empty for a Unix socket."""
    if endpoint.startswith(_UNIX):
        return ""
    if "://" in endpoint and (host := urlsplit(endpoint).hostname):
        return host
    match = _NAME_AND_PORT.fullmatch(endpoint)
    return match[1].strip("[]").lower() if match else endpoint


def is_inner(host: str) -> bool:
    """
    Return whether a host is no part of the outer world, where a proxy would be asked for it.

    It is on loopback, at a private or link-local address, has a name without a dot, as containers have, or one
    that only an inner network knows. The empty host is that of a Unix socket.
    """
    address = _address(host)
    if address is not None:
        return any(address.version == network.version and address in network for network in _INNER_NETWORKS)
    name = host.rstrip(".")
    return "." not in name or name.endswith(_INNER_SUFFIXES)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def grpc_proxy(host: str) -> str:
    """Return the URL of the proxy through which gRPC reaches a host that is not inner; empty where it asks none."""
    proxy = next((value for name in _GRPC_PROXY if (value := os.environ.get(name)) is not None), "")
    excluded = next((value for name in _NO_GRPC_PROXY if (value := os.environ.get(name)) is not None), "")
    if not proxy.startswith("http://") or any(_is_excluded(host, entry.strip()) for entry in excluded.split(",")):
        return ""
    return proxy


# As gRPC's core reads them: in lower case alone, the first that is set, and only a proxy of the scheme http.
_GRPC_PROXY: Final = ("grpc_proxy", "https_proxy", "http_proxy")
_NO_GRPC_PROXY: Final = ("no_grpc_proxy", "no_proxy")


def _is_excluded(host: str, entry: str) -> bool:
    address = _address(host)
    if address is not None and "/" in entry:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    return bool(entry) and host.endswith(entry.lower())
