"""The pool of threads for calls: it grows and shrinks with what is held, and bears it where there is no thread."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from observability import HideExceptions, ServerInterceptor
from observability.testing import RecordedTelemetry
from observability.threads.pool import SPARE, WorkerPool
from tests.support.h2 import Wire, dial
from tests.support.recorder import PATIENCE, Recorder
from tests.support.rpc import NAMES, SERVICE, method, serving


class Held:
    """A handler that each call waits in until `go_on`; `entered` has one more for each that is in it."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Event()

    def __call__(self, request: bytes, _context: grpc.ServicerContext | None = None) -> bytes:
        """Answer with the request."""
        self.entered.release()
        self.go_on.wait(PATIENCE)
        return request

    def wait_for(self, calls: int) -> None:
        """Wait until so many calls more are in it."""
        assert all(self.entered.acquire(timeout=PATIENCE) for _ in range(calls))


@pytest.fixture
def held() -> Iterator[Held]:
    """Give a handler that nobody waits in after the test."""
    held = Held()
    yield held
    held.go_on.set()


def threads(name: str) -> int:
    """Return how many threads a pool of this name has."""
    return sum(thread.name.startswith(f"{name}_") for thread in threading.enumerate())


def eventually(value: int, look: Callable[[], float]) -> float:
    """Look until it is this; return what it is in the end."""
    deadline = time.monotonic() + PATIENCE
    while (found := look()) != value and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def test_threads_come_and_go(held: Held) -> None:
    """There are as many threads as there is to do, but one at first, and few once nothing is to be done."""
    with WorkerPool(SPARE + 20, "many") as pool:
        first = threads("many")
        futures = [pool.submit(held, b"") for _ in range(SPARE + 30)]
        held.wait_for(SPARE + 20)
        most, busy = threads("many"), pool.busy_workers
        held.go_on.set()
        for future in futures:
            future.result(PATIENCE)

        assert (1, SPARE + 20, SPARE + 20) == (first, most, busy)
        assert SPARE == eventually(SPARE, lambda: threads("many"))
        assert 0 == pool.busy_workers
    assert 0 == threads("many")


def test_pool_that_nobody_keeps() -> None:
    """A pool that is dropped ends its threads."""
    pool = WorkerPool(2, "dropped")
    pool.submit(int).result(PATIENCE)
    assert 1 == threads("dropped")
    del pool
    gc.collect()

    assert 0 == eventually(0, lambda: threads("dropped"))


def test_shutdown(held: Held) -> None:
    """After shutdown nothing is taken, and what waits is done, or cancelled if asked."""
    done, cancelled = WorkerPool(1), WorkerPool(1)
    waiting = [(pool.submit(held, b""), pool.submit(int)) for pool in (done, cancelled)]
    held.wait_for(2)
    done.shutdown(wait=False)
    cancelled.shutdown(wait=False, cancel_futures=True)
    held.go_on.set()

    assert [b"", 0] == [future.result(PATIENCE) for future in waiting[0]]
    assert (b"", True) == (waiting[1][0].result(PATIENCE), waiting[1][1].cancelled())
    for pool in (done, cancelled):
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(int)


def test_what_a_function_raises() -> None:
    """What is raised is the future's, and nothing keeps it longer than that."""

    def fail() -> None:
        raise SystemExit(3)

    gc.disable()
    try:
        with WorkerPool(1) as pool:
            error = pool.submit(fail).exception(PATIENCE)
        assert isinstance(error, SystemExit)
        [frames] = [frame for frame in [error.__traceback__] if frame is not None]
        assert "future" not in frames.tb_frame.f_locals
    finally:
        gc.enable()


class Refusing:
    """A system that grants no thread to pools of this name, once it is asked not to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.refuses = False
        start = threading.Thread.start

        def start_if_granted(thread: threading.Thread) -> None:
            if self.refuses and thread.name.startswith(f"{name}_"):
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_if_granted)


def test_no_thread_is_granted(held: Held, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where no thread can be started, calls wait for those that there are, the server goes on, and each is reported."""
    system, recorder = Refusing(monkeypatch, "calls"), Recorder()
    interceptors = [HideExceptions(), ServerInterceptor(*recorder.observers)]
    pool = WorkerPool(100, "calls")
    with serving(*interceptors, pool=pool, unary=held) as address, grpc.insecure_channel(address) as channel:
        system.refuses = True
        call = method(channel, "unary").future
        first = call(b"first", timeout=PATIENCE)
        held.wait_for(1)
        late = call(b"late", timeout=0.2)
        patient = [call(b"patient", timeout=PATIENCE) for _ in range(3)]
        codes = [late.code()]
        system.refuses = False
        second = call(b"second", timeout=PATIENCE)
        held.wait_for(1)  # there is a thread again, and one that waited is first
        held.go_on.set()
        answers = [each.result() for each in (first, *patient, second)]
        recorder.wait_for(6)

    assert [grpc.StatusCode.DEADLINE_EXCEEDED] == codes
    assert [b"first", *[b"patient"] * 3, b"second"] == answers
    # A call that is cut off sooner than another caller of the method would have been counts as one that left.
    assert ["CANCELLED", *["OK"] * 5] == sorted(recorder.codes)
    assert 1 == sum("calls wait for a thread" in record.getMessage() for record in caplog.records)


def test_workers_are_measured(held: Held) -> None:
    """The gauges show what is held, by handlers and by requests that do not come, until the telemetry is closed."""
    with RecordedTelemetry() as recorded:
        telemetry = recorded.telemetry
        pool, other = telemetry.worker_pool(8), telemetry.worker_pool(2, "other")
        more = telemetry.worker_pool(3)

        def value(metric: str, pool: str = "calls") -> Any:
            return recorded.registry.get_sample_value(f"grpc_server_{metric}_workers", {"pool": pool})

        with (
            serving(*telemetry.server_interceptors(), pool=pool, unary=held) as address,
            grpc.insecure_channel(address) as channel,
            dial(address) as wire,
        ):
            begin_without_message(wire, 3)
            answer = method(channel, "unary").future(b"a", timeout=PATIENCE)
            held.wait_for(1)
            busy = eventually(4, lambda: value("busy"))
            limits = value("max"), value("max", "other"), value("busy", "other")
            running = recorded.total("grpc_server_handlers_running", going_on=4)
            held.go_on.set()
            answer.result()
        assert (4, (11, 2, 0), 1) == (busy, limits, running)
        assert 0 == eventually(0, lambda: value("busy"))
    assert value("max") is None
    assert 0 == more.busy_workers == other.busy_workers


def begin_without_message(wire: Wire, calls: int) -> None:
    """Begin so many calls whose request never comes."""
    for _ in range(calls):
        wire.call(f"/{SERVICE}/{NAMES['unary']}", message=None, end=False)
