"""Why two programs do not agree on TLS, by every kind of server."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from programs.handshake import failure_of_handshake
from programs.tls import tls_files
from tests.support.rpc import ECHOES, serving
from tests.support.tls import Authority, Files, Pair

AUTHORITY, OTHER = Authority(), Authority()
SERVER = AUTHORITY.issue("127.0.0.1")


def failure(folder: Path, address: str, pair: Pair | None = None) -> str | None:
    """Return why a client fails that trusts the authority, and shows this certificate if it has one."""
    files = Files(folder, AUTHORITY, pair)
    certificate, key = (str(files.certificate), str(files.key)) if pair else (None, None)
    return failure_of_handshake(address, tls_files(certificate, key, str(files.authority)), None)


def of_grpc(pair: Pair, *, mutual: bool = False) -> grpc.ServerCredentials:
    """Return the credentials of a server of grpc's."""
    return grpc.ssl_server_credentials([pair], AUTHORITY.certificate if mutual else None, mutual)


@contextlib.contextmanager
def other_server(folder: Path, version: ssl.TLSVersion) -> Iterator[str]:
    """Serve mutual TLS of this version, as a server does that says what it refuses; gives the address."""
    files = Files(folder, AUTHORITY, SERVER)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection, context.wrap_socket(connection, server_side=True) as encrypted:
                    encrypted.sendall(b"settings")
                    encrypted.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join(10)


@pytest.mark.parametrize(
    ("pair", "mutual", "expected"),
    [
        (None, False, None),
        (AUTHORITY.issue("client"), True, None),
        (None, True, "the server wants a certificate of the client: --tls-cert"),
        (OTHER.issue("client"), True, "the server refused the client's certificate"),
        (AUTHORITY.issue("client", expired=True), True, "the server refused the client's certificate"),
    ],
    ids=["TLS", "mutual TLS", "no certificate", "another authority's", "expired"],
)
def test_server_of_grpc(tmp_path: Path, pair: Pair | None, mutual: bool, expected: str | None) -> None:  # noqa: FBT001 - of a case
    """What grpc's server refuses is seen, though it says nothing of it."""
    with serving(credentials=of_grpc(SERVER, mutual=mutual), unary=ECHOES["unary"]) as address:
        assert expected == failure(tmp_path, address, pair)


def test_expired_certificate_of_a_server(tmp_path: Path) -> None:
    """A server's certificate that has expired is refused, and that is why."""
    expired = of_grpc(AUTHORITY.issue("127.0.0.1", expired=True))
    with serving(credentials=expired, unary=ECHOES["unary"]) as address:
        assert "the server's certificate was refused: certificate has expired" == failure(tmp_path, address)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (AUTHORITY.issue("client"), None),
        (OTHER.issue("client"), "the server refused the client's certificate: unknown ca"),
    ],
    ids=["good", "another authority's"],
)
def test_server_that_says_why(tmp_path: Path, version: ssl.TLSVersion, pair: Pair, expected: str | None) -> None:
    """What another server says of a certificate that it refuses is handed on."""
    (tmp_path / "server").mkdir()
    with other_server(tmp_path / "server", version) as address:
        assert expected == failure(tmp_path, address, pair)


def test_server_that_wants_a_certificate(tmp_path: Path) -> None:
    """So is what it says where there is none."""
    (tmp_path / "server").mkdir()
    with other_server(tmp_path / "server", ssl.TLSVersion.TLSv1_3) as address:
        assert "the server wants a certificate of the client: --tls-cert" == failure(tmp_path, address)


@pytest.mark.parametrize("mutual", [False, True])
def test_plain_text_against_tls(*, mutual: bool) -> None:
    """A client in plain text is given what the server wants."""
    with serving(credentials=of_grpc(SERVER, mutual=mutual), unary=ECHOES["unary"]) as address:
        assert "the server wants TLS: --tls-ca" == failure_of_handshake(address, {}, None)


def test_tls_against_plain_text(tmp_path: Path) -> None:
    """A client with TLS is given what the server has not, and one without is at no fault."""
    with serving(unary=ECHOES["unary"]) as address:
        assert "the server has no TLS" == failure(tmp_path, address)
        assert failure_of_handshake(address, {}, None) is None


def test_nobody_there(tmp_path: Path) -> None:
    """Where nobody answers, or one who hangs up, there is nothing to say."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"

        def hang_up() -> None:
            listening.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        assert failure_of_handshake(address, {}, None) is None
        thread.join(10)
    assert failure(tmp_path, address) is None
