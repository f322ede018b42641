"""Plays a case on one way: a server, a caller and what their telemetry reported."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from grpc import StatusCode

from observability.threads.finalizers import finalizers
from tests.support.recorder import PATIENCE, Recorder

from . import aio_clients, clients
from .loop import run
from .servers import serving
from .stage import Stage
from .vocabulary import Case, Way


class Played(NamedTuple):
    """
    What came of it.

    `recorder` has what was reported, `got` is the code that the caller got, and `milliseconds` how long it took until
    both sides had reported.
    """

    recorder: Recorder
    got: StatusCode
    milliseconds: float


@contextmanager
def staged(case: Case, way: Way, engine: str = "native") -> Iterator[Stage]:
    """Serve a case, for a caller still to come."""
    recorder = Recorder()
    with recorder.telemetry(engine) as telemetry:
        stage = Stage(case, way, recorder, telemetry)
        with serving(stage):
            yield stage


def call(stage: Stage) -> StatusCode:
    """Make the call, and return the code that its caller gets."""
    return run(aio_clients.call(stage)) if stage.way.client.startswith("aio_") else clients.call(stage)


def play(case: Case, way: Way, engine: str = "native") -> Played:
    """Play a case, until everything of it is over."""
    with staged(case, way, engine) as stage:
        if case.environment.obstacle == "absent":
            stage.stop()
        began = time.perf_counter()
        got = call(stage)
        stage.recorder.wait_for_lines(*(side for side, code in case.codes.items() if code))
        milliseconds = (time.perf_counter() - began) * 1000
    finalizers.flush(PATIENCE)  # what ends a handler that was dropped
    return Played(stage.recorder, got, milliseconds)
