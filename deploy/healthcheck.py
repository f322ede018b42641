"""
Shows a container engine whether a gRPC server serves: exit status 0 if it says so, else 1.

Its arguments are where the server listens, HOST:PORT, and the files of the server's certificate and key, if it has TLS.
"""

# ruff: noqa: INP001 - a program, not a package

import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

TIMEOUT = 3.0  # seconds
NAMES = ("DNS", "IP Address")
"""The alternative names of a certificate by which grpc knows a server."""


def main(address: str, certificate: str = "", key: str = "") -> int:
    """Ask the standard health service about the server as a whole."""
    try:
        with channel_to(bracketed(address), certificate, key) as channel:
            health: Any = HealthStub(channel)  # whose types do not know its methods
            status = health.Check(HealthCheckRequest(), timeout=TIMEOUT).status
    except grpc.RpcError as error:
        print(error.code(), error.details())  # noqa: T201 - docker inspect shows what a health check says
        return 1
    except OSError as error:
        print(error)  # noqa: T201 - as above
        return 1
    print(HealthCheckResponse.ServingStatus.Name(status))  # noqa: T201 - as above
    return int(status != HealthCheckResponse.SERVING)


def channel_to(address: str, certificate: str, key: str) -> grpc.Channel:
    """
    Return a channel to the server in this very container.

    With TLS it trusts the server's own certificate alone, and shows it as well, where the server wants one.
    """
    # Past the proxy that Docker's client may have put into the environment.
    options = [("grpc.enable_http_proxy", 0)]
    if not certificate:
        return grpc.insecure_channel(address, options)
    name = name_in_certificate(address, certificate, key)
    chain = Path(certificate).read_bytes()
    credentials = grpc.ssl_channel_credentials(chain, Path(key).read_bytes(), chain)
    return grpc.secure_channel(address, credentials, [*options, ("grpc.ssl_target_name_override", name)])


def name_in_certificate(address: str, certificate: str, key: str) -> str:
    """Return a name by which the server's certificate, which is to be the one in this file, can be checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # others call it by names that are not known here
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(certificate)
    context.load_cert_chain(certificate, key)
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host.strip("[]"), int(port)), TIMEOUT) as connection,
        context.wrap_socket(connection) as encrypted,
    ):
        shown: Any = encrypted.getpeercert()
    names = [value for kind, value in shown.get("subjectAltName", ()) if kind in NAMES]
    common = [value for part in shown["subject"] for kind, value in part if kind == "commonName"]
    return str([*names, *common, ""][0]).replace("*", "any")


def bracketed(address: str) -> str:
    """Return HOST:PORT with an IPv6 host in brackets, which a service takes without them as well."""
    host, _, port = address.rpartition(":")
    return f"[{host.strip('[]')}]:{port}" if ":" in host else address


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
