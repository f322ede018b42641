"""The client as a program among others: quick, silent, and well behaved in pipes and under Ctrl-C."""

import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from client.lines import fields
from client.processes import ROOT, environment
from tests.support.python import Popen
from tests.support.receiver import HungReceiver
from tests.system.conftest import System


def seconds_of(run: Callable[[], subprocess.CompletedProcess[str]]) -> float:
    """Run a program that succeeds and prints nothing on stderr; return how long it took."""
    start = time.monotonic()
    result = run()
    took = time.monotonic() - start
    assert ("", 0) == (result.stderr, result.returncode)
    return took


def import_grpc() -> subprocess.CompletedProcess[str]:
    """Start Python with grpc alone: 0.1 s where nothing else runs."""
    return subprocess.run([sys.executable, "-c", "import grpc"], capture_output=True, encoding="utf-8", check=True)


def call(system: System, **variables: str) -> subprocess.CompletedProcess[str]:
    """Start the client, from scratch, for one call."""
    return subprocess.run(
        [sys.executable, "client", "call-echo", "hello"],
        cwd=ROOT,
        env=environment(**{**system.variables, **variables}),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )


def takes_less(seconds: float, system: System, **variables: str) -> bool:
    """Return whether the client's start and a call can be had in this time, or longer as other programs slow us."""
    for _ in range(10):
        slower = max(1.0, seconds_of(import_grpc) / 0.1)
        if seconds_of(lambda: call(system, **variables)) < seconds * slower:
            return True
    return False


def test_one_call_takes_less_than_a_second(system: System) -> None:
    """Starting the client and making one call takes less than a second."""
    assert takes_less(1, system)


