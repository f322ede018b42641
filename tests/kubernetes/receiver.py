"""Runs in a pod: takes spans by OTLP at port 4317, and writes each to stdout as a line of JSON."""

# ruff: noqa: T201 - a program, which prints

import json
import signal
import sys

from client.collector import Collector
from client.spans import Span


def main() -> None:
    """Take spans until the pod goes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    written = 0
    with Collector("0.0.0.0:4317") as collector:
        while True:
            spans = collector.wait_for(written + 1, timeout=3600)
            for span in spans[written:]:
                print(line(span), flush=True)
            written = len(spans)


def line(span: Span) -> str:
    """Return what the tests ask of a span."""
    return json.dumps({"trace": span.trace_id, "service": span.service, "kind": span.kind, "name": span.name})


if __name__ == "__main__":
    main()
