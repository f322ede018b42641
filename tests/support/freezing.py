"""Stopping a service for a while, as a debugger does."""

import signal
import time
from pathlib import Path

from client.processes import Service


def freeze(service: Service) -> None:
    """Stop every thread of a service, and wait until they have; SIGCONT lets them go on."""
    service.signal(signal.SIGSTOP)
    threads = Path(f"/proc/{service.pid}/task")
    while not all(_is_stopped(thread) for thread in threads.iterdir()):
        time.sleep(0.001)


def _is_stopped(thread: Path) -> bool:
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return True
