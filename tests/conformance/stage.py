"""What the two sides of one call share: the case that they play, and the events by which they wait for each other."""

import asyncio
import threading
from collections.abc import Callable

from observability import Telemetry
from tests.support.recorder import PATIENCE, Recorder

from .vocabulary import Case, Way

AT_LAST = 0.1
"""Seconds before its deadline at which a caller cancels at last."""
UNSERVED = 0.05
"""Seconds after which a caller gives up a call whose handler has not started: more than 25 ms."""

_TURN = 0.02


class Stage:
    """
    The case being played, on one way.

    `arrived` is set when a call comes in, `serving` when a handler waits in the middle of its work, `over` when the
    call has ended on both sides. `address` and `stop` are the server's, once it serves; `stop` ends it at once.
    """

    address: str
    stop: Callable[[], object]

    def __init__(self, case: Case, way: Way, recorder: Recorder, telemetry: Telemetry) -> None:
        self.case = case
        self.way = way
        self.recorder = recorder
        self.telemetry = telemetry
        self.arrived = threading.Event()
        self.serving = threading.Event()
        self.over = threading.Event()

    def pause(self) -> None:
        """Wait in a handler until the call is over."""
        self.serving.set()
        self.over.wait(PATIENCE)

    async def pause_aio(self) -> None:
        """Wait in an async handler, which its call's end cancels as a rule."""
        self.serving.set()
        for _ in range(int(PATIENCE / _TURN)):
            if self.over.is_set():
                break
            await asyncio.sleep(_TURN)

    def wait(self) -> None:
        """Wait for the moment at which the caller ends the call: a handler waits, unless the case says otherwise."""
        if self.case.caller.end in ("cancel_late", "drop_late"):
            self.recorder.wait_for_lines("server")
        elif self.case.environment.obstacle == "pool_busy":
            self.arrived.wait(PATIENCE)
        else:
            self.serving.wait(PATIENCE)
        if self.case.environment.waits_unserved:
            self.over.wait(UNSERVED)
        elif self.case.caller.end == "cancel_at_last":
            self.over.wait((self.case.caller.timeout or 0) - AT_LAST)
