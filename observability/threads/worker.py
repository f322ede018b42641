"""A bounded queue and the thread that empties it, all that waits at once."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from .process import ForkLock, at_fork, before_exit

if TYPE_CHECKING:
    from collections.abc import Callable

Item = TypeVar("Item")

_EXIT_SECONDS: Final = 0.2


class BatchWorker(Generic[Item]):
    """
    A bounded queue, and the thread that hands what waits in it to `process`: all at once, in order.

    An item waits `delay` seconds at most, and no time at all after `wake`. What costs little for many items
    together, and much for each by itself, is done so: the processor's caches are full of it by the second one.
    """

    def __init__(self, process: Callable[[list[Item]], None], *, name: str, delay: float, limit: int) -> None:
        self._process = process
        self._name = name
        self._delay = delay
        self._limit = limit
        self._items: deque[Item | threading.Event] = deque()
        self._closed = False
        self._processing = ForkLock()  # what `process` holds, a child would wait for in vain
        self._start()
        at_fork(after_in_child=self._start)
        self._cancel_exit = before_exit(self._end)

    def __len__(self) -> int:
        """Return how many items wait."""
        return len(self._items)

    def put(self, item: Item) -> bool:
        """Queue an item; return False where there is no room for it, or no thread any more."""
        if self._closed or len(self._items) >= self._limit:
            return False
        self._items.append(item)
        if not self._waiting.is_set():
            self._waiting.set()
        return True

    def wake(self) -> None:
        """Let what waits be processed now."""
        self._urgent.set()

    def flush(self, seconds: float) -> bool:
        """Let what waits be processed, for this many seconds at most; return whether it is."""
        if self._closed and not self._thread.is_alive():
            return True
        processed = threading.Event()
        self._items.append(processed)
        self._urgent.set()
        self._waiting.set()
        return processed.wait(seconds)

    def close(self, seconds: float) -> None:
        """Refuse more, and let the thread end when what waits is processed; wait for that for so long at most."""
        self._closed = True
        if self.flush(seconds):
            self._cancel_exit()

    def _start(self) -> None:
        """Start the thread; a forked process has none of its parent's, and what waits is the parent's."""
        self._items.clear()
        if self._closed:
            return
        self._waiting = threading.Event()
        self._urgent = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def _end(self) -> None:
        """Process what came after the last flush, before the thread dies with the process."""
        if self._items:
            self.flush(_EXIT_SECONDS)

    def _wait_for_first(self, *, closed: bool) -> None:
        """Wait for an item. Those that come from then on until none is left wake no thread, which costs most of all."""
        self._waiting.clear()
        if not self._items:
            self._waiting.wait(self._delay if closed else None)
        self._waiting.set()

    def _run(self) -> None:
        closed = False
        while not closed:
            closed = self._closed  # and once more around: somebody may just have queued the last item
            if not self._items:
                self._wait_for_first(closed=closed)
            self._urgent.wait(self._delay)
            self._urgent.clear()
            with self._processing:
                items = [self._items.popleft() for _ in range(len(self._items))]
                self._process([item for item in items if not isinstance(item, threading.Event)])
                for item in items:
                    if isinstance(item, threading.Event):
                        item.set()
