"""`python client demo` shows everything, and leaves nothing behind."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from client.processes import ROOT, environment
from tests.support.python import Popen

# What steers a person's own services is not the demo's business, nor is their way to the outer world.
STEERED = {
    "SERVICE_A_PORT": "1",
    "OTEL_SDK_DISABLED": "true",
    "LOG_LEVEL": "critical",
    "http_proxy": "http://127.0.0.1:1",
}


def start_demo(*options: str) -> subprocess.Popen[str]:
    """Start the demo."""
    return Popen(
        [sys.executable, "client", "demo", *options],
        cwd=ROOT,
        env=environment(**STEERED),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("number", [None, signal.SIGINT, signal.SIGTERM], ids=["end", "ctrl-c", "terminated"])
def test_demo_leaves_nothing_behind(number: int | None) -> None:
    """However the demo ends, its services end with it."""
    with start_demo() as process:
        assert process.stdout is not None
        assert any("Service A" in line for line in process.stdout)
        services = psutil.Process(process.pid).children(recursive=True)
        if number:
            process.send_signal(number)
        process.communicate(timeout=60)

    assert len(services) >= 2
    assert [] == [service for service in services if service.is_running()]
    assert (128 + number if number else 0) == process.returncode


def test_demo(tmp_path: Path) -> None:
    """The demo shows a success and a failure in all their signals, and exits with 0."""
    picture = tmp_path / "demo.svg"
    with start_demo("--svg", str(picture)) as process:
        screen, errors = process.communicate(timeout=60)
    success, failure = screen.split(" 2  The same call after Service A was stopped")

    assert ("", 0) == (errors, process.returncode)
    assert "$ python client call-echo hello --verbose\n" in success
    assert "$ python client call-echo hello --verbose\n" in failure
    assert '{"service_b": "ok", "service_a": {"echo": "hello"}}' in success
    assert '"service_a": "unavailable"' in failure
    assert ["client", "└─ service-b", "└─ service-b", "└─ service-a"] == re.findall(r"((?:└─ )?[\w-]+) [→←] ", success)
    assert ["client", "└─ service-b", "└─ service-b"] == re.findall(r"((?:└─ )?[\w-]+) [→←] ", failure)
    assert 4 == len(re.findall(r"^  (?:client|A|B) +\d{4}-", success, re.MULTILINE))
    assert 3 == len(re.findall(r"^  (?:client|A|B) +\d{4}-", failure, re.MULTILINE))
    assert 3 == success.count("_handled_total{") == success.count("_handling_seconds_bucket{")
    assert 2 == failure.count("_handled_total{") == failure.count("_handling_seconds_bucket{")
    assert picture.read_text().startswith("<svg")


def test_demo_with_tls(tmp_path: Path) -> None:
    """With the certificates that `make certs` writes, the demo's log lines say who called."""
    subprocess.run([sys.executable, "tools/certs.py", tmp_path / "certs"], cwd=ROOT, check=True, capture_output=True)
    with start_demo("--certs", str(tmp_path / "certs")) as process:
        screen, errors = process.communicate(timeout=60)
    success, failure = screen.split(" 2  The same call after Service A was stopped")

    assert ("", 0) == (errors, process.returncode)
    assert '{"service_b": "ok", "service_a": {"echo": "hello"}}' in success
    assert '"service_a": "unavailable"' in failure
    assert {"client", '"service-b,localhost'} <= set(re.findall(r'peer_identity=("?[\w,-]+?),?\s', success))


@pytest.mark.parametrize("name", ["no/such/folder/demo.svg", "file/demo.svg", "."])
def test_picture_that_cannot_be_saved(tmp_path: Path, name: str) -> None:
    """A picture that could not be saved is refused at the start, in one line that names the option and the file."""
    (tmp_path / "file").touch()
    picture = str(tmp_path / name)
    with start_demo("--svg", picture) as process:
        screen, errors = process.communicate(timeout=60)

    assert ("", 2) == (screen, process.returncode)
    (line,) = errors.splitlines()
    assert "--svg" in line
    assert f"{picture!r} is not a file that can be written" in line
