"""A channel whose certificates change: calls go on, and those made later are made with the new ones."""

import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from observability import Certificates
from programs import renewed_channel
from programs.renewed_channel import RenewedChannel
from tests.support.rpc import ARITIES, RESPONSES, STREAMS, method, requests, serving
from tests.support.tls import Authority, Files

PATIENCE = 20.0  # seconds


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewed_channel, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(renewed_channel, "WATCHED_SECONDS", 0.25)


def caller(context: grpc.ServicerContext) -> bytes:
    """Return the name in the caller's certificate."""
    names: Any = context.peer_identities()
    return bytes(names[0])


BEHAVIORS: dict[str, Any] = {
    "unary": lambda _request, context: caller(context),
    "client_stream": lambda requests, context: next(caller(context) for _ in requests),
    "server_stream": lambda _request, context: iter([caller(context)] * 2),
    "bidi_stream": lambda requests, context: (caller(context) for _ in requests),
}


class Side:
    """Certificates in files of a folder: those of a server, or of its caller."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    def have(self, authority: Authority, *names: str) -> None:
        """Have a certificate for these names by this authority, and trust it."""
        Files(self._folder, authority, authority.issue(*names))

    @property
    def certificates(self) -> Certificates:
        """What is in the files."""
        return Certificates(
            certificate_chain=self._folder / "server.pem",
            private_key=self._folder / "server.key",
            root_certificates=self._folder / "ca.pem",
        )


@contextmanager
def connected(server: Side, client: Side) -> Iterator[grpc.Channel]:
    """Serve with mutual TLS; gives a channel that is renewed."""
    certificates = client.certificates
    with (
        serving(credentials=server.certificates.server_credentials(), **BEHAVIORS) as address,
        RenewedChannel(
            lambda: grpc.secure_channel(address, certificates.channel_credentials()), certificates=certificates
        ) as channel,
    ):
        yield channel


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Side, Side]:
    """Give a server and a client that trust each other."""
    authority = Authority()
    server, client = Side(tmp_path / "server"), Side(tmp_path / "client")
    server.have(authority, "127.0.0.1")
    client.have(authority, "before")
    return server, client


def until(call: Any, name: bytes) -> list[bytes]:
    """Make calls until the server knows their caller by this name; return what it knew them by."""
    deadline = time.monotonic() + PATIENCE
    known = [call(b"a", timeout=10)]
    while known[-1] != name:
        assert time.monotonic() < deadline, known[-1]
        known.append(call(b"a", timeout=10))
    return known


def test_every_arity(sides: tuple[Side, Side]) -> None:
    """A callable of any arity makes its calls with the new certificate, though even the authority is another."""
    server, client = sides
    with connected(server, client) as channel:
        callables = {arity: method(channel, arity) for arity in ARITIES}
        before = {arity: known_by(call, arity) for arity, call in callables.items()}
        authority = Authority()
        server.have(authority, "127.0.0.1")
        client.have(authority, "after")
        until(callables["unary"], b"after")
        after = {arity: known_by(call, arity) for arity, call in callables.items()}

    assert {arity: [b"before"] * len(RESPONSES[arity]) for arity in ARITIES} == before
    assert {arity: [b"after"] * len(RESPONSES[arity]) for arity in ARITIES} == after


def known_by(call: Any, arity: str) -> list[bytes]:
    """Make a call; return what the server answers, which is the name by which it knows the caller."""
    answer = call(requests(arity), timeout=10)
    return [*answer] if arity in STREAMS else [answer]


def test_no_call_fails(sides: tuple[Side, Side]) -> None:
    """While the channel is renewed calls of all kinds succeed, and are made by the one certificate or the other."""
    server, client = sides
    with connected(server, client) as channel:
        unary = method(channel, "unary")
        ways = [
            unary,
            lambda request, timeout: unary.with_call(request, timeout=timeout)[0],
            lambda request, timeout: unary.future(request, timeout=timeout).result(),
        ]
        known = [unary(b"a", timeout=10)]
        for number, call in enumerate(ways):
            authority = Authority()
            server.have(authority, "127.0.0.1")
            client.have(authority, f"after-{number}")
            known += until(call, f"after-{number}".encode())

    assert {b"before", b"after-0", b"after-1", b"after-2"} == {*known}


def test_stream_that_goes_on(sides: tuple[Side, Side]) -> None:
    """A stream that was begun before goes on over its connection, to its end."""
    server, client = sides
    messages: queue.Queue[bytes | None] = queue.Queue()
    messages.put(b"a")
    with connected(server, client) as channel:
        stream = method(channel, "bidi_stream")(iter(messages.get, None), timeout=PATIENCE)
        names = [next(stream)]
        authority = Authority()
        server.have(authority, "127.0.0.1")
        client.have(authority, "after")
        until(method(channel, "unary"), b"after")
        messages.put(b"a")
        messages.put(None)
        names += stream

    assert [b"before"] * 2 == names
    assert grpc.StatusCode.OK is stream.code()


def test_certificates_that_do_not_match_the_servers(sides: tuple[Side, Side], caplog: pytest.LogCaptureFixture) -> None:
    """As long as server and client do not agree on the new certificates, calls are made by the connection there is."""
    server, client = sides
    caplog.set_level("INFO", "observability")
    with connected(server, client) as channel:
        call = method(channel, "unary")
        known = [call(b"a", timeout=10)]
        authority = Authority()
        client.have(authority, "after")
        deadline = time.monotonic() + PATIENCE
        while "certificates read anew" not in caplog.messages:
            known.append(call(b"a", timeout=10))
            assert time.monotonic() < deadline
        known += [call(b"a", timeout=10) for _ in range(50)]
        assert {b"before"} == {*known}
        server.have(authority, "127.0.0.1")
        known += until(call, b"after")

    assert {b"before", b"after"} == {*known}


def test_closed_channel(sides: tuple[Side, Side]) -> None:
    """A closed channel makes no call, and is renewed no more."""
    with connected(*sides) as channel:
        call = method(channel, "unary")
        channel.close()
        with pytest.raises(ValueError, match="closed channel"):
            call(b"a")
