"""The tutorial's terminals: their commands are run, and print what it shows. The README's are some of them."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self, cast

import pytest

from client.lines import fields
from client.processes import ROOT, Output, environment
from tests.support.ports import free_ports

NOBODY = "http://127.0.0.1:1"
# curl, which a machine need not have.
CURL = f"""curl() {{ {shlex.quote(sys.executable)} -c 'if True:
    import sys
    from client.web import get
    print(get("http://" + sys.argv[-1]), end="")' "$@"; }}
"""


@dataclass
class Step:
    """A command, and the lines that it prints; without a command, lines of a log."""

    command: str
    output: list[str] = field(default_factory=list)


def sections(document: str) -> dict[str, str]:
    """Return the sections of a document of the project, by their titles."""
    text = (ROOT / document).read_text()
    return dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))


def blocks(section: str, document: str = "docs/tutorial.md") -> list[list[Step]]:
    """Return the steps of each block of code in a section of a document."""
    found = []
    for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", sections(document)[section], re.MULTILINE):
        steps: list[Step] = []
        for line in filter(None, map(str.strip, block.splitlines())):
            if line.startswith("$ "):
                steps.append(Step(line.removeprefix("$ ")))
            elif steps:
                steps[-1].output.append(line)
            else:
                steps.append(Step("", [line]))
        found.append(steps)
    return found


def shape(line: str) -> str:
    """Replace what differs from run to run in a line: ids, times, and ports."""
    line = re.sub(r"\b[0-9a-f]{32}\b", "<trace>", line)
    line = re.sub(r"\b[0-9a-f]{16}\b", "<span>", line)
    line = re.sub(r"http://(localhost:4317|127\.0\.0\.1:1)\b", "<collector>", line)
    line = re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", "<time>", line)
    line = re.sub(r"_ms=\d+(\.\d+)?", "_ms=<number>", line)
    return re.sub(r"127\.0\.0\.1:\d+", "<address>", line)


def assert_same_shape(expected: list[str], actual: list[str]) -> None:
    """Compare lines with the document's, where `…` stands for anything."""
    patterns = [re.escape(shape(line)).replace("…", ".*") for line in expected]
    assert len(expected) == len(actual), actual
    assert [] == [(e, a) for e, p, a in zip(expected, patterns, actual, strict=True) if not re.fullmatch(p, shape(a))]


class Terminals:
    """The reader's three terminals, in a separate folder, on free ports."""

    def __init__(self, folder: Path) -> None:
        for name in ("service-a", "service-b", "client"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.folder = folder
        a, b, metrics_a, metrics_b = free_ports(4)
        self._metrics = {1: metrics_a, 2: metrics_b}
        self._variables = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SERVICE_A_PORT": str(a),
            "SERVICE_B_PORT": str(b),
            "SERVICE_A_ADDRESS": f"127.0.0.1:{a}",
            "SERVICE_B_ADDRESS": f"127.0.0.1:{b}",
            "OTEL_EXPORTER_OTLP_ENDPOINT": NOBODY,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        }
        self._services: dict[int, Any] = {}
        self._status = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for number in list(self._services):
            self.stop(number)

    def start(self, command: str) -> None:
        """Start a service in the terminal that the command's comment names; wait until it listens."""
        number = int(command.partition("# terminal ")[2][0])
        process = subprocess.Popen(
            ["sh", "-c", command],
            cwd=self.folder,
            env=environment(**self._variables, OTEL_EXPORTER_PROMETHEUS_PORT=str(self._metrics[number])),
            stdout=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )
        self._services[number] = process
        assert Output(cast("IO[str]", process.stdout)).wait_for("event=listening")

    def stop(self, number: int) -> None:
        """Type Ctrl-C in a terminal."""
        process = self._services.pop(number)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(10)

    def run(self, command: str) -> list[str]:
        """Run a command in the third terminal; return the lines that it prints."""
        for port, number in (("9464", 1), ("9465", 2)):
            command = command.replace(f"localhost:{port}", f"127.0.0.1:{self._metrics[number]}")
        result = subprocess.run(
            ["sh", "-c", f"{CURL}(exit {self._status}); {command}"],
            cwd=self.folder,
            env=environment(**self._variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=60,
        )
        assert "" == result.stderr
        self._status = result.returncode
        return result.stdout.splitlines()

    def log(self, name: str, text: str, count: int) -> list[str]:
        """Wait for so many lines of a.log or b.log that hold the text; return them."""
        deadline = time.monotonic() + 10
        while True:
            lines = [line for line in (self.folder / name).read_text().splitlines() if text in line]
            if len(lines) >= count or time.monotonic() > deadline:
                return lines
            time.sleep(0.02)


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    """Give three terminals, of which two run the services, started as the tutorial says."""
    with Terminals(tmp_path) as terminals:
        for command in STARTS.values():
            terminals.start(command)
        yield terminals


STARTS = {
    name: step.command
    for step in blocks("Three terminals")[0]
    for name in ("service-a", "service-b")
    if f"cd {name} && python app.py" in step.command
}


def test_three_terminals(terminals: Terminals) -> None:
    """The commands of the three terminals print what the tutorial shows below each."""
    first, grep, curl, warning, streams = blocks("Three terminals")
    (call,) = [step for step in first if step.output]

    assert_same_shape(call.output, terminals.run(call.command))

    (line,) = terminals.log("a.log", " endpoint=", 1)
    terminals.log("b.log", " endpoint=", 2)
    for step in grep:
        trace_id = f"trace_id={fields(line)['trace_id']}"
        assert_same_shape(step.output, terminals.run(re.sub(r"trace_id=\w+", trace_id, step.command)))
    for step in curl:
        assert_same_shape(step.output, terminals.run(step.command))
    assert_same_shape(warning[0].output, terminals.log("a.log", "level=warning", 1))
    for step in streams:
        assert_same_shape(step.output or ['{"echo": "hello"}'] * 3 * ("3" in step.command), terminals.run(step.command))


def test_partial_failure(terminals: Terminals) -> None:
    """Of the lesson in partial failure, each command prints what is shown below it, and each log its lines."""
    b_stopped, a_stopped, log = blocks("Partial failure, a lesson in two minutes")

    terminals.stop(2)
    for step in b_stopped:
        assert_same_shape(step.output, terminals.run(step.command))
    terminals.start(STARTS["service-b"])
    terminals.stop(1)
    for step in a_stopped:
        assert_same_shape(step.output, terminals.run(step.command))
    assert_same_shape(log[0].output, terminals.log("b.log", "status=error", 2))


@pytest.mark.parametrize("log", ["a.log", "b.log"])
def test_log_is_complete_after_ctrl_c(terminals: Terminals, log: str) -> None:
    """After Ctrl-C in a service's terminal its log is complete, to the last line."""
    terminals.stop(1 if log == "a.log" else 2)

    assert 1 == len(terminals.log(log, "event=stopped", 1))


@pytest.mark.parametrize("section", ["Three terminals", "Partial failure, a lesson in two minutes"])
def test_readme_shows_what_the_tutorial_does(section: str) -> None:
    """Each command of the README's terminals, and each line that it shows, is the tutorial's."""
    shown = [step for block in blocks(section, "README.md") for step in block]
    held = [step for block in blocks(section) for step in block]

    assert shown
    assert [] == [step for step in shown if step not in held]


def test_readme_is_one_page() -> None:
    """The README has 1,200 words at most: what a newcomer does not need first is a page of docs/."""
    assert len((ROOT / "README.md").read_text().split()) <= 1200
