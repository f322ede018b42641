"""Plays a case on one way: a server, a caller and what their telemetry told."""

import time
from contextlib import ExitStack
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


def play(case: Case, way: Way, engine: str = "native") -> Played:
    """Play a case, until everything of it is over."""
    record = Record()
    with record.telemetry(engine) as telemetry, ExitStack() as served:
        stage = Stage(case, way, record, telemetry)
        served.enter_context(serving(stage))
        if case.absent:
            served.close()
        began = time.perf_counter()
        got = run(aio_clients.call(stage)) if way.client.startswith("aio_") else clients.call(stage)
        record.wait(*(kind for kind, code in (("client", case.client), ("server", case.server)) if code))
        milliseconds = (time.perf_counter() - began) * 1000
    return Played(record, got, milliseconds)
