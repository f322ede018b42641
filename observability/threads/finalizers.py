"""
What an object's finalizer wants done, and the thread that does it.

A finalizer (`__del__`, a generator that is closed because nobody keeps it) may run inside a garbage collection, on any
thread, in the middle of anything: that thread may hold the very lock that an observer, a metric or a log handler
would wait for. So nothing that can run there runs an observer, takes a lock or logs. It is deferred instead.
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING, Final

from .process import at_fork, before_exit

if TYPE_CHECKING:
    from collections.abc import Callable

_EXIT_SECONDS: Final = 0.2
_logger = logging.getLogger("observability")


class Finalizers:
    """A queue of deferred actions, and the daemon thread that runs them in order; started by the first interceptor."""

    def __init__(self) -> None:
        # Its put is reentrant, written for finalizers; that of every other queue takes a lock (bpo-14976).
        self._queue: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def start(self) -> None:
        """Start the thread, unless it runs."""
        with self._starting:
            if self._thread is None:
                self._start_thread()
                at_fork(after_in_child=self._start_again)
                before_exit(self._end)

    def defer(self, action: Callable[[], object]) -> None:
        """Let the thread run this soon. Safe inside a garbage collection: it takes no lock and never raises."""
        self._queue.put(action)

    def flush(self, seconds: float) -> bool:
        """Wait until what is deferred now has run, for this long at most; return whether it has."""
        thread = self._thread
        if thread is None or thread is threading.current_thread() or not thread.is_alive():
            return True
        done = threading.Event()
        self._queue.put(done.set)
        return done.wait(seconds)

    def _end(self) -> None:
        self.flush(_EXIT_SECONDS)

    def _start_again(self) -> None:
        """Start anew in a forked process, which has no thread of its parent's; what waits is the parent's."""
        self._queue = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._start_thread()

    def _start_thread(self) -> None:
        self._thread = threading.Thread(target=self._run, name="observability-finalizers", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            action = self._queue.get()
            try:
                action()
            except Exception:
                _logger.exception("a deferred end of a call failed")
            del action  # what it holds is not kept until the next one comes


finalizers: Final = Finalizers()
