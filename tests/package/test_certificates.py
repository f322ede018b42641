"""Certificates in files: what may be used, and how servers and channels of both stacks come by new ones."""

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from observability import CertificateError, Certificates
from observability.certificates import Role
from tests.package.conftest import Log
from tests.support.rpc import AIO_ECHOES, ECHOES, aio_serving, method, serving
from tests.support.tls import Authority, Files, Pair, shown_certificate

AUTHORITY = Authority()
STACKS = pytest.mark.parametrize("stack", ["sync", "aio"])
NOT_USED = "changed certificates are not used, those before are"
ROLES: tuple[Role, ...] = ("certificate_chain", "private_key", "root_certificates")
READ_ANEW = "certificates read anew"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Give files of a server's certificate."""
    return Files(tmp_path, AUTHORITY)


def of(files: Files) -> Certificates:
    """Return certificates of these files."""
    return Certificates(
        certificate_chain=files.certificate, private_key=files.key, root_certificates=str(files.authority)
    )


def encrypted(pair: Pair) -> bytes:
    """Return the key with a passphrase around it."""
    key = load_pem_private_key(pair.key, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"s3cr3t"))


def make(other: Callable[[Path], None], path: Path) -> None:
    """Put something else in place of a file."""
    path.unlink()
    other(path)


# How a file may be of no use, with what the error says that it is to be.
SPOILED: dict[str, tuple[Callable[[Files], Any], Role, str]] = {
    "no certificate": (lambda files: files.certificate.unlink(), "certificate_chain", "a file that can be read"),
    "a folder": (lambda files: make(Path.mkdir, files.certificate), "certificate_chain", "a file that can be read"),
    "a pipe": (lambda files: make(os.mkfifo, files.authority), "root_certificates", "a file that can be read"),
    "no key": (lambda files: files.key.unlink(), "private_key", "a file that can be read"),
    "half a certificate": (
        lambda files: files.certificate.write_bytes(files.certificate.read_bytes()[:300]),
        "certificate_chain",
        "a file of certificates in PEM",
    ),
    "half a key": (
        lambda files: files.key.write_bytes(files.key.read_bytes()[:100]),
        "private_key",
        "a private key in PEM",
    ),
    "an empty authority": (
        lambda files: files.authority.write_bytes(b""),
        "root_certificates",
        "a file of certificates in PEM",
    ),
    "another's key": (
        lambda files: files.key.write_bytes(AUTHORITY.issue("localhost").key),
        "private_key",
        "the key of the certificate in ",
    ),
    "a key with a passphrase": (
        lambda files: files.key.write_bytes(encrypted(AUTHORITY.issue("localhost"))),
        "private_key",
        "a private key without a passphrase",
    ),
}
EACH_SPOILED = pytest.mark.parametrize(("spoil", "role", "allowed"), SPOILED.values(), ids=SPOILED)


@EACH_SPOILED
def test_unusable_files_at_the_start(files: Files, spoil: Callable[[Files], Any], role: Role, allowed: str) -> None:
    """What cannot be used is an error of one line that names the file and what it should be."""
    spoil(files)

    with pytest.raises(CertificateError) as caught:
        of(files)
    assert (role, files.path(role)) == (caught.value.role, caught.value.path)
    assert caught.value.allowed.startswith(allowed)
    assert f"{str(caught.value.path)!r} is not {caught.value.allowed}" == str(caught.value)
    assert str(caught.value).isprintable()


@EACH_SPOILED
def test_unusable_files_later(files: Files, log: Log, spoil: Callable[[Files], Any], role: Role, allowed: str) -> None:
    """What was read before stays in use, one warning says why, and what can be used again is used."""
    certificates = of(files)
    before = certificates.current()
    spoil(files)
    meanwhile = [certificates.current() for _ in range(3)]
    [warning] = log.lines(level="warning")
    pair = AUTHORITY.issue("localhost")
    for path in map(files.path, ROLES):
        with contextlib.suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()
    files.put(pair, AUTHORITY)
    after = certificates.current()

    assert [before] * 3 == meanwhile
    assert NOT_USED == warning["event"]
    assert warning["reason"].startswith(f"{str(files.path(role))!r} is not {allowed}")
    assert pair.certificate == after.certificate_chain
    assert [warning] == log.lines(level="warning")
    assert [READ_ANEW] == [line["event"] for line in log.lines(level="info")]
    assert not [secret for secret in pair.key.decode().splitlines()[1:-1] if secret in log.text]


def test_each_reason_is_a_warning(files: Files, log: Log) -> None:
    """Another reason is another warning, and so is the same one after files that could be used."""
    certificates = of(files)
    pair = AUTHORITY.issue("localhost")
    for _ in range(2):
        for key in (b"", AUTHORITY.issue("localhost").key, pair.key):
            files.key.write_bytes(key)
            files.certificate.write_bytes(pair.certificate)
            certificates.current()

    reasons = ["a private key in PEM", "the key of the certificate in "] * 2
    warnings = log.lines(level="warning")
    assert len(reasons) == len(warnings)
    assert all(f" is not {reason}" in line["reason"] for reason, line in zip(reasons, warnings, strict=True))


