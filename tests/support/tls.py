"""Certificates: an authority, and what it has issued to a server on this machine and to its callers."""

from typing import NamedTuple

import grpc
import trustme


class Pair(NamedTuple):
    """A private key and the chain of its certificate, in PEM."""

    key: bytes
    certificate: bytes


class Authority:
    """An authority; `certificate` is its own, in PEM."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self.certificate = self._authority.cert_pem.bytes()

    def issue(self, *names: str, common_name: str | None = None) -> Pair:
        """Issue a certificate for these names: hosts, addresses, e-mail addresses or a SPIFFE URI."""
        issued = self._authority.issue_cert(*names, common_name=common_name)
        return Pair(issued.private_key_pem.bytes(), b"".join(pem.bytes() for pem in issued.cert_chain_pems))

    def server(self, *, wants_certificate: bool = False) -> grpc.ServerCredentials:
        """Return credentials of a server on this machine, whose callers may need certificates of this authority."""
        pair = self.issue("127.0.0.1", "localhost")
        return grpc.ssl_server_credentials([pair], self.certificate if wants_certificate else None, wants_certificate)

    def client(self, pair: Pair | None = None) -> grpc.ChannelCredentials:
        """Return credentials of a caller that trusts this authority, and shows this certificate if it has one."""
        return grpc.ssl_channel_credentials(self.certificate, *(pair or ()))
