"""Signals to programs that are still starting, as PID 1."""

import signal

import pytest

from tests.support.starting import PROGRAMS, Starting

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])


def status_of(program: str, number: signal.Signals) -> int:
    """Return the exit status with which a program ends at a signal."""
    return 128 + number if program == "client" else 0


@SIGNALS
@pytest.mark.parametrize("program", PROGRAMS)
def test_signal_before_the_imports(program: str, number: signal.Signals, pid_1: list[str]) -> None:
    """A program hears signals before its long imports: it ends within a second, without a word."""
    with Starting(program, pid_1) as starting:
        assert not starting.has_grpc
        status, said, seconds = starting.end(number)

    assert (status_of(program, number), "") == (status, said)
    assert seconds < 1


@SIGNALS
@pytest.mark.parametrize("program", PROGRAMS)
def test_signal_among_the_imports(program: str, number: signal.Signals, pid_1: list[str]) -> None:
    """In the midst of its imports it does so, too."""
    with Starting(program, pid_1) as starting:
        starting.wait_for_grpc()
        status, said, seconds = starting.end(number)

    assert (status_of(program, number), "") == (status, said)
    assert seconds < 1