@pytest.mark.parametrize("name", ["certificate", "key"])
def test_half_written_files(files: Files, log: Log, name: str) -> None:
    """Cut anywhere, the file of a certificate or a key does not count; whole, it does."""
    certificates = of(files)
    before = certificates.current()
    pair = AUTHORITY.issue("localhost")
    files.put(pair, AUTHORITY)
    path: Path = getattr(files, name)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        assert before is certificates.current()
    path.write_bytes(whole)

    assert pair.certificate == certificates.current().certificate_chain
    assert 1 == len(log.lines(level="warning"))


def test_files_behind_a_link(tmp_path: Path) -> None:
    """A link that is turned to another folder, as Kubernetes mounts secrets, brings new files all at once."""
    folders = [tmp_path / "one", tmp_path / "two"]
    pairs = []
    for folder in folders:
        folder.mkdir()
        pairs.append(AUTHORITY.issue("localhost"))
        Files(folder, AUTHORITY, pairs[-1])
    link = tmp_path / "current"
    link.symlink_to(folders[0])
    certificates = Certificates(certificate_chain=link / "server.pem", private_key=link / "server.key")
    before = certificates.current().certificate_chain
    (tmp_path / "next").symlink_to(folders[1])
    (tmp_path / "next").rename(link)

    assert [pair.certificate for pair in pairs] == [before, certificates.current().certificate_chain]


@pytest.mark.parametrize("name", ["certificate_chain", "private_key"])
def test_one_without_the_other(files: Files, name: str) -> None:
    """A certificate chain without its key, or a key without, is an error."""
    with pytest.raises(ValueError, match="needs its"):
        Certificates(**{name: files.certificate})


@contextlib.contextmanager
def served(stack: str, credentials: grpc.ServerCredentials) -> Iterator[str]:
    """Serve a unary method on this stack with these credentials; gives the address."""
    if stack == "sync":
        with serving(unary=ECHOES["unary"], credentials=credentials) as address:
            yield address
        return
    found: list[str] = []
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with aio_serving(unary=AIO_ECHOES["unary"], credentials=credentials) as address:
            found.append(address)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    try:
        assert ready.wait(10)
        yield found[0]
    finally:
        over.set()
        thread.join()


def answer(address: str, credentials: grpc.ChannelCredentials) -> bytes:
    """Make a call with these credentials, and return its answer."""
    with grpc.secure_channel(address, credentials) as channel:
        return bytes(method(channel, "unary")(b"a", timeout=10))


@STACKS
def test_new_certificate_of_a_server(stack: str, files: Files) -> None:
    """A new connection gets the new certificate; one that there is goes on."""
    before = AUTHORITY.issue("127.0.0.1")
    after = AUTHORITY.issue("127.0.0.1")
    files.put(before, AUTHORITY)
    credentials = Certificates(certificate_chain=files.certificate, private_key=files.key).server_credentials()
    with served(stack, credentials) as address, grpc.secure_channel(address, AUTHORITY.client()) as channel:
        answers = [method(channel, "unary")(b"a", timeout=10)]
        shown = [shown_certificate(address)]
        files.put(after, AUTHORITY)
        shown.append(shown_certificate(address))
        answers.append(method(channel, "unary")(b"b", timeout=10))

    assert [before.certificate, after.certificate] == [text.encode() for text in shown]
    assert [b"a", b"b"] == answers


@STACKS
def test_new_authority_of_callers(stack: str, files: Files) -> None:
    """A server that wants certificates takes those of the authority that its file names now, and of no other."""
    other = Authority()
    with served(stack, of(files).server_credentials()) as address:
        assert b"a" == answer(address, AUTHORITY.client(AUTHORITY.issue("caller")))
        files.authority.write_bytes(other.certificate)
        assert b"a" == answer(address, AUTHORITY.client(other.issue("caller")))
        for pair in (None, AUTHORITY.issue("caller")):
            with pytest.raises(grpc.RpcError) as caught:
                answer(address, AUTHORITY.client(pair))
            assert grpc.StatusCode.UNAVAILABLE == caught.value.code()


@STACKS
def test_channel(stack: str, files: Files, tmp_path: Path) -> None:
    """A channel shows the certificate, and trusts the authority, that the files have when it is made."""
    (tmp_path / "client").mkdir()
    client = of(Files(tmp_path / "client", AUTHORITY, AUTHORITY.issue("caller")))
    with served(stack, of(files).server_credentials()) as address:
        before = answer(address, client.channel_credentials())
        other = Authority()
        files.put(other.issue("127.0.0.1"), other)
        Files(tmp_path / "client", other, other.issue("caller"))
        after = answer(address, client.channel_credentials())

    assert b"a" == before == after


@STACKS
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_versions_of_tls(stack: str, files: Files, version: ssl.TLSVersion) -> None:
    """TLS before 1.2 is refused, and 1.2 is not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    pair = Certificates(certificate_chain=files.certificate, private_key=files.key)
    with served(stack, pair.server_credentials()) as address:
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert "TLSv1.2" == negotiated(address, context)
        context.minimum_version = context.maximum_version = version
        with pytest.raises(ssl.SSLError, match=r"EOF|PROTOCOL_VERSION"):
            negotiated(address, context)


def negotiated(address: str, context: ssl.SSLContext) -> str | None:
    """Connect, and return the version of TLS that was agreed on."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as plain, context.wrap_socket(plain) as encrypted:
        return encrypted.version()
