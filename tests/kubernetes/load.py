"""Calls to Service B from a pod, at a steady rate, while something is done to the services."""

import json
import subprocess
import threading
from collections import Counter
from types import TracebackType
from typing import Any, Self

from tests.kubernetes.kubectl import Kubectl
from tests.stack.waiting import eventually


class Load:
    """Calls from `with` to its end; afterwards every call has its code, and those that failed when they began."""

    def __init__(self, kubectl: Kubectl, *options: str, rate: float = 100.0) -> None:
        self.codes: Counter[str] = Counter()
        self.failed: list[tuple[float, str]] = []
        self._changed = threading.Condition()
        self._command = ("exec", "--stdin", "caller", "--", "python", "/tests/caller.py", str(rate), *options)
        self._kubectl = kubectl

    def __enter__(self) -> Self:
        self._process = self._kubectl.start(*self._command)
        self._thread = threading.Thread(target=self._read, args=(self._process,))
        self._thread.start()
        self.wait_for(100)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._thread.join()
            assert self._process.stdout
            self._process.stdout.close()

    def wait_for(self, calls: int, timeout: float = 60.0) -> None:
        """Wait until so many calls more have ended; AssertionError if they do not."""
        with self._changed:
            enough = self.codes.total() + calls
            assert self._changed.wait_for(lambda: self.codes.total() >= enough, timeout), self.codes

    @property
    def seconds_of_failures(self) -> float:
        """How long it was from the first call that failed to the last."""
        begun = [begun for begun, _ in self.failed]
        return max(begun) - min(begun) if begun else 0.0

    def __repr__(self) -> str:
        return f"{dict(self.codes)} {len(self.failed)} failed, such as {self.failed[:3]}"

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            said: dict[str, Any] = json.loads(line)
            with self._changed:
                self.codes = Counter(said["codes"])
                self.failed = [(begun, why) for begun, why in said["failed"]]
                self._changed.notify_all()


def until(condition: Any, seconds: float = 90.0) -> None:
    """Wait until something in the cluster is so; AssertionError if it does not become so."""
    assert eventually(condition, timeout=seconds), "it did not become so"
