"""Stopping a service for a while, as a debugger does."""

import signal
import time
from pathlib import Path

from client.processes import Service


def freeze(service: Service) -> None:
    """Stop every thread of a service, and wait until they have; SIGCONT lets them go on."""
    service.signal(signal.SIGSTOP)
    threads = list(Path(f"/proc/{service._process.pid}/task").iterdir())
    while any((thread / "stat").read_text().rpartition(")")[2].split()[0] != "T" for thread in threads):
        time.sleep(0.001)
