"""The gate, with an observer of its own: a line in a file for each call that took too long."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import grpc

from examples.gate import Gate
from observability import Call, HideExceptions, Observer, OnEnd, Outcome, Telemetry, serve
from protos.echo_pb2_grpc import add_HealthServiceServicer_to_server


def note_slow_calls(path: Path, seconds: float) -> Observer:
    """Append a line of JSON to this file for each call that takes longer than so many seconds, on either side."""

    def observe(call: Call) -> OnEnd:
        def on_end(outcome: Outcome) -> None:
            if outcome.seconds <= seconds or call.type != "unary":  # a stream is as long as its caller wants
                return
            line = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "kind": call.kind,
                "method": f"{call.service}/{call.method}",
                "code": outcome.code.name,
                "seconds": round(outcome.seconds, 6),
                "queued": call.queue_seconds and round(call.queue_seconds, 6),
                "trace_id": call.trace_id,
            }
            with path.open("ab", buffering=0) as file:  # one write at its end: the lines of many threads stay whole
                file.write(json.dumps(line).encode() + b"\n")

        return on_end

    return observe


def main(address: str, behind: str, path: str, seconds: str) -> int:
    """Serve on `address`; the service behind is at `behind`."""
    telemetry = Telemetry.start("gate", metrics_port=9466, observers=[note_slow_calls(Path(path), float(seconds))])
    channel = telemetry.intercept_channel(grpc.insecure_channel(behind), target=behind)
    server = grpc.server(ThreadPoolExecutor(8), interceptors=[HideExceptions(), *telemetry.server_interceptors()])
    add_HealthServiceServicer_to_server(Gate(channel), server)
    return serve(server, address, telemetry)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
