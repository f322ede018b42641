"""
Runs in a pod: calls Service B at a steady rate until its stdin ends, and says in lines of JSON what became of them.

`python caller.py RATE [--retry]`; with `--retry` a call that is UNAVAILABLE is made up to four times more, by gRPC's
own retry policy. Each line has the calls that have ended so far, by their codes, and of those that failed when they
began, in seconds since the epoch, and why. There is one for every 20 calls, and a last one.
"""

# ruff: noqa: T201 - a program, which prints

import json
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from protos.echo_pb2 import CallEchoRequest
from protos.echo_pb2_grpc import CallEchoServiceStub

TARGET = "dns:///service-b:8081"
TIMEOUT = 10.0  # seconds
RETRY = {
    "methodConfig": [
        {
            "name": [{"service": "echo.v1.CallEchoService"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


class Calls:
    """The calls that have been made."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._begun = 0
        self._codes: Counter[str] = Counter()
        self._failed: list[tuple[float, str]] = []

    def make(self, stub: CallEchoServiceStub) -> None:
        """Begin one."""
        self._begun += 1
        call: Any = stub.CallEcho.future(CallEchoRequest(msg="hello"), timeout=TIMEOUT)
        call.add_done_callback(partial(self._ended, time.time()))

    def _ended(self, begun: float, call: Any) -> None:
        with self._changed:
            self._codes[call.code().name] += 1
            if call.code() is not grpc.StatusCode.OK:
                self._failed.append((begun, f"{call.code().name}: {call.details()}"))
            if self._codes.total() % 20 == 0:
                self._print()
            self._changed.notify_all()

    def finish(self) -> None:
        """Wait for all of them."""
        with self._changed:
            self._changed.wait_for(lambda: self._codes.total() == self._begun)
            self._print()

    def _print(self) -> None:
        print(json.dumps({"codes": self._codes, "failed": self._failed}), flush=True)


def main(rate: float, *options: str) -> None:
    """Make calls until nobody wants more."""
    certs = Path("/certs")
    credentials = grpc.ssl_channel_credentials(
        *((certs / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
    )
    over = threading.Event()
    threading.Thread(target=set_at_end, args=(over,), daemon=True).start()
    # A connection that was refused is tried again at once: behind the name is more than one pod.
    arguments: list[tuple[str, Any]] = [("grpc.initial_reconnect_backoff_ms", 100)]
    if "--retry" in options:
        arguments.append(("grpc.service_config", json.dumps(RETRY)))
    with grpc.secure_channel(TARGET, credentials, arguments) as channel:
        stub, calls, due = CallEchoServiceStub(channel), Calls(), time.monotonic()
        while not over.wait(max(0.0, due - time.monotonic())):
            calls.make(stub)
            due += 1 / rate
        calls.finish()


def set_at_end(over: threading.Event) -> None:
    """Set this when nobody wants more calls."""
    sys.stdin.read()
    over.set()


if __name__ == "__main__":
    main(float(sys.argv[1]), *sys.argv[2:])
