"""Unusual outputs: closed, full, abandoned by the reader, or in an encoding that has few characters."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import psutil
import pytest
from click.testing import CliRunner

from client.__main__ import client
from client.processes import ROOT, environment
from tests.system.conftest import System
from tests.system.test_settings import PROGRAMS as COMMANDS

TEXT = "Grüße, 東京 😀"
ANSWER = {"echo": TEXT}
ENCODINGS = pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C", "LANG": "C"},
    ],
    ids=["latin-1", "ascii", "C", "C-as-utf-8"],
)
FOLDERS = ("service-a", "service-b")
CLOSED = pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])


def run(command: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell's command from the root, where `client` and `python` are what they should be."""
    return subprocess.run(
        ["/bin/bash", "-c", f'set -o pipefail; python() {{ {shlex.quote(sys.executable)} "$@"; }}; {command}'],
        cwd=ROOT,
        env=environment(OTEL_TRACES_EXPORTER="none", **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=120,
    )


def addresses(system: System) -> dict[str, str]:
    """Return the variables that lead to a system."""
    return {"SERVICE_A_ADDRESS": system.a.address, "SERVICE_B_ADDRESS": system.b.address}


@CLOSED
@pytest.mark.parametrize(("address", "status"), [("", 0), ("--service-a 127.0.0.1:1", 1)], ids=["succeeds", "fails"])
def test_closed_streams_of_the_client(system: System, closed: str, address: str, status: int) -> None:
    """Whichever streams are closed, the exit status is the call's, and what has a place to go to goes there."""
    result = run(f"python client echo hello {address} --verbose {closed}", **addresses(system))

    assert status == result.returncode
    if ">&-" not in closed.replace("2>&-", ""):
        assert ("echo" if status == 0 else "service_a") in json.loads(result.stdout)
    else:
        assert b"" == result.stdout
    assert (0 if "2>&-" in closed else 1) == len(result.stderr.splitlines())


def served(folder: str, streams: str) -> tuple[list[str], int]:
    """Run a service with streams like these until SIGTERM; return where they lead, and its exit status."""
    with subprocess.Popen(
        ["/bin/sh", "-c", f"exec {shlex.quote(sys.executable)} app.py --port 0 {streams}"],
        cwd=ROOT / folder,
        env=environment(OTEL_TRACES_EXPORTER="none", OTEL_EXPORTER_PROMETHEUS_PORT="0"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        service = psutil.Process(process.pid)
        while len({c.laddr for c in service.net_connections("tcp") if c.status == psutil.CONN_LISTEN}) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        places = [str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in range(3)]
        process.send_signal(signal.SIGTERM)
        return places, process.wait(20)


@pytest.mark.parametrize("folder", FOLDERS)
@CLOSED
def test_closed_streams_of_a_service(folder: str, closed: str) -> None:
    """A service without streams ends with 0, and no socket gets their numbers: what is written to them would go out."""
    assert (["/dev/null"] * 3, 0) == served(folder, closed)


@pytest.mark.parametrize("folder", FOLDERS)
def test_full_streams_of_a_service(folder: str) -> None:
    """A service whose log cannot be written serves, and ends with 0."""
    assert (["/dev/null", "/dev/full", "/dev/full"], 0) == served(folder, ">/dev/full 2>&1")


FULL = "cannot write to stdout: no space left on device"


@pytest.mark.parametrize(
    "command", ["echo hello", "echo --repeat 1000000 hello", "call-echo hello", "health-a", "--help", "echo --help"]
)
def test_full_stdout_of_the_client(system: System, command: str) -> None:
    """An answer, or help, that cannot be written is one line that says so, and exit status 1."""
    result = run(f"python client {command} > /dev/full", **addresses(system))

    assert (f"{FULL}\n", 1) == (result.stderr.decode(), result.returncode)


def test_full_stdout_of_the_demo() -> None:
    """The demo does the same, and its services end with it."""
    result = run("python client demo > /dev/full; status=$?; echo $status; exit $status")

    assert (f"{FULL}\n", b"1\n") == (result.stderr.decode(), result.stdout)


@pytest.mark.parametrize("command", ["echo no-such-option --nope", "health-a --timeout never", "nonsense"])
def test_full_stderr(command: str) -> None:
    """Wrong usage is exit status 2, even where nothing can be printed."""
    assert 2 == run(f"python client {command} 2> /dev/full").returncode


def test_full_stderr_of_load(system: System) -> None:
    """A progress bar that cannot be written does not keep the result from being printed."""
    result = run("python client load --rps 20 --duration 1s 2> /dev/full", **addresses(system))

    assert 0 == result.returncode
    assert b"rate" in result.stdout


@pytest.mark.parametrize("command", ["echo hello", "call-echo hello", "--help", "load --rps 10 --duration 1s"])
def test_reader_that_has_gone(system: System, command: str) -> None:
    """Where nobody reads the output any more, nothing is printed of it, and exit status is 1 unless all was written."""
    result = run(f"exec 3>&1; {{ python client {command} 2>&3; echo $? >&3; }} | true", **addresses(system))

    *errors, status = [line for line in result.stdout.decode().splitlines() if not line.startswith("calls ")]
    assert [] == errors
    assert status in {"0", "1"}


@ENCODINGS
def test_answers_in_any_encoding(system: System, variables: dict[str, str]) -> None:
    """The answer is JSON in every encoding: what it does not have is escaped."""
    charset = variables.get("PYTHONIOENCODING", "utf-8")
    results = [
        run(f"python client {command}", **addresses(system), **variables)
        for command in (
            f"echo '{TEXT}'",
            f"call-echo '{TEXT}'",
            f"chat <<< '{TEXT}'",
            "echo --join 'Grüße,' '東京 😀'",
        )
    ]

    called = {"service_b": "ok", "service_a": ANSWER}
    assert [("", 0)] * 4 == [(result.stderr.decode(), result.returncode) for result in results]
    assert [ANSWER, called, called, ANSWER] == [json.loads(result.stdout.decode(charset)) for result in results]


def test_escapes_of_an_answer(system: System) -> None:
    """What the encoding has is there as it is, and the rest as in JSON."""
    result = run(f"python client echo '{TEXT}'", **addresses(system), PYTHONIOENCODING="latin-1")

    assert '{"echo": "Grüße, \\u6771\\u4eac \\ud83d\\ude00"}\n'.encode("latin-1") == result.stdout


def shown_help(program: str, **variables: str) -> bytes:
    """Ask a program for its help; return that."""
    result = run(f"{program} --help", **variables)

    assert ("", 0) == (result.stderr.decode(), result.returncode)
    assert result.stdout.startswith(b"Usage: ")
    return result.stdout


STARTS = ["python client", "cd service-a; python app.py", "cd service-b; python app.py"]


@pytest.mark.parametrize("command", [client, *COMMANDS.values()], ids=["client", *COMMANDS])
def test_help_is_ascii(command: click.Command) -> None:
    """Help is ASCII, also where it need not be, so that every encoding has it."""
    result = CliRunner().invoke(command, ["--help"])

    assert ("", 0) == (result.stderr, result.exit_code)
    assert result.stdout.startswith("Usage: ")
    assert result.stdout.isascii()


@ENCODINGS
@pytest.mark.parametrize("program", STARTS)
def test_help_in_any_encoding(program: str, variables: dict[str, str]) -> None:
    """So it is in every encoding."""
    assert shown_help(program, **variables).isascii()


@ENCODINGS
def test_wrong_usage_in_any_encoding(variables: dict[str, str]) -> None:
    """Wrong usage is one line in every encoding."""
    result = run(f"python client trace '{TEXT}'", **variables)

    assert (b"", 2) == (result.stdout, result.returncode)
    assert b"is not 32 hex digits" in result.stderr


@ENCODINGS
def test_demo_in_any_encoding(variables: dict[str, str], tmp_path: Path) -> None:
    """The demo draws with what the encoding has, and saves the same picture."""
    picture = tmp_path / "demo.svg"
    result = run(f"python client demo --svg {picture}", **variables)
    screen = result.stdout.decode("utf-8" if "LANG" in variables else "latin-1")

    assert ("", 0) == (result.stderr.decode(), result.returncode)
    assert '{"service_b": "ok", "service_a": {"echo": "hello"}}' in screen
    assert "\\u" not in screen
    assert 4 == len(re.findall(r"^ *(?:[└`][─-] )?(?:client|service-[ab]) [→←<>] ", screen, re.MULTILINE)) - 3
    assert "→" in picture.read_text(encoding="utf-8")


@ENCODINGS
def test_load_in_any_encoding(system: System, variables: dict[str, str]) -> None:
    """Load shows its progress and its result in every encoding."""
    result = run("python client load --rps 20 --duration 1s", **addresses(system), **variables)

    assert 0 == result.returncode
    assert b"rate" in result.stdout
    assert b"Traceback" not in result.stderr
