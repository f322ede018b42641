"""Asyncio calls that the garbage collector finds: no observer runs inside a collection."""

import asyncio
import gc
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from observability import Call, Outcome
from observability.threads.finalizers import finalizers
from tests.support import python
from tests.support.aio_interceptors import aio_interceptor
from tests.support.aio_ways import EACH_WAY, aio_channel, aio_observed
from tests.support.outcomes import aio_behaviors
from tests.support.recorder import Recorder
from tests.support.rpc import ARITIES, STREAMS, method, requests

LONG = 300.0
"""Seconds that the stress may take on a busy machine; one that stands still ends long before."""


class Collections:
    """An observer that knows which calls were reported inside a collection, or by a finalizer."""

    def __init__(self) -> None:
        self._collecting: int | None = None
        self.inside: list[Outcome] = []

    def watch(self, phase: str, _info: Any) -> None:
        """Record which thread collects garbage."""
        self._collecting = threading.get_ident() if phase == "start" else None

    def __call__(self, _call: Call) -> Callable[[Outcome], None]:
        """Observe a call."""

        def finish(outcome: Outcome) -> None:
            if self._collecting == threading.get_ident():
                self.inside.append(outcome)

        return finish


@pytest.fixture
def collections() -> Iterator[Collections]:
    """Watch the garbage collector, which runs only when it is asked to."""
    watching = Collections()
    gc.callbacks.append(watching.watch)
    gc.disable()
    yield watching
    gc.enable()
    gc.callbacks.remove(watching.watch)


class Cycle:
    """Keeps itself, so that only the garbage collector finds it, and a call."""

    def __init__(self, call: Any) -> None:
        self.itself = self
        self.call = call


async def not_read(_call: Any, _arity: str) -> None:
    """Do nothing with a call."""


async def begun(call: Any, arity: str) -> None:
    """Read a first response, if there are more."""
    if arity in STREAMS:
        await anext(aiter(call))


async def being_read(call: Any, arity: str) -> None:
    """Wait for it in a coroutine that is not finished."""

    async def wait() -> None:
        await (anext(aiter(call)) if arity in STREAMS else call)

    waiting = wait()
    waiting.send(None)
    Cycle(waiting)


def called_back(call: Any) -> None:
    """Be a caller's done-callback, which keeps what it is given until it is called."""


async def listened_to(call: Any, _arity: str) -> None:
    """Ask to be called back."""
    call.add_done_callback(called_back)


@EACH_WAY
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # grpc's own, of a closed coroutine
@pytest.mark.parametrize("arity", ARITIES)
@pytest.mark.parametrize("act", [not_read, begun, being_read, listened_to])
def test_call_in_a_cycle(act: Callable[[Any, str], Any], arity: str, way: str, collections: Collections) -> None:
    """
    A call that a collection finds is reported once, and outside of it.
    """
    recorder = Recorder(extra=(collections,))

    async def main() -> None:
        async with aio_observed(way, *recorder.observers, **aio_behaviors("cancelled")) as channel:
            call = method(channel, arity)(requests(arity))
            await asyncio.sleep(0)
            await act(call, arity)
            Cycle(call)
            del call
            gc.collect()
            await asyncio.sleep(0.01)
            gc.collect()
        gc.collect()

    asyncio.run(main())
    gc.collect()
    recorder.wait_for()

    assert [] == collections.inside
    assert [["CANCELLED"]] * 4 == recorder.everywhere("client")
    assert 0 == recorder.total("grpc_client_in_flight")


@EACH_WAY
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # grpc's own, of a loop that is closed
@pytest.mark.parametrize("arity", ARITIES)
def test_call_held_by_an_interceptor(
    arity: str, way: str, collections: Collections, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A call that an interceptor after ours still has when its loop is closed is reported so when a collection finds it.
    """
    recorder, loop = Recorder(extra=(collections,)), asyncio.new_event_loop()
    kept: list[Any] = []

    async def hold(*_call: Any) -> None:
        await asyncio.Event().wait()

    async def begin() -> None:
        channel = aio_channel(way, "localhost:1", *recorder.observers, client=[aio_interceptor(arity, hold)])
        kept.extend([channel, method(channel, arity)(requests(arity))])
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with caplog.at_level(logging.CRITICAL):
        loop.run_until_complete(begin())
        loop.close()
        kept.clear()
        for _ in range(10):  # what is found releases the next
            gc.collect()
            finalizers.flush(5)
        recorder.wait_for()

    assert [] == collections.inside
    assert [["CANCELLED"]] * 4 == recorder.everywhere("client")
    assert 0 == recorder.total("grpc_client_in_flight")


@EACH_WAY
def test_stress(way: str) -> None:
    """
    With a collection at every turn, hundreds of dropped streams hang nothing, and each call is reported.
    """
    program = "tests.support.programs.collected_aio"
    process = python.run("-m", program, way, "0", timeout=LONG, variables={"GRPC_VERBOSITY": "NONE"})

    assert (0, "") == (process.returncode, process.stderr)
    assert [1800, 1800, 1800, 0] == json.loads(process.stdout)
