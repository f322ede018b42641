"""
A process with telemetry that serves, and makes calls to itself, as commands say.

It reads commands from stdin, one JSON list per line: a function's name and its arguments, the first of them
`start`. It writes each one's result as a line of JSON to the file descriptor that its argument names. stdout and
stderr are telemetry's.
"""

import json
import logging
import os
import sys
import time
import urllib.request
from contextlib import ExitStack
from typing import Any

import grpc
import structlog

from observability import HideExceptions, Telemetry
from tests.support.rpc import as_asked, method, serving


class Words:
    """The commands."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def start(self, **options: Any) -> dict[str, Any]:
        """Start telemetry with these options of Telemetry.start, a server and a channel to it."""
        self._telemetry = Telemetry.start("words", **options)
        interceptors = [HideExceptions(), *self._telemetry.server_interceptors()]
        address = self._stack.enter_context(serving(*interceptors, unary=as_asked))
        # To itself, past any proxy that a test has put into the environment.
        plain = self._stack.enter_context(grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]))
        self._channel = self._telemetry.intercept_channel(plain, target=address)
        return {"address": address, "metrics": self._telemetry.metrics_address}

    def call(self, request: str, count: int = 1, **metadata: str) -> list[str]:
        """Make this many calls; return their codes."""
        return [self._call(request, metadata) for _ in range(count)]

    def _call(self, request: str, metadata: dict[str, str]) -> str:
        future = method(self._channel, "unary").future(request.encode(), timeout=30, metadata=list(metadata.items()))
        future.exception()
        return str(future.code().name)

    def scrape(self) -> str:
        """Return what /metrics says, exemplars included."""
        headers = {"Accept": "application/openmetrics-text; version=1.0.0"}
        request = urllib.request.Request(f"http://{self._telemetry.metrics_address}/metrics", headers=headers)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as response:
            return str(response.read().decode())

    def log(self, event: str, count: int = 1) -> None:
        """Log this many application lines by structlog, and as many by `logging`."""
        for _ in range(count):
            structlog.get_logger().info(event, by="structlog")
            logging.getLogger("words").info(event, extra={"by": "logging"})

    def tracing(self) -> dict[str, str]:
        """Return how spans are sampled, carried and sent."""
        from opentelemetry import propagate  # noqa: PLC0415 - not before telemetry has started

        tracing = self._telemetry.tracing
        batch: Any = getattr(tracing.processor, "_batch_processor", None)
        exporter: Any = getattr(tracing.delivery, "_exporter", None)
        sampler: Any = getattr(tracing.provider, "sampler", None)
        facts = {
            "provider": type(tracing.provider).__name__,
            "sampler": sampler and sampler.get_description(),
            "resource": sorted(getattr(getattr(tracing.provider, "resource", None), "attributes", {})),
            "fields": sorted(propagate.get_global_textmap().fields),
            "exporter": type(exporter).__module__,
            **{
                name: getattr(exporter, name, None)
                for name in ("_endpoint", "_insecure", "_timeout", "_headers", "_compression")
            },
            "queue": batch and batch._max_queue_size,
            "batch": batch and batch._max_export_batch_size,
            "delay": batch and batch._schedule_delay,
        }
        return {name: str(value) for name, value in facts.items()}

    def resource(self) -> dict[str, str]:
        """Return the attributes of the resource that spans are of."""
        provider: Any = self._telemetry.tracing.provider
        return {key: str(value) for key, value in provider.resource.attributes.items()}

    def send(self) -> None:
        """Have the spans that wait sent."""
        provider: Any = self._telemetry.tracing.provider
        provider.force_flush()

    def flush(self, seconds: float) -> tuple[bool, float]:
        """Flush telemetry; return what that returns, and the seconds that it took."""
        start = time.monotonic()
        return self._telemetry.flush(seconds), time.monotonic() - start

    def close(self) -> float:
        """Stop serving and close telemetry; return the seconds that took."""
        self._stack.close()
        start = time.monotonic()
        self._telemetry.close()
        return time.monotonic() - start


def main() -> None:
    """Do what is asked until stdin ends."""
    words = Words()
    with os.fdopen(int(sys.argv[1]), "w") as replies:
        for line in sys.stdin:
            name, arguments = json.loads(line)
            result = getattr(words, name)(**arguments)
            print(json.dumps(result), file=replies, flush=True)


if __name__ == "__main__":
    main()
