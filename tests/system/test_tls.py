"""The programs with TLS: who is who, what is refused and why, and what their options need."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from client.lines import fields
from tests.support.process import Service
from tests.support.tls import Authority, Files
from tests.system.conftest import System, run_client
from tests.system.test_settings import PROGRAMS, start

AUTHORITY, OTHER = Authority(), Authority()
NAMES = {"service-a": ["service-a", "127.0.0.1"], "service-b": ["service-b", "127.0.0.1"], "client": ["client"]}


@dataclass(frozen=True)
class Encrypted:
    """Both services with mutual TLS, each with its own certificate, and the folder of all files."""

    a: Service
    b: Service
    folder: Path

    def files(self, owner: str) -> Files:
        """Return the files of a service, or of the client."""
        return Files.there(self.folder / owner)

    def client(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the client with its certificate, but for what the variables say."""
        files = self.files("client")
        return run_client(
            *arguments,
            **{
                "OTEL_TRACES_EXPORTER": "none",
                "SERVICE_A_ADDRESS": self.a.address,
                "SERVICE_B_ADDRESS": self.b.address,
                "CLIENT_TLS_CA": str(files.authority),
                "CLIENT_TLS_CERT": str(files.certificate),
                "CLIENT_TLS_KEY": str(files.key),
                **variables,
            },
        )


def server_options(files: Files, *, mutual: bool = True) -> list[str]:
    """Return the options of a server with these files."""
    options = ["--tls-cert", str(files.certificate), "--tls-key", str(files.key)]
    return [*options, "--tls-client-ca", str(files.authority)] if mutual else options


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    """Give both services with mutual TLS."""
    folder = tmp_path_factory.mktemp("certificates")
    for owner, names in NAMES.items():
        (folder / owner).mkdir()
        Files(folder / owner, AUTHORITY, AUTHORITY.issue(*names))
    (folder / "stranger").mkdir()
    Files(folder / "stranger", OTHER, OTHER.issue("client"))
    of_a, of_b = Files.there(folder / "service-a"), Files.there(folder / "service-b")
    with (
        Service("service-a", *server_options(of_a), OTEL_TRACES_EXPORTER="none") as a,
        Service(
            "service-b",
            *server_options(of_b),
            *("--tls-ca", str(of_b.authority)),
            OTEL_TRACES_EXPORTER="none",
            SERVICE_A_ADDRESS=a.address,
        ) as b,
    ):
        yield Encrypted(a, b, folder)


def test_who_called(encrypted: Encrypted) -> None:
    """Each service knows its caller by the certificate that it has shown, and its line says so."""
    result = encrypted.client("call-echo", "hello")
    lines = [
        fields(service.stdout.wait_for("kind=server", "code=OK", f"endpoint={endpoint}")[0])
        for service, endpoint in ((encrypted.b, "/call-echo"), (encrypted.a, "/echo"))
    ]

    assert ({"service_b": "ok", "service_a": {"echo": "hello"}}, "", 0) == (
        json.loads(result.stdout),
        result.stderr,
        result.returncode,
    )
    assert ["client", "service-b,127.0.0.1"] == [line["peer_identity"] for line in lines]
    assert not [line for service in (encrypted.a, encrypted.b) for line in service.stdout.lines("without TLS")]


REFUSALS: dict[str, tuple[dict[str, str], str]] = {
    "an authority that the server's certificate is not of": (
        {"CLIENT_TLS_CA": "stranger/ca.pem"},
        "the server's certificate was refused: unable to get local issuer certificate",
    ),
    "another name": (
        {"CLIENT_TLS_SERVER_NAME": "service-c"},
        "the server's certificate was refused: Hostname mismatch, certificate is not valid for 'service-c'",
    ),
    "no certificate": (
        {"CLIENT_TLS_CERT": "", "CLIENT_TLS_KEY": ""},
        "the server wants a certificate of the client: --tls-cert",
    ),
    "a certificate of another authority": (
        {"CLIENT_TLS_CERT": "stranger/server.pem", "CLIENT_TLS_KEY": "stranger/server.key"},
        "the server refused the client's certificate",
    ),
    "plain text": (
        {"CLIENT_TLS_CA": "", "CLIENT_TLS_CERT": "", "CLIENT_TLS_KEY": ""},
        "the server wants TLS: --tls-ca",
    ),
}


