"""Certificates in files that are read anew when they change: for gRPC's servers and channels, and for /metrics."""

from __future__ import annotations

import logging
import ssl
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

import grpc

if TYPE_CHECKING:
    import os

Role: TypeAlias = Literal["certificate_chain", "private_key", "root_certificates"]
_READABLE: Final = "a file that can be read"
_MISMATCHES: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH")

_logger = logging.getLogger("observability")


class CertificateError(ValueError):
    """
    A file cannot be used for TLS; the text is one line that names it, and what it should be.

    `role` is what it was to be: certificate_chain, private_key or root_certificates; `path` is its name, and `allowed`
    what would do, to follow `is not`.
    """

    def __init__(self, role: Role, path: Path, allowed: str) -> None:
        super().__init__(f"{str(path)!r} is not {allowed}")
        self.role = role
        self.path = path
        self.allowed = allowed


class Pems(NamedTuple):
    """What the files hold, each None where there is none, and a TLS server made of it."""

    certificate_chain: bytes | None
    private_key: bytes | None
    root_certificates: bytes | None
    context: ssl.SSLContext


class Certificates:
    """
    A certificate chain with its private key, and the root certificates that a peer's has to come from, in PEM files.

    A server needs the first two, a channel the last; with all three either has mutual TLS. Files that have changed are
    read anew when the next connection, or channel, needs them. Such that are missing, half-written or no pair leave in
    use what was read before, and one warning says so for each reason. Raises CertificateError for files that are so
    from the start, and ValueError for a certificate chain without its key, or a key without.
    """

    def __init__(
        self,
        *,
        certificate_chain: str | os.PathLike[str] | None = None,
        private_key: str | os.PathLike[str] | None = None,
        root_certificates: str | os.PathLike[str] | None = None,
    ) -> None:
        if (certificate_chain is None) is not (private_key is None):
            raise ValueError("a certificate chain needs its private key, and a key its certificate chain")
        given: dict[Role, str | os.PathLike[str] | None] = {
            "certificate_chain": certificate_chain,
            "private_key": private_key,
            "root_certificates": root_certificates,
        }
        self._paths = {role: Path(path) for role, path in given.items() if path is not None}
        self._looking = threading.Lock()
        self._reason: str | None = None  # why what the files hold now is not used
        self._versions = self._found()
        self._pems = _read(self._paths)

    def current(self) -> Pems:
        """Return what the files hold, or held when they could last be used."""
        if self._looking.acquire(blocking=False):  # another thread that is at it will do
            try:
                self._look()
            finally:
                self._looking.release()
        return self._pems

    def _look(self) -> None:
        versions = self._found()
        if versions == self._versions:
            return
        try:
            pems = _read(self._paths)
        except CertificateError as error:
            if (reason := str(error)) != self._reason:
                self._reason = reason
                _logger.warning("changed certificates are not used, those before are", extra={"reason": reason})
            return
        if versions == self._found():  # else somebody is writing them
            self._versions, self._pems, self._reason = versions, pems, None
            _logger.info("certificates read anew", extra={"files": ", ".join(map(str, self._paths.values()))})

    def _found(self) -> list[tuple[int, ...] | None]:
        """Return what tells one version of each file from another; None for one that is not there."""
        found: list[tuple[int, ...] | None] = []
        for path in self._paths.values():
            try:
                stat = path.stat()
            except OSError:
                found.append(None)
            else:
                found.append((stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return found

    def server_credentials(self) -> grpc.ServerCredentials:
        """
        Return credentials of a gRPC server, sync or asyncio, which takes new certificates for new connections.

        With root certificates every caller has to show a certificate that comes from one of them.
        """
        used = self.current()

        def renewed() -> Any:
            nonlocal used
            pems = self.current()
            if pems is used:
                return None
            used = pems
            return _configuration(pems)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(used), renewed, require_client_authentication=used.root_certificates is not None
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """
        Return credentials of a gRPC channel by what the files hold now: a channel keeps those that it was made with.

        Without root certificates they are those that gRPC comes with.
        """
        pems = self.current()
        return grpc.ssl_channel_credentials(pems.root_certificates, pems.private_key, pems.certificate_chain)


def _configuration(pems: Pems) -> Any:
    pair: Any = (pems.private_key, pems.certificate_chain)
    return grpc.ssl_server_certificate_configuration([pair], pems.root_certificates)


def _read(paths: dict[Role, Path]) -> Pems:
    """Read the files, and have OpenSSL look at them; raises CertificateError for the first that will not do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    pems = {role: _bytes(role, path) for role, path in paths.items()}
    if "certificate_chain" in paths:
        _load_pair(context, paths["certificate_chain"], paths["private_key"], pems["private_key"])
    if "root_certificates" in paths:
        _load_roots(context, "root_certificates", paths["root_certificates"])
        context.verify_mode = ssl.CERT_REQUIRED
    return Pems(pems.get("certificate_chain"), pems.get("private_key"), pems.get("root_certificates"), context)


def _bytes(role: Role, path: Path) -> bytes:
    try:
        if path.is_file():  # opening what is none might wait for its writer
            return path.read_bytes()
    except OSError:
        pass
    raise CertificateError(role, path, _READABLE)


def _load_roots(context: ssl.SSLContext, role: Role, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise CertificateError(role, path, "a file of certificates in PEM") from error


def _load_pair(context: ssl.SSLContext, chain: Path, key: Path, pem: bytes) -> None:
    _load_roots(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "certificate_chain", chain)
    try:
        context.load_cert_chain(chain, key, password="")  # nobody is there to be asked for one
    except OSError as error:
        reason = getattr(error, "reason", None) or ""
        if reason in _MISMATCHES:
            raise CertificateError("private_key", key, f"the key of the certificate in {str(chain)!r}") from error
        if b"ENCRYPTED" in pem:
            raise CertificateError("private_key", key, "a private key without a passphrase") from error
        if reason.startswith(("EE_", "CA_")):  # too small a key, too weak a hash
            raise CertificateError("certificate_chain", chain, f"strong enough for OpenSSL ({reason})") from error
        raise CertificateError("private_key", key, "a private key in PEM") from error
