"""
What is done when the process forks, and before it ends.

A process that `multiprocessing` or billiard has forked, such as a worker of a pool, leaves by os._exit: what was
registered with `atexit` before the fork does not run there.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import WeakMethod

if TYPE_CHECKING:
    from collections.abc import Callable

    Action: TypeAlias = Callable[[], object]

_FORK_SECONDS: Final = 0.1
_LAST: Final = -1_000_000
"""The priority of a finalizer that runs after all others, and after the process's own children have ended."""


class _Methods:
    """Methods that are called together, as long as their objects live."""

    def __init__(self) -> None:
        self._references: list[WeakMethod[Action]] = []
        self._most = 0
        """How many there may be before those of dead objects are looked for: to do so each time takes ever longer."""

    def add(self, method: Action) -> None:
        """Add a method; of its object it keeps a weak reference only."""
        if len(self._references) >= self._most:
            self._references[:] = [known for known in self._references if known() is not None]
            self._most = 2 * len(self._references) + 10
        self._references.append(WeakMethod(method))

    def call(self, step: int = 1) -> None:
        """Call them in the order in which they were added, or in the opposite one, with -1."""
        for reference in self._references[::step]:
            method = reference()
            if method is not None:
                method()


class _Forks:
    """The methods that are called at each fork."""

    def __init__(self) -> None:
        self._before = _Methods()
        self._after_in_parent = _Methods()
        self._after_in_child = _Methods()
        os.register_at_fork(
            before=lambda: self._before.call(-1),
            after_in_parent=self._after_in_parent.call,
            after_in_child=self._after_in_child.call,
        )

    def add(
        self,
        *,
        before: Action | None = None,
        after_in_parent: Action | None = None,
        after_in_child: Action | None = None,
    ) -> None:
        """
        Call these methods at every fork: in the order of their registration, `before` in the opposite order.

        They must not raise. Their objects are known by weak references only.
        """
        for methods, method in (
            (self._before, before),
            (self._after_in_parent, after_in_parent),
            (self._after_in_child, after_in_child),
        ):
            if method is not None:
                methods.add(method)


class _Exits:
    """What is called before the process ends, and before the processes end that are forked from it."""

    def __init__(self) -> None:
        self._actions: list[Action] = []
        self._finalizer: Any = None
        self._finalized = 0  # the process that has the finalizer
        self._follows_forks = False

    def add(self, action: Action) -> Callable[[], None]:
        """
        Call this before the process ends, the latest action first; return what takes it back.

        An action may be called twice. None is called where nothing can be: at os._exit, and when a signal ends the
        process.
        """
        self._actions.append(action)
        atexit.register(action)
        util = sys.modules.get("multiprocessing.util")
        if util is not None and _is_child():
            self._finalize(util)

        def take_back() -> None:
            atexit.unregister(action)
            if action in self._actions:
                self._actions.remove(action)

        return take_back

    def forked(self) -> None:
        """Start the life of a child: of os.fork, or of `multiprocessing`, which sets itself up afterwards."""
        util = sys.modules.get("multiprocessing.util")
        if util is None:
            return
        if not self._follows_forks:
            # A child of `multiprocessing` first forgets its parent's finalizers, and then calls these.
            util.register_after_fork(util, self._finalize)
            self._follows_forks = True
        if _is_child():
            self._finalize(util)  # forked by hand from such a child, it ends as one, and sets nothing up

    def _finalize(self, util: Any) -> None:
        """Be called when `multiprocessing` ends this process."""
        if self._finalized == os.getpid() and self._finalizer.still_active():
            return
        self._finalized = os.getpid()
        self._finalizer = util.Finalize(None, self._run, exitpriority=_LAST)
        pool = sys.modules.get("billiard.pool")
        worker = getattr(_current_process(), "_target", None)
        if pool is not None and isinstance(worker, pool.Worker):
            self._run_after(worker)

    def _run_after(self, worker: Any) -> None:
        """Be called when a worker of billiard's pool, which is Celery's, ends: it leaves without its finalizers."""
        given = worker.on_exit

        def on_exit(*arguments: Any) -> None:
            if given is not None:
                given(*arguments)
            self._run()

        worker.on_exit = on_exit

    def _run(self) -> None:
        for action in self._actions[::-1]:
            action()


def _current_process() -> Any:
    """Return what `multiprocessing` has for this process, or None if nobody has imported it."""
    process = sys.modules.get("multiprocessing.process")
    return process and process.current_process()


def _is_child() -> bool:
    """Return whether `multiprocessing` or billiard has started this process, and so ends it."""
    return type(_current_process()).__name__ not in ("NoneType", "_MainProcess")


_forks: Final = _Forks()
_exits: Final = _Exits()
at_fork: Final = _forks.add
before_exit: Final = _exits.add
at_fork(after_in_child=_exits.forked)


class ForkLock:
    """
    A reentrant lock that every fork takes first, if it can have it within 0.1 s.

    A forked process has none of its parent's other threads, and what one of them held then is never free again.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        at_fork(before=self._hold, after_in_parent=self._let_go, after_in_child=self._renew)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_error: object) -> None:
        self._lock.release()

    def _hold(self) -> None:
        self._lock.acquire(timeout=_FORK_SECONDS)

    def _let_go(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was not to be had in time
            self._lock.release()

    def _renew(self) -> None:
        self._lock = threading.RLock()
