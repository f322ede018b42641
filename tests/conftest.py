"""What all tests share."""

import gc
import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.errors import HOLDING, LOGGERS, ErrorLines
from tests.support.outputs import errors_of_processes
from tests.support.python import end_fork_servers

# What takes minutes, or needs more than Python: these folders are left out unless a path in them is asked for.
ASKED_FOR = [Path(__file__).parent / name for name in ("faults", "kubernetes", "stack")]

# What a script starts in the background ignores SIGINT, and so does all that it starts in turn: our programs, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave a folder out that nobody asked for."""
    asked = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    left_out = collection_path in ASKED_FOR and not any(path.is_relative_to(collection_path) for path in asked)
    return True if left_out else None


@pytest.fixture(scope="module", autouse=True)
def collectable() -> None:
    """Let the garbage collector look at what a module's tests make, not at all tests and what they left each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def fork_servers() -> Iterator[None]:
    """End what programs have been forked from."""
    yield
    end_fork_servers()


@pytest.fixture(scope="session")
def error_lines() -> Iterator[ErrorLines]:
    """Keep the ERROR lines of the loggers that tests look at, whatever a test does to the root logger's level."""
    handler = ErrorLines()
    logging.getLogger("grpc").setLevel(logging.WARNING)
    for name in {*LOGGERS, *HOLDING}:
        logging.getLogger(name).addHandler(handler)
    yield handler
    for name in {*LOGGERS, *HOLDING}:
        logging.getLogger(name).removeHandler(handler)
    assert [] == errors_of_processes()  # those that ended after the last test


@pytest.fixture(autouse=True)
def no_unexpected_errors(request: pytest.FixtureRequest, error_lines: ErrorLines) -> Iterator[None]:
    """Fail on an error, of this process or of others, but for those that `pytest.mark.expects_errors` says."""
    yield
    error_lines.lines += errors_of_processes()
    expected = [pattern for marker in request.node.iter_markers("expects_errors") for pattern in marker.args]
    unexpected = error_lines.unexpected(expected)
    error_lines.lines.clear()
    assert [] == unexpected


@pytest.fixture(scope="session")
def pid_1() -> list[str]:
    """Give what makes a command PID 1, as in a container; where CI runs, it has to work."""
    # Others than root need a namespace of users as well, which not every machine grants.
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *user, "--pid", "--fork", "--kill-child"]
    try:
        works = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        works = False
    if not works and "CI" not in os.environ:
        pytest.skip("no process can be PID 1 here: unshare --pid is not allowed")
    return command
