"""Certificates: an authority, and what it has issued to a server on this machine and to its callers."""

import datetime as dt
import socket
import ssl
from pathlib import Path
from typing import NamedTuple, Self

import grpc
import trustme

from observability.certificates import Role


class Pair(NamedTuple):
    """A private key and the chain of its certificate, in PEM."""

    key: bytes
    certificate: bytes


class Authority:
    """An authority; `certificate` is its own, in PEM."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self.certificate = self._authority.cert_pem.bytes()

    def issue(self, *names: str, common_name: str | None = None, expired: bool = False) -> Pair:
        """Issue a certificate for these names: hosts, addresses, e-mail addresses or a SPIFFE URI."""
        last = dt.datetime(2001 if expired else 2038, 1, 1, tzinfo=dt.UTC)
        issued = self._authority.issue_cert(*names, common_name=common_name, not_after=last)
        return Pair(issued.private_key_pem.bytes(), b"".join(pem.bytes() for pem in issued.cert_chain_pems))

    def server(self, *, wants_certificate: bool = False) -> grpc.ServerCredentials:
        """Return credentials of a server on this machine, whose callers may need certificates of this authority."""
        pair = self.issue("127.0.0.1", "localhost")
        return grpc.ssl_server_credentials([pair], self.certificate if wants_certificate else None, wants_certificate)

    def client(self, pair: Pair | None = None) -> grpc.ChannelCredentials:
        """Return credentials of a caller that trusts this authority, and shows this certificate if it has one."""
        return grpc.ssl_channel_credentials(self.certificate, *(pair or ()))


class Files:
    """A certificate chain, its key and the certificate of an authority, in files of this folder."""

    def __init__(self, folder: Path, authority: Authority, pair: Pair | None = None) -> None:
        self._name(folder)
        self.put(pair or authority.issue("127.0.0.1", "localhost"), authority)

    @classmethod
    def there(cls, folder: Path) -> Self:
        """Return the files that are in this folder already."""
        files = cls.__new__(cls)
        files._name(folder)
        return files

    def _name(self, folder: Path) -> None:
        self.certificate, self.key, self.authority = folder / "server.pem", folder / "server.key", folder / "ca.pem"

    def path(self, role: Role) -> Path:
        """Return the file that has this role."""
        return {
            "certificate_chain": self.certificate,
            "private_key": self.key,
            "root_certificates": self.authority,
        }[role]

    def put(self, pair: Pair, authority: Authority) -> None:
        """Write these in place of what there is."""
        self.certificate.write_bytes(pair.certificate)
        self.key.write_bytes(pair.key)
        self.authority.write_bytes(authority.certificate)


def shown_certificate(address: str) -> str:
    """Connect with TLS, and return the certificate that the server shows, in PEM; nobody checks whose it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as connection, context.wrap_socket(connection) as encrypted:
        return ssl.DER_cert_to_PEM_cert(encrypted.getpeercert(binary_form=True) or b"")
