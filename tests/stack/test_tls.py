"""Other programs call our services with mutual TLS."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.processes import Service
from tests.stack.programs import TOOLS, run
from tests.support.tls import Authority, Files

LOCAL = "127.0.0.1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files of Service A, and of its caller."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority()
    for owner, name in (("service", LOCAL), ("caller", "caller.example")):
        (folder / owner).mkdir()
        Files(folder / owner, authority, authority.issue(name))
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    """Return Service A, which wants certificates of its callers."""
    files = Files.there(folder / "service")
    options = ("--tls-cert", files.certificate, "--tls-key", files.key, "--tls-client-ca", files.authority)
    with Service("service-a", "--reflection", *map(str, options), OTEL_TRACES_EXPORTER="none") as service:
        yield service


@pytest.fixture
def ours(folder: Path) -> tuple[Path, ...]:
    """Return the files of a caller: the authority's certificate, its own, and its key."""
    files = Files.there(folder / "caller")
    return files.authority, files.certificate, files.key


def test_grpcurl(service: Service, ours: tuple[Path, ...]) -> None:
    """Grpcurl calls a service with `-cacert`, `-cert` and `-key`, and the service's line says who called."""
    authority, certificate, key = ours
    echo = ("-d", '{"msg": "hello"}', service.address, "echo.v1.EchoService/Echo")
    answer = run("grpcurl", "-cacert", authority, "-cert", certificate, "-key", key, *echo)

    assert '"echo": "hello"' in answer
    assert service.stdout.wait_for("endpoint=/echo", "peer_identity=caller.example")


def test_grpcurl_without_a_certificate(service: Service, ours: tuple[Path, ...]) -> None:
    """Without a certificate it gets nothing."""
    command: list[str | Path] = [TOOLS / "grpcurl", "-max-time", "5", "-cacert", ours[0], service.address, "list"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)

    assert (True, "") == (done.returncode != 0, done.stdout)


def test_health_probe(service: Service, ours: tuple[Path, ...]) -> None:
    """The health probe gets SERVING with a certificate."""
    authority, certificate, key = ours
    options = {"addr": service.address, "tls-ca-cert": authority, "tls-client-cert": certificate, "tls-client-key": key}

    run("grpc-health-probe", "-tls", *(f"-{name}={value}" for name, value in options.items()))
