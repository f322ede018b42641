"""The multiprocess mode of prometheus_client: what all processes count, and what goes on in those that live."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from client.processes import ROOT, environment
from tests.support import python
from tests.support.python import Popen

FOLDER, OLD = "PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"

COUNT = """
import os
import sys

from prometheus_client import CollectorRegistry

from observability import ServerInterceptor, measure_calls
from tests.support.rpc import connected, echo, method

with connected(ServerInterceptor(measure_calls(CollectorRegistry())), unary=echo) as channel:
    for _ in range(3):
        method(channel, "unary")(b"a", timeout=10)
"""
BY_HAND = """
from prometheus_client import values

values.ValueClass = values.MultiProcessValue(lambda: "one")
"""

HANG = """
import asyncio
import sys
import threading

from prometheus_client import CollectorRegistry

from observability import (
    AioServerInterceptor, ClientInterceptor, ServerInterceptor, aio_client_interceptors, measure_calls
)
from tests.support.rpc import aio_connected, connected, echo, method

measure = measure_calls(CollectorRegistry())
stack, arity = sys.argv[1:]


def say():
    print("hanging", flush=True)


def hang(*_):
    say()
    threading.Event().wait()
    yield


def hang_at_once(*_):
    say()
    threading.Event().wait()


async def aio_hang(*_):
    say()
    await asyncio.Event().wait()
    yield


async def aio_hang_at_once(*_):
    say()
    await asyncio.Event().wait()


async def main():
    behavior = aio_hang if arity == "bidi_stream" else aio_hang_at_once
    server, client = AioServerInterceptor(measure), aio_client_interceptors(measure)
    async with aio_connected(server, client=client, **{arity: behavior}) as channel:
        call = method(channel, arity)(b"a" if arity == "unary" else iter([b"a"]))
        await (call if arity == "unary" else call.read())


if stack == "aio":
    asyncio.run(main())
else:
    behavior = hang if arity == "bidi_stream" else hang_at_once
    with connected(ServerInterceptor(measure), client=[ClientInterceptor(measure)], **{arity: behavior}) as channel:
        list(method(channel, arity)(b"a" if arity == "unary" else iter([b"a"])))
"""


def scrape(folder: Path) -> dict[str, float]:
    """Return what all processes count, each name summed over its labels, of which none is a process."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]  # it has no types
    found: Counter[str] = Counter()
    for metric in registry.collect():
        for sample in metric.samples:
            assert "pid" not in sample.labels
            found[sample.name] += sample.value  # type: ignore[assignment]  # a sum of floats
    return found  # type: ignore[return-value]  # as above


def run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return python.run("-c", program, variables=variables)


@contextmanager
def hanging(stack: str, arity: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Give a process in the middle of a call that it makes to itself, until it is killed."""
    with Popen(
        [sys.executable, "-c", HANG, stack, arity],
        cwd=ROOT,
        env=environment(**{FOLDER: str(folder)}),
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "hanging\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("before", "variable"), [("", FOLDER), ("", OLD), (BY_HAND, FOLDER)], ids=["as today", "as before", "by hand"]
)
def test_counts(before: str, variable: str, tmp_path: Path) -> None:
    """
    Another process sees what started, what is going on and what ended, however the mode was turned on.
    """
    ended = run(before + COUNT, **{variable: str(tmp_path), "GRPC_VERBOSITY": "NONE"})
    found = scrape(tmp_path)

    assert (0, "") == (ended.returncode, ended.stderr)
    assert [3.0, 0.0, 0.0, 3.0] == [
        found[f"grpc_server_{name}"] for name in ("started_total", "in_flight", "handlers_running", "handled_total")
    ]


GOING_ON = ("grpc_server_in_flight", "grpc_server_handlers_running", "grpc_client_in_flight")


@pytest.mark.parametrize("stack", ["sync", "aio"])
@pytest.mark.parametrize("arity", ["unary", "bidi_stream"])
def test_a_process_that_is_killed(stack: str, arity: str, tmp_path: Path) -> None:
    """
    What a killed process was doing goes on no more once it is marked as dead; what it counted stays.
    """
    with hanging(stack, arity, tmp_path) as process, hanging(stack, arity, tmp_path):
        together = scrape(tmp_path)
        process.kill()
        process.wait()
        mark_process_dead(process.pid, path=str(tmp_path))  # type: ignore[no-untyped-call]  # it has no types
        alone = scrape(tmp_path)

    assert [2.0] * 3 == [together[name] for name in GOING_ON]
    assert [1.0] * 3 == [alone[name] for name in GOING_ON]
    assert [2.0] * 2 == [alone[f"grpc_{side}_started_total"] for side in ("server", "client")]


MEASURE = """
import sys

from prometheus_client import CollectorRegistry

from observability import SettingError, measure_calls

try:
    measure_calls(CollectorRegistry())
except SettingError as error:
    print(error)
"""


@pytest.mark.parametrize("variable", [FOLDER, OLD])
@pytest.mark.parametrize("value", ["/no/such/folder", "/proc", sys.executable, ""])
def test_a_folder_that_cannot_be_written(variable: str, value: str) -> None:
    """
    A folder that is missing, none or not to be written is a SettingError, which names the variable as it was given.
    """
    ended = run(MEASURE, **{variable: value})

    assert (f"{variable}={value!r} is not a folder that can be written\n", "") == (ended.stdout, ended.stderr)


def test_a_folder_that_is_left_as_it_was(tmp_path: Path) -> None:
    """
    Finding out that a folder can be written leaves nothing in it.
    """
    ended = run(MEASURE, **{FOLDER: str(tmp_path)})

    assert ("", "", []) == (ended.stdout, ended.stderr, list(tmp_path.iterdir()))
