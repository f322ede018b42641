"""A server's calls whose handlers or streams only the garbage collector finds."""

import json

import pytest

from tests.support import python
from tests.support.programs.collected import ROUNDS, WATCHDOG


@pytest.mark.parametrize("stack", ["sync", "aio"])
def test_no_thread_waits_for_itself(stack: str) -> None:
    """
    Each call is reported once, and no thread hangs, where the collector finds calls in the midst of an observer's work.

    The observers are given by hand, so they are called where a call ends.
    """
    program = "tests.support.programs.collected"
    ended = python.run("-m", program, stack, timeout=2 * WATCHDOG, variables={"GRPC_VERBOSITY": "NONE"})

    assert (0, "") == (ended.returncode, ended.stderr)
    assert {"started": 2 * ROUNDS, "entered": ROUNDS, "left": ROUNDS, "ended": 2 * ROUNDS} == json.loads(ended.stdout)
