"""Plays a case on one way: a server, a caller and what their telemetry told."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from grpc import StatusCode

from . import aio_clients, clients
from .cases import Case, Way
from .loop import run
from .record import Record
from .servers import serving
from .stage import Stage


class Played(NamedTuple):
    """What came of it: what was told, the code that the caller got, and how long it took until both sides had told."""

    record: Record
    got: StatusCode
    milliseconds: float


@contextmanager
def staged(case: Case, way: Way, engine: str = "native") -> Iterator[Stage]:
    """Serve a case, for a caller still to come."""
    record = Record()
    with record.telemetry(engine) as telemetry:
        stage = Stage(case, way, record, telemetry)
        with serving(stage):
            yield stage


def call(stage: Stage) -> StatusCode:
    """Make the call, and return the code that its caller gets."""
    return run(aio_clients.call(stage)) if stage.way.client.startswith("aio_") else clients.call(stage)


def play(case: Case, way: Way, engine: str = "native") -> Played:
    """Play a case, until everything of it is over."""
    with staged(case, way, engine) as stage:
        if case.absent:
            stage.stop()
        began = time.perf_counter()
        got = call(stage)
        stage.record.wait(*(kind for kind, code in (("client", case.client), ("server", case.server)) if code))
        milliseconds = (time.perf_counter() - began) * 1000
    return Played(stage.record, got, milliseconds)
