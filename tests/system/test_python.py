"""A program that tests fork finds what it would find if Python had started it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from client.processes import ROOT, environment
from tests.support import python
from tests.support.python import Popen, fork_server

FACTS = """
import json, os, sys
json.dump([
    __name__, sys.argv, sys.path[:2],
    sorted(os.environ.items()), os.getcwd(), os.getppid(), os.getsid(0) == os.getpid(), os.listdir("/proc/self/fd"),
    [(stream.encoding, stream.errors, stream.line_buffering) for stream in (sys.stdin, sys.stdout, sys.stderr)],
    sys.stdin.read(),
], sys.stdout)
sys.exit(3)
"""
FORKED = pytest.mark.skipif(sys.platform != "linux", reason="programs are forked on Linux alone")


@FORKED
@pytest.mark.parametrize("kind", ["-c", "-m", "file", "folder"])
@pytest.mark.parametrize("new_session", [True, False])
def test_facts(kind: str, new_session: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter
    """It has the same command line, modules, environment, folder, parent, session and streams, and its own status."""
    program = {"-c": ["-c", FACTS], "-m": ["-m", "facts"], "file": ["facts.py"], "folder": ["."]}[kind]
    for name in ("facts.py", "__main__.py"):
        (tmp_path / name).write_text(FACTS)

    def started(start: type[subprocess.Popen[str]]) -> tuple[object, ...]:
        pipe = subprocess.PIPE
        with start(
            [sys.executable, *program, "a", "b c"],
            cwd=tmp_path,
            env=environment(OTEL_BSP_SCHEDULE_DELAY="7"),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            encoding="utf-8",
            start_new_session=new_session,
        ) as process:
            stdout, stderr = process.communicate("tea", 30)
        return json.loads(stdout), stderr, process.returncode

    assert started(subprocess.Popen) == started(Popen)


@FORKED
def test_descriptors() -> None:
    """A descriptor that is passed on has its number there, and no other is open but the streams."""
    reader, writer = os.pipe()
    program = (
        "import os, sys; os.write(int(sys.argv[1]), ' '.join(sorted(os.listdir('/proc/self/fd'), key=int)).encode())"
    )
    with Popen([sys.executable, "-c", program, str(writer)], cwd=ROOT, env=environment(), pass_fds=[writer]) as process:
        os.close(writer)
        assert 0 == process.wait(10)
    numbers = list(map(int, os.read(reader, 1000).split()))
    os.close(reader)

    assert [0, 1, 2] == numbers[:3]
    assert writer in numbers
    assert 5 == len(numbers)  # and the one with which it looks


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_end_by_a_signal(number: int) -> None:
    """A signal that ends it is its status."""
    assert -number == python.run("-c", f"import os; os.kill(os.getpid(), {int(number)})").returncode


@FORKED
@pytest.mark.parametrize(
    ("variables", "is_forked"),
    [
        ({}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"PROMETHEUS_MULTIPROC_DIR": "/nowhere"}, True),
        ({"GRPC_VERBOSITY": "NONE"}, True),
        ({"GRPC_VERBOSITY": "DEBUG"}, False),
        ({"GRPC_TRACE": "api"}, False),
        ({"PYTHONIOENCODING": "latin-1"}, False),
        ({"OTEL_PYTHON_CONTEXT": "contextvars_context"}, False),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "3"}, False),
    ],
    ids=str,
)
def test_variables_that_are_read_early(variables: dict[str, str], is_forked: bool) -> None:  # noqa: FBT001 - as above
    """With a variable that Python, gRPC or another library has read before, it is started from scratch."""
    assert is_forked == (fork_server(environment(**variables)) is not None)


@FORKED
def test_own_modules_are_not_there_yet() -> None:
    """It imports all modules of the project's own, and prometheus_client, by itself."""
    program = "import sys; print(*sys.modules)"
    roots = {name.partition(".")[0] for name in python.run("-c", program).stdout.split()}

    assert {"grpc", "structlog", "opentelemetry"} <= roots
    assert set() == roots & {"observability", "programs", "client", "protos", "prometheus_client"}