def test_missing_collector_does_not_delay_the_client(system: System) -> None:
    """Without a collector a call takes no longer than that, and nothing is printed of it."""
    assert takes_less(1, system, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")


def test_hung_collector_does_not_delay_the_client(system: System) -> None:
    """With a collector that never answers a call takes no longer either, and nothing is printed of it."""
    with HungReceiver() as receiver:
        assert takes_less(1, system, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)


def seconds_after_the_answer(system: System, endpoint: str) -> float:
    """Make a call; return how long the client stays after its answer."""
    with start_client(system, "call-echo", "hello", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as client:
        assert client.stdout is not None
        assert client.stdout.readline().startswith('{"service_b": "ok"')
        start = time.monotonic()
        assert 0 == client.wait(10)
        return time.monotonic() - start


def test_flush_has_a_bound(system: System) -> None:
    """After its answer the client waits for a collector that never answers, for 250 ms and no longer."""
    with HungReceiver() as receiver:
        # Other programs may slow one try or another.
        shortest = min(seconds_after_the_answer(system, receiver.endpoint) for _ in range(4))

        assert 4 == len(receiver.spans())
    assert 0.2 < shortest < 0.35


def test_flush_takes_no_longer_than_it_needs(system: System) -> None:
    """A collector that takes its span at once does not keep the client."""
    assert min(seconds_after_the_answer(system, system.receiver.endpoint) for _ in range(5)) < 0.2


def test_imports_of_a_call(system: System) -> None:
    """A call imports what it needs, and nothing of the commands that draw, measure, start services or ask Jaeger."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "client", "call-echo", "hello"],
        cwd=ROOT,
        env=environment(SERVICE_B_ADDRESS=system.b.address),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}

    # Beside its own module, client.calls: what importlib imports is not in this list.
    assert {"client.answers", "client.link"} == {name for name in imported if name.startswith("client.")}
    # structlog imports some of rich itself, where it is installed.
    assert set() == imported & {"rich.progress", "programs.server", "grpc_reflection.v1alpha", "requests"}


def test_span_of_a_quick_call_is_sent(system: System) -> None:
    """The client's span reaches the collector though the client ends at once."""
    result = system.client("health-b", "--verbose")

    trace_id = fields(result.stderr.strip())["trace_id"]
    assert {("client", "client"), ("service-b", "server")} == {
        (span.service, span.kind) for span in system.receiver.wait_for(2, trace_id=trace_id)
    }


def start_client(system: System, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start the client and leave it running."""
    return Popen(
        [sys.executable, "client", *arguments],
        cwd=ROOT,
        env=environment(SERVICE_A_ADDRESS=system.a.address, SERVICE_B_ADDRESS=system.b.address, **variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_chat_answers_line_by_line(system: System) -> None:
    """Each line of a chat is answered as it is typed, before the next."""
    with start_client(system, "chat") as chat:
        assert chat.stdin is not None
        assert chat.stdout is not None
        for text in ("one", "two"):
            chat.stdin.write(f"{text}\n")
            chat.stdin.flush()
            assert f'{{"service_b": "ok", "service_a": {{"echo": "{text}"}}}}\n' == chat.stdout.readline()
        chat.stdin.close()
        assert 0 == chat.wait(10)


def test_ctrl_c_ends_a_chat(system: System) -> None:
    """Ctrl-C ends a chat that waits for a line, at once and without a stack trace, and cancels its call."""
    with start_client(system, "chat", "--verbose") as chat:
        assert chat.stdin is not None
        assert chat.stdout is not None
        assert chat.stderr is not None
        chat.stdin.write("hello\n")
        chat.stdin.flush()
        chat.stdout.readline()
        start = time.monotonic()
        chat.send_signal(signal.SIGINT)
        status = chat.wait(10)
        took = time.monotonic() - start
        lines = chat.stderr.read().split("\n")

    assert 130 == status
    assert took < 1
    (line,) = filter(None, lines)
    assert "CANCELLED" == fields(line)["code"]


def test_chat_ends_with_its_call(own_system: System) -> None:
    """A chat whose call fails ends at once, though more could be typed."""
    own_system.a.stop()
    with start_client(own_system, "chat") as chat:
        status = chat.wait(10)

    assert 1 == status


def test_reader_that_leaves(system: System) -> None:
    """A reader of the answers that leaves ends the client, without a stack trace."""
    with start_client(system, "echo", "--repeat", "1000000", "hello") as client:
        assert client.stdout is not None
        assert client.stderr is not None
        client.stdout.readline()
        client.stdout.close()
        status = client.wait(10)
        errors = client.stderr.read()

    assert (1, "") == (status, errors)


def test_ctrl_c_where_scripts_ignore_it() -> None:
    """The tests of Ctrl-C pass where SIGINT is ignored: in the background of a script, and without a terminal."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    tests = "tests/system/test_client_process.py::test_ctrl_c_ends_a_chat"
    result = subprocess.run(
        ["/bin/sh", "-c", f"trap '' INT; exec {shlex.quote(sys.executable)} -m pytest -q -p no:cacheprovider {tests}"],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
        start_new_session=True,
    )

    assert 0 == result.returncode, result.stdout
    assert "1 passed" in result.stdout


def test_sigterm_ends_a_chat_that_is_pid_1(system: System, pid_1: list[str]) -> None:
    """SIGTERM ends the client where it is PID 1, too, though the kernel drops signals that have no handler there."""
    with subprocess.Popen(
        [*pid_1, sys.executable, "client", "chat"],
        cwd=ROOT,
        env=environment(SERVICE_B_ADDRESS=system.b.address),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as chat:
        assert chat.stdin is not None
        assert chat.stdout is not None
        chat.stdin.write("one\n")
        chat.stdin.flush()
        assert '"one"' in chat.stdout.readline()
        (client,) = psutil.Process(chat.pid).children()
        client.terminate()
        assert 143 == chat.wait(20)


def test_closed_stdin(system: System) -> None:
    """A chat without a stdin has nothing to say, and succeeds."""
    result = subprocess.run(
        ["sh", "-c", f"{sys.executable} client chat <&-"],
        cwd=ROOT,
        env=environment(SERVICE_B_ADDRESS=system.b.address),
        capture_output=True,
        check=False,
        timeout=20,
    )

    assert (b"", b"", 0) == (result.stdout, result.stderr, result.returncode)


@pytest.mark.parametrize("collector", [True, False], ids=["delivered", "lost"])
def test_link_on_a_terminal(system: System, collector: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """On a terminal a call ends with its trace's address in Jaeger, if its spans were delivered."""
    endpoint = system.receiver.endpoint if collector else "http://127.0.0.1:1"
    ours, theirs = pty.openpty()
    result = subprocess.run(
        [sys.executable, "client", "call-echo", "hello", "--jaeger", "http://jaeger:1234/"],
        cwd=ROOT,
        env=environment(SERVICE_B_ADDRESS=system.b.address, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint),
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=True,
        timeout=20,
    )
    os.write(theirs, b"end\n")
    shown = os.read(ours, 10_000).decode().replace("end\r\n", "").strip()
    os.close(ours)
    os.close(theirs)

    assert b'{"service_b": "ok", "service_a": {"echo": "hello"}}\n' == result.stdout
    if not collector:
        assert "" == shown
        return
    trace_id = shown.removeprefix("http://jaeger:1234/trace/")
    assert {"client"} <= {span.service for span in system.receiver.wait_for(4, trace_id=trace_id)}
