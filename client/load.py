"""Traffic for dashboards: calls at a steady rate, some of them meant to fail."""

import math
import re
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import click
import grpc
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from client.calls import channel_to, to_service_b
from programs.options import INTERRUPTED, TIMEOUT, Number
from programs.tls import Target
from protos.echo_pb2 import CallEchoRequest
from protos.echo_pb2_grpc import CallEchoServiceStub

TOO_LONG = "x" * (64 * 1024 + 1)  # bytes: one more than A echoes
Plan = Sequence[tuple[float, str, grpc.StatusCode]]
MOST_AT_ONCE = 500  # calls: more show nothing new about a system that does not keep up
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


class Duration(click.ParamType[float]):
    """How long: 500ms, 30s, 5m, 1h, or a number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the duration in seconds."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", value, re.ASCII)
        if match is None or not float(match[1]):
            return self.fail(f"{value!r} is not a duration such as 500ms, 30s, 5m or 1h", param, ctx)
        return float(match[1]) * UNITS[match[2]]


class Share(click.ParamType[float]):
    """A part of the whole, from 0% to 100%."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share as a number from 0 to 1."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)%?", value, re.ASCII)
        if match is None or float(match[1]) > 100:  # noqa: PLR2004 - per cent
            return self.fail(f"{value!r} is not a share from 0% to 100%", param, ctx)
        return float(match[1]) / 100


@dataclass
class Tally:
    """What came of the calls: their codes, and how long each took, in seconds."""

    codes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    unexpected: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, seconds: float, code: grpc.StatusCode, expected: grpc.StatusCode) -> None:
        """Count a call that has ended, so many seconds after it was due."""
        with self.lock:
            self.codes[code.name] += 1
            self.seconds.append(seconds)
            self.unexpected += code is not expected


@click.command()
@click.option("--rps", type=Number("rate", 0.1, 10_000), default="50", show_default=True, help="Calls per second.")
@click.option("--duration", type=Duration(), default="30s", show_default=True, help="For how long: 30s, 5m, 1h.")
@click.option("--errors", type=Share(), default="0%", show_default=True, help="How many are to fail: 5%.")
@click.option("--timeout", type=TIMEOUT, default="5", show_default=True, help="How long to wait for each.")
@to_service_b
def load(rps: float, duration: float, errors: float, timeout: float, target: Target) -> int:
    """
    Make calls to Service B at a steady rate.

    Those that are to fail send more than A accepts. The exit status is 1 if any other call failed.
    """
    tally = Tally()
    start = time.monotonic()
    status = 0
    with channel_to(target) as channel:
        try:
            send(CallEchoServiceStub(channel), plan(rps, duration, errors), tally, timeout)
        except KeyboardInterrupt:
            status = INTERRUPTED
        took = time.monotonic() - start
    Console().print(summary(tally, took))
    return status or int(tally.unexpected > 0)


def plan(rps: float, duration: float, errors: float) -> Plan:
    """Return when each call is due, in seconds from the start, what it says and how it is to end."""
    good, bad = ("hello", grpc.StatusCode.OK), (TOO_LONG, grpc.StatusCode.INVALID_ARGUMENT)
    calls = range(max(1, round(rps * duration)))
    return [(n / rps, *(bad if int((n + 1) * errors) > int(n * errors) else good)) for n in calls]


def send(stub: CallEchoServiceStub, calls: Plan, tally: Tally, timeout: float) -> None:
    """Make each call when it is due, and wait for all of them; a progress bar is on stderr."""
    start = time.monotonic()
    at_once = threading.Semaphore(MOST_AT_ONCE)
    columns = TextColumn("calls"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("calls", total=len(calls))

        def ended(due: float, expected: grpc.StatusCode, call: Any) -> None:
            tally.add(time.monotonic() - due, call.code(), expected)
            progress.advance(task)
            at_once.release()

        for offset, msg, expected in calls:
            due = start + offset
            time.sleep(max(0.0, due - time.monotonic()))
            at_once.acquire()
            call = stub.CallEcho.future(CallEchoRequest(msg=msg), timeout=timeout)
            call.add_done_callback(partial(ended, due, expected))
        for _ in range(MOST_AT_ONCE):
            at_once.acquire()


def summary(tally: Tally, seconds: float) -> Table:
    """Return what came of the calls in so many seconds."""
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right")
    with tally.lock:
        table.add_row("rate", f"{len(tally.seconds) / seconds:,.1f} calls/s")
        for code, count in sorted(tally.codes.items(), key=lambda item: -item[1]):
            table.add_row(code, f"{count:,}")
        took = sorted(tally.seconds)
    for name, share in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99)):
        table.add_row(name, f"{percentile(took, share) * 1000:,.1f} ms")
    return table


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value that this share of all values does not exceed; 0 if there are none."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else 0.0
