"""`python client demo` shows everything, and leaves nothing behind."""

import re
import subprocess
import sys
from pathlib import Path

import psutil

from client.processes import ROOT, environment


def test_demo(tmp_path: Path) -> None:
    """The demo shows a success and a failure in all their signals, exits with 0 and leaves no process behind."""
    picture = tmp_path / "demo.svg"
    process = subprocess.Popen(
        [sys.executable, "client", "demo", "--svg", str(picture)],
        cwd=ROOT,
        # What steers a person's own services is not the demo's business.
        env=environment(SERVICE_A_PORT="1", OTEL_SDK_DISABLED="true", LOG_LEVEL="critical"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    family: set[psutil.Process] = set()
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        screen = ""
        for line in process.stdout:
            screen += line
            family.update(psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ())
        errors = process.stderr.read()
    success, failure = screen.split(" 2  The same call after Service A was stopped")

    assert ("", 0) == (errors, process.returncode)
    assert not [member for member in family if member.is_running()]
    assert '{"service_b": "ok", "service_a": {"echo": "hello"}}' in success
    assert '"service_a": "unavailable"' in failure
    assert ["client", "└─ service-b", "└─ service-b", "└─ service-a"] == re.findall(r"((?:└─ )?[\w-]+) [→←] ", success)
    assert ["client", "└─ service-b", "└─ service-b"] == re.findall(r"((?:└─ )?[\w-]+) [→←] ", failure)
    assert 4 == len(re.findall(r"^  (?:client|A|B) +\d{4}-", success, re.MULTILINE))
    assert 3 == len(re.findall(r"^  (?:client|A|B) +\d{4}-", failure, re.MULTILINE))
    assert 3 == success.count("_handled_total{") == success.count("_handling_seconds_bucket{")
    assert 2 == failure.count("_handled_total{") == failure.count("_handling_seconds_bucket{")
    assert picture.read_text().startswith("<svg")