@pytest.mark.parametrize("command", ["health-a", "call-echo"])
@pytest.mark.parametrize(("variables", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(encrypted: Encrypted, command: str, variables: dict[str, str], reason: str) -> None:
    """A client that the server refuses, or that refuses the server, gets UNAVAILABLE and is given the reason."""
    found = {name: str(encrypted.folder / value) if "/" in value else value for name, value in variables.items()}
    result = encrypted.client(command, *(["hello"] if command == "call-echo" else []), **found)
    service = "service_a" if command == "health-a" else "service_b"

    assert 1 == result.returncode
    assert {service: "unavailable", "error": f"StatusCode.UNAVAILABLE: {reason}"} == json.loads(result.stdout)


def test_tls_against_plain_text(encrypted: Encrypted, system: System) -> None:
    """A client with TLS is given the reason when the server has none."""
    result = encrypted.client("health-a", SERVICE_A_ADDRESS=system.a.address)

    assert {"service_a": "unavailable", "error": "StatusCode.UNAVAILABLE: the server has no TLS"} == json.loads(
        result.stdout
    )


def test_nobody_there(encrypted: Encrypted) -> None:
    """Where nobody listens TLS is not to blame."""
    result = encrypted.client("health-a", SERVICE_A_ADDRESS="127.0.0.1:1")

    assert {
        "service_a": "unavailable",
        "error": "StatusCode.UNAVAILABLE: failed to connect to all addresses",
    } == json.loads(result.stdout)


def test_server_name(encrypted: Encrypted) -> None:
    """A server whose certificate is for another name than its address is called by that name."""
    result = encrypted.client("echo", "hello", "--tls-server-name", "service-a")

    assert {"echo": "hello"} == json.loads(result.stdout)


def test_relay_to_another(encrypted: Encrypted) -> None:
    """A Service B that does not trust Service A's certificate is up, and its caller learns that A is not."""
    of_b, stranger = encrypted.files("service-b"), encrypted.files("stranger")
    variables = {"OTEL_TRACES_EXPORTER": "none", "SERVICE_A_ADDRESS": encrypted.a.address}
    with Service(
        "service-b", *server_options(of_b, mutual=False), "--tls-ca", str(stranger.authority), **variables
    ) as b:
        result = encrypted.client("call-echo", "hello", SERVICE_B_ADDRESS=b.address)
        [line] = b.stdout.wait_for("kind=client", "endpoint=/echo")

    assert {
        "service_b": "ok",
        "service_a": "unavailable",
        "error": "StatusCode.UNAVAILABLE: failed to connect to all addresses",
    } == json.loads(result.stdout)
    assert "CERTIFICATE_VERIFY_FAILED" in fields(line)["error"]


SERVICES = ["service-a", "service-b"]
CLIENTS = ["health-a", "health-b", "load"]


def refused(program: str, *arguments: str) -> str:
    """Run a program that does not get far; return the line that says why."""
    with pytest.raises(click.UsageError) as caught:
        PROGRAMS[program].main(list(arguments), program, standalone_mode=False)
    return caught.value.format_message()


@pytest.mark.parametrize("program", [*SERVICES, *CLIENTS])
@pytest.mark.parametrize(("given", "missing"), [("--tls-cert", "--tls-key"), ("--tls-key", "--tls-cert")])
def test_half_a_pair(tmp_path: Path, program: str, given: str, missing: str) -> None:
    """A certificate is not used without its key, nor a key without its certificate."""
    files = Files(tmp_path, AUTHORITY)
    path = str(files.certificate if given == "--tls-cert" else files.key)
    authority = ["--tls-ca", str(files.authority)] if program in CLIENTS else []

    assert f"{path!r} is not used without {missing}" in refused(program, *authority, given, path)
    assert f"'{given}' (env var: '" in refused(program, *authority, given, path)


@pytest.mark.parametrize("program", CLIENTS)
@pytest.mark.parametrize("given", ["--tls-cert", "--tls-server-name"])
def test_client_without_an_authority(tmp_path: Path, program: str, given: str) -> None:
    """A client's other options are not used without the authority that it trusts."""
    files = Files(tmp_path, AUTHORITY)
    value = str(files.certificate) if given == "--tls-cert" else "service-a"
    rest = ["--tls-key", str(files.key)] if given == "--tls-cert" else []
    text = refused(program, given, value, *rest)

    assert f"'{given}' (env var: 'CLIENT_" in text
    assert f"{value!r} is not used without --tls-ca" in text


@pytest.mark.parametrize("program", SERVICES)
def test_authority_without_a_certificate(tmp_path: Path, program: str) -> None:
    """A server does not ask callers for certificates without one of its own."""
    path = str(Files(tmp_path, AUTHORITY).authority)

    assert f"{path!r} is not used without --tls-cert" in refused(program, "--tls-client-ca", path)


def test_name_without_an_authority() -> None:
    """Service B does not look for a name in Service A's certificate where it calls A in plain text."""
    assert "'service-a' is not used without --tls-ca" in refused("service-b", "--tls-server-name", "service-a")


@pytest.mark.parametrize("program", [*SERVICES, "health-a"])
def test_files_that_do_not_do(tmp_path: Path, program: str) -> None:
    """Files that are no pair stop the start with one line and exit status 2, and nothing secret is printed."""
    files = Files(tmp_path, AUTHORITY)
    key = AUTHORITY.issue("localhost").key
    files.key.write_bytes(key)
    options = [] if program in SERVICES else ["--tls-ca", str(files.authority)]
    result = start(program, *options, "--tls-cert", str(files.certificate), "--tls-key", str(files.key))

    assert ("", 2) == (result.stdout, result.returncode)
    [line] = result.stderr.splitlines()
    assert "Invalid value for '--tls-key' (env var: '" in line
    assert line.endswith(f"{str(files.key)!r} is not the key of the certificate in {str(files.certificate)!r}")
    assert key.decode().splitlines()[1] not in line


@pytest.mark.parametrize("program", SERVICES)
def test_warnings_beyond_loopback(program: str) -> None:
    """A service that is open to others without TLS warns once of its calls, and once of its /metrics."""
    everywhere = "0.0.0.0"  # noqa: S104 - what is warned of
    variables = {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_PROMETHEUS_HOST": everywhere}
    with Service(program, "--host", everywhere, **variables) as service:
        expected = [service.metrics_url.removeprefix("http://").removesuffix("/metrics"), service.address]
        warnings = [fields(line) for line in service.stdout.lines("level=warning", "without TLS")]

    assert expected == [line["address"] for line in warnings]
    assert ["/metrics without TLS", "calls without TLS"] == [line["event"].partition(",")[0] for line in warnings]
