"""Certificates that change under load: no call is lost, and those made afterwards are made with the new ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from client.lines import fields
from client.processes import Service
from programs.tls import Target, tls_files
from tests.faults.conftest import Figure
from tests.faults.good_client import GoodClient
from tests.support.tls import Authority, Files, shown_certificate

RPS = 200
ROTATIONS = 3
LOCAL = "127.0.0.1"
OWNERS = ("service-a", "service-b", "client")
NOT_USED = "changed certificates are not used, those before are"


@dataclass(frozen=True)
class Encrypted:
    """Both services with mutual TLS, and everybody's files."""

    a: Service
    b: Service
    files: dict[str, Files]

    def trust(self, *authorities: Authority) -> None:
        """Let everybody trust these, and no others."""
        for files in self.files.values():
            files.authority.write_bytes(b"".join(authority.certificate for authority in authorities))

    def warnings(self, service: Service) -> list[str]:
        """Return why a service has not used what its files held."""
        return [fields(line)["reason"] for line in service.stdout.lines("level=warning", NOT_USED)]


@pytest.fixture
def old() -> Authority:
    """Give the authority of the first certificates."""
    return Authority()


@pytest.fixture
def encrypted(tmp_path: Path, old: Authority) -> Iterator[Encrypted]:
    """Give both services with mutual TLS; neither waits for a busy machine in vain."""
    files = {}
    for owner in OWNERS:
        (tmp_path / owner).mkdir()
        files[owner] = Files(tmp_path / owner, old, old.issue(owner, LOCAL))

    def options(owner: str) -> list[str]:
        found = files[owner]
        paths = {"--tls-cert": found.certificate, "--tls-key": found.key, "--tls-client-ca": found.authority}
        return [text for flag, path in paths.items() for text in (flag, str(path))]

    # grpc's core writes a line for each of our connections without a certificate.
    variables = {"OTEL_TRACES_EXPORTER": "none", "GRPC_VERBOSITY": "NONE"}
    with (
        Service("service-a", *options("service-a"), **variables) as a,
        Service(
            "service-b",
            *options("service-b"),
            *("--tls-ca", str(files["service-b"].authority), "--service-a", a.address, "--service-a-timeout", "30"),
            **variables,
        ) as b,
    ):
        yield Encrypted(a, b, files)


def test_rotation(encrypted: Encrypted, old: Authority, figure: Figure) -> None:
    """At 200 calls per second new certificates of new authorities, half-written for a while, cost no call."""
    ours = encrypted.files["client"]
    files = tls_files(str(ours.certificate), str(ours.key), str(ours.authority))
    target = Target(encrypted.b.address, files, None)
    services = {"service-a": encrypted.a, "service-b": encrypted.b}
    with GoodClient("B", encrypted.b.address, rps=RPS, timeout=60, open_channel=target.channel) as client:
        client.wait_for(RPS)
        for number in range(ROTATIONS):
            new = Authority()
            encrypted.trust(old, new)
            for owner, service in services.items():
                rotate(encrypted.files[owner], new, f"{owner}-{number}", service)
            pair = new.issue(f"client-{number}")
            ours.key.write_bytes(pair.key)
            ours.certificate.write_bytes(pair.certificate)
            assert encrypted.b.stdout.wait_for(f"peer_identity=client-{number} ", timeout=30)
            assert encrypted.a.stdout.wait_for(f'peer_identity="service-b-{number},{LOCAL}"', timeout=30)
            encrypted.trust(new)
            client.wait_for(RPS)
            old = new
    counts = {name: len(encrypted.warnings(service)) for name, service in services.items()}

    figure(f"{ROTATIONS} rotations of all certificates at {RPS} calls/s", str(client), "100 %")
    assert {"OK": client.codes.total()} == dict(client.codes)
    assert ROTATIONS == counts["service-a"]
    assert ROTATIONS <= counts["service-b"] <= 2 * ROTATIONS  # its channel looks at the files as well


def rotate(files: Files, authority: Authority, name: str, service: Service) -> None:
    """Write a certificate of this authority as slowly as can be: half of it is of no use, and all of it is used."""
    before = shown_certificate(service.address)
    pair = authority.issue(name, LOCAL)
    files.certificate.write_bytes(pair.certificate[:100])
    assert [before] * 3 == [shown_certificate(service.address) for _ in range(3)]
    files.key.write_bytes(pair.key)
    files.certificate.write_bytes(pair.certificate)

    assert pair.certificate.decode() == shown_certificate(service.address)
