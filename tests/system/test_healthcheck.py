"""The images' health checks ask the service where it listens."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from client.processes import ROOT, environment
from tests.support.ports import free_ports
from tests.support.process import Service
from tests.support.tls import Authority, Files

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
COMMANDS = dict(
    zip("AB", re.findall(r"^HEALTHCHECK [^\n]*\\\n +CMD (python .*)$", DOCKERFILE, re.MULTILINE), strict=True)
)


def health_check(letter: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the health check of a service's image, as a container engine does, with the variables of the container."""
    python = str(Path(sys.executable).parent)
    path = environment().get("PATH", "")
    return subprocess.run(
        ["/bin/sh", "-c", COMMANDS[letter]],
        cwd=ROOT / "deploy",
        env=environment(PATH=f"{python}:{path}", **variables),
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize("letter", ["A", "B"])
@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.2", "::1", "[::1]", ""])  # noqa: S104 - what the image listens on
def test_health_check_follows_the_service(letter: str, host: str) -> None:
    """The health check goes to the host and the port that the variables give to the service."""
    [port] = free_ports(1)
    variables = {f"SERVICE_{letter}_PORT": str(port), f"SERVICE_{letter}_HOST": host}
    with Service(f"service-{letter.lower()}", "--port", str(port), OTEL_TRACES_EXPORTER="none", **variables) as service:
        _ = service.address
        up = health_check(letter, **variables)
    down = health_check(letter, **variables)

    assert ("SERVING\n", "", 0) == (up.stdout, up.stderr, up.returncode)
    assert 1 == down.returncode


@pytest.mark.parametrize(
    ("letter", "names", "mutual"),
    [
        ("A", ["service.example"], False),
        ("A", ["10.0.0.1"], True),
        ("B", ["*.service.example", "10.0.0.1"], True),
        ("B", [], False),
    ],
    ids=["a name", "an address", "any name", "a common name"],
)
def test_health_check_with_tls(tmp_path: Path, letter: str, names: list[str], mutual: bool) -> None:  # noqa: FBT001 - of a case
    """A server with TLS is asked with its own certificate, whatever names that is for, and no other is trusted."""
    authority = Authority()
    files = Files(tmp_path, authority, authority.issue(*names, common_name="service"))
    variables = {
        f"SERVICE_{letter}_TLS_CERT": str(files.certificate),
        f"SERVICE_{letter}_TLS_KEY": str(files.key),
    }
    more = {f"SERVICE_{letter}_TLS_CLIENT_CA": str(files.authority)} if mutual else {}
    with Service(f"service-{letter.lower()}", OTEL_TRACES_EXPORTER="none", **variables, **more) as service:
        port = {f"SERVICE_{letter}_PORT": service.address.rpartition(":")[2]}
        up = health_check(letter, **port, **variables)
        other = tmp_path / "other"
        other.mkdir()
        strange = Files(other, authority, authority.issue(*names, common_name="service"))
        variables = {
            f"SERVICE_{letter}_TLS_CERT": str(strange.certificate),
            f"SERVICE_{letter}_TLS_KEY": str(strange.key),
        }
        not_trusted = health_check(letter, **port, **variables)

    assert ("SERVING\n", "", 0) == (up.stdout, up.stderr, up.returncode)
    assert (1, True) == (not_trusted.returncode, "certificate verify failed" in not_trusted.stdout)


@pytest.mark.parametrize(("letter", "port"), [("A", 8080), ("B", 8081)])
def test_health_check_has_the_defaults_of_the_service(letter: str, port: int) -> None:
    """Without variables the health check goes to the port that the service has without them."""
    unset = {f"SERVICE_{letter}_HOST": "127.0.0.3", f"SERVICE_{letter}_PORT": ""}  # where nobody listens
    result = health_check(letter, **unset)

    assert 1 == result.returncode
    assert f"127.0.0.3:{port}" in result.stdout
