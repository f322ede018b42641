"""
A process that forks, or starts a child, in the way that its first argument names, and waits for the child's end.

The child calls the service at the address of the second argument. The parent has a line, a call and its span waiting
when it forks: it alone is to report these. Its call is made up, without gRPC, which may not work in a child where the
parent has used it. The third argument has options of Telemetry.start, as JSON, and among them `flushed`, whether the
parent flushes before it forks. Prints, to stderr, the exit status of the child and the seconds from the end of the
child's work to the child's end.
"""

import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import grpc

from observability import Telemetry
from observability.calls.method import method_at
from observability.calls.observation import Observation
from tests.support.rpc import NAMES, SERVICE, method

logger = logging.getLogger("forking")
forked: Any = multiprocessing.get_context("fork")
worked: Any = forked.Array("d", 1)
"""When the child's work ended, by the clock that all processes share."""


class Forking:
    """What parent and child have in common."""

    def __init__(self, address: str, **options: Any) -> None:
        self.address = address
        self.options = options

    def start(self) -> None:
        """Start telemetry."""
        self.telemetry = Telemetry.start("forking", **self.options)

    def be_parent(self, *, flushed: bool) -> None:
        """Log a line, and report a call."""
        self.start()
        logger.info("parent")
        called = method_at(f"/{SERVICE}/{NAMES['unary']}", "unary")
        reporter = self.telemetry.reporter
        Observation(called, "client", [], reporter, time.perf_counter(), time.time_ns()).end(grpc.StatusCode.OK)
        if flushed:
            self.telemetry.flush(10)

    def work(self) -> None:
        """Log three lines, and make three calls."""
        with grpc.insecure_channel(self.address) as plain:
            channel = self.telemetry.intercept_channel(plain, target=self.address)
            for number in range(3):
                logger.info("child %d", number)
                method(channel, "unary")(b"a", timeout=10)
        worked[0] = time.monotonic()

    def start_and_work(self) -> None:
        """Be a child that starts its own telemetry."""
        self.start()
        self.work()

    def work_and_raise(self) -> None:
        """Be a child that fails."""
        self.work()
        raise ValueError("as asked")

    def work_and_exit(self) -> None:
        """Be a child that leaves by sys.exit."""
        self.work()
        sys.exit(0)

    def work_until_terminated(self) -> None:
        """Be a child that ends itself when it is asked to."""
        asked = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: asked.set())
        self.work()
        asked.wait(10)

    def work_by_a_child(self) -> None:
        """Be a child that has one itself."""
        process(self.work)

    def work_by_hand(self) -> None:
        """Be a child that forks by hand."""
        by_hand(self.work)


here: list[Forking] = []
"""What a pool's processes know by having been forked: they are handed no telemetry."""


def work_here() -> None:
    """Be a task of a pool."""
    here[0].work()


def process(work: Callable[[], None], context: Any = forked) -> int:
    """Have it done by a child of `multiprocessing`; return its exit status."""
    child = context.Process(target=work)
    child.start()
    child.join()
    return int(child.exitcode)


def by_hand(work: Callable[[], None]) -> int:
    """Have it done by a child of os.fork that leaves like any process, as gunicorn's workers do."""
    pid = os.fork()
    if pid == 0:
        work()
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def at_once(forking: Forking) -> int:
    """Have it done by a child of os.fork that leaves at once, after a flush."""
    pid = os.fork()
    if pid == 0:
        forking.work()
        os._exit(not forking.telemetry.flush(10))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def terminated(forking: Forking) -> int:
    """Have it done by a child that is then terminated."""
    child = forked.Process(target=forking.work_until_terminated)
    child.start()
    while not worked[0]:
        time.sleep(0.005)
    child.terminate()
    child.join()
    return int(child.exitcode)


def pool(forking: Forking) -> int:
    """Have it done by a process of a pool."""
    here.append(forking)
    with ProcessPoolExecutor(1, mp_context=forked) as executor:
        executor.submit(work_here).result()
    return 0


def billiard(forking: Forking) -> int:
    """Have it done by a process of the fork of `multiprocessing` that Celery uses."""
    import billiard  # type: ignore[import-untyped]  # noqa: PLC0415 - it shares its state with `multiprocessing`

    return process(forking.work, billiard)


def billiard_pool(forking: Forking) -> int:
    """Have it done by a worker such as Celery's."""
    from billiard.pool import Pool  # type: ignore[import-untyped]  # noqa: PLC0415 - as above

    here.append(forking)
    with Pool(1) as workers:
        workers.apply(work_here)
        workers.close()
        workers.join()
    return 0


WAYS: dict[str, Callable[[Forking], int]] = {
    "multiprocessing": lambda forking: process(forking.work),
    "a child that fails": lambda forking: process(forking.work_and_raise),
    "a child that exits": lambda forking: process(forking.work_and_exit),
    "a child that is terminated": terminated,
    "a child's child": lambda forking: process(forking.work_by_a_child),
    "a child's child by hand": lambda forking: process(forking.work_by_hand),
    "a pool": pool,
    "os.fork": lambda forking: by_hand(forking.work),
    "os.fork, os._exit": at_once,
    "billiard": billiard,
    "a pool of billiard": billiard_pool,
}
"""Ways to fork a process that has telemetry."""
OWN: dict[str, Callable[[Forking], int]] = {
    name: lambda forking, name=name: process(forking.start_and_work, multiprocessing.get_context(name))  # type: ignore[misc]
    for name in ("fork", "spawn", "forkserver")
}
"""Ways to start a process that starts its own."""


def main(way: str, address: str, options: str) -> None:
    """Make a process, and wait for its end."""
    given = json.loads(options)
    flushed = given.pop("flushed", False)
    forking = Forking(address, **given)
    if way in WAYS:
        forking.be_parent(flushed=flushed)
    status = {**WAYS, **OWN}[way](forking)
    sys.stderr.write(f"{json.dumps([status, time.monotonic() - worked[0]])}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
