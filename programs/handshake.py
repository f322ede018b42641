"""Why two programs do not agree on TLS: grpc mostly says that it failed to connect."""

import socket
import ssl

from observability.address import bare_host
from observability.certificates import Role

SECONDS = 2.0
"""How long the other side may take for each of its words."""
NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
"""What OpenSSL calls an answer that is none of TLS."""


def failure_of_handshake(address: str, files: dict[Role, str], server_name: str | None) -> str | None:
    """
    Connect to this address, as a channel with these files does, and return why that fails.

    Without files it is seen whether the other side has TLS. Returns None where all is well, or nobody is there.
    """
    host, _, port = address.rpartition(":")
    host = bare_host(host)
    try:
        context = _context(files)
        with socket.create_connection((host, int(port)), SECONDS) as connection:
            return _failure(connection, context, files, server_name or host)
    except OSError:
        return None


def _context(files: dict[Role, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as grpc
    if "root_certificates" in files:
        context.load_verify_locations(files["root_certificates"])
    else:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if "certificate_chain" in files:
        context.load_cert_chain(files["certificate_chain"], files["private_key"])
    return context


def _failure(
    connection: socket.socket, context: ssl.SSLContext, files: dict[Role, str], server_name: str
) -> str | None:
    try:
        encrypted = context.wrap_socket(connection, server_hostname=server_name)
    except ssl.SSLCertVerificationError as error:
        return f"the server's certificate was refused: {error.verify_message.rstrip('.')}"
    except ssl.SSLError as error:
        has_tls = error.reason not in NO_TLS
        if not files:
            return "the server wants TLS: --tls-ca" if has_tls and "ALERT" in (error.reason or "") else None
        return _refusal(error, files) if has_tls else "the server has no TLS"
    with encrypted:
        return _answer(encrypted, files) if files else "the server wants TLS: --tls-ca"


def _answer(encrypted: ssl.SSLSocket, files: dict[Role, str]) -> str | None:
    """Wait for the server's first word: with TLS 1.3 it says only now what it makes of our certificate."""
    try:
        first = encrypted.recv(1)
    except ssl.SSLError as error:
        return _refusal(error, files)
    except ConnectionError:
        first = b""
    return None if first else _refusal(None, files)  # grpc's server says nothing, and hangs up


def _refusal(error: ssl.SSLError | None, files: dict[Role, str]) -> str:
    """Return what it means that the server ends the connection, in this way or without a word."""
    reason = (error.reason or "" if error else "").lower().replace("_", " ")
    alert = reason.partition("alert ")[2]
    if alert and not any(word in alert for word in ("certificate", "unknown ca", "access denied")):
        return f"the TLS handshake failed: {alert}"
    if "certificate_chain" not in files:
        return "the server wants a certificate of the client: --tls-cert"
    return "the server refused the client's certificate" + (f": {alert}" if alert else "")
