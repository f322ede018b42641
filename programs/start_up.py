"""What a program does in its first lines, before imports that take half a second."""

import os
import signal


def end_at_signals(status: int | None = None) -> None:
    """
    End the process at SIGTERM or SIGINT from now on, at once, without a word and with this status, if any.

    Stands in a program's first lines: without it SIGINT shows a traceback, and PID 1 gets no SIGTERM at all, for the
    kernel drops a signal for which that has no handler. A SIGINT that is ignored stays so.
    """

    def end(number: int, _frame: object) -> None:
        os._exit(128 + number if status is None else status)  # else as shells report a program that a signal ended

    # The system's own handler ends a process whatever it is busy with, but none that is PID 1.
    handler = end if status is not None or os.getpid() == 1 else signal.SIG_DFL
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def silence_core() -> None:
    """
    Let gRPC's core write nothing to stderr, unless `GRPC_VERBOSITY` says otherwise; before grpc is imported.

    It writes whatever bytes a stranger sends, as in a GOAWAY, unescaped and without a bound.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def interrupt_at_sigint() -> None:
    """Raise KeyboardInterrupt at SIGINT from now on, unless it is ignored, so that what was begun is cleaned up."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
