"""A pool of threads for calls, which may be held as long as their callers like."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    _Task: TypeAlias = "partial[None]"

_P = ParamSpec("_P")
_T = TypeVar("_T")

SPARE: Final = 32
"""How many threads stay that have nothing to do."""

_logger = logging.getLogger("observability")


class WorkerPool(ThreadPoolExecutor):
    """
    A pool of `max_workers` threads at most, which are made when calls need them, and end when they do not.

    One is there from the start, and up to 32 stay. Where the system grants no further thread, as a container's limit
    may say, what is submitted waits for one of those that there are, and one warning says so. The standard library's
    pool raises then, and a grpc.server does not survive that: its one serving thread ends. Threads are daemons: none
    keeps the process from its end. Raises RuntimeError where not even one thread can be had.
    """

    def __init__(self, max_workers: int, name: str = "worker") -> None:
        super().__init__(max_workers, name)
        self.max_workers: Final = max_workers
        self._workers = _Workers(max_workers, name)
        # They know nothing of the pool itself, so that one that nobody keeps ends them.
        weakref.finalize(self, self._workers.end)

    @property
    def busy_workers(self) -> int:
        """How many threads have something to do."""
        return self._workers.busy

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Call this in a thread of the pool, as soon as there is one; raise RuntimeError after shutdown."""
        future: Future[_T] = Future()
        self._workers.add(partial(_run, future, fn, args, kwargs))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as inherited
        """Take nothing more, and let the threads end once all that waits is done, or cancelled."""
        self._workers.close(cancel_waiting=cancel_futures)
        if wait:
            self._workers.join()


class _Workers:
    """The threads of a pool, and what waits for them."""

    def __init__(self, maximum: int, name: str) -> None:
        self._maximum = maximum
        self._name = name
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._unfinished = 0  # tasks that wait or run
        self._threads: set[threading.Thread] = set()
        self._closed = False
        self._lacking = False
        self._start()

    @property
    def busy(self) -> int:
        return min(self._unfinished, len(self._threads))

    def add(self, task: _Task) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._unfinished += 1
            if len(self._threads) < min(self._unfinished, self._maximum):
                self._start_if_granted()
        self._tasks.put(task)

    def close(self, *, cancel_waiting: bool) -> None:
        with self._lock:
            self._closed = True
        with contextlib.suppress(queue.Empty):
            while cancel_waiting:
                if (task := self._tasks.get_nowait()) is not None:
                    task.args[0].cancel()
        self.end()

    def join(self) -> None:
        for thread in [*self._threads]:
            thread.join()

    def end(self) -> None:
        """Let the threads end after what waits; as a finalizer may, for it takes no lock."""
        self._tasks.put(None)

    def _start_if_granted(self) -> None:
        try:
            self._start()
        except RuntimeError as error:
            if not self._lacking:
                _logger.warning("calls wait for a thread", extra={"threads": len(self._threads), "reason": str(error)})
            self._lacking = True
        else:
            self._lacking = False

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self._name}_{len(self._threads)}", daemon=True)
        thread.start()
        self._threads.add(thread)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            del task  # what it holds is not kept until the next one comes
            with self._lock:
                self._unfinished -= 1
                if len(self._threads) > self._unfinished + SPARE:
                    self._threads.discard(threading.current_thread())
                    return
        self.end()  # the next one, too


def _run(future: Future[Any], function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - it is the future's
        future.set_exception(error)
        del future  # the error's traceback has this frame, and would keep what keeps the error
    else:
        future.set_result(result)
