"""
What a thousand calls a second take of everything that runs: `python -m benchmarks.capacity` prints tables.

Calls go to Service B, which calls A; both send their spans to the Collector's gateway, and it to a pair of samplers.
Prometheus scrapes as many copies of A's real /metrics as a small fleet has. The programs are those of `.tools/`. Little
is asked of the machine, whose cores all share: what is measured is processor time for a call, and for a sample.
"""

from __future__ import annotations

import re
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import click
import psutil

from client.processes import Service
from protos.echo_pb2 import CallEchoRequest
from tests.stack.collector import DECIDED, gateway, sampler
from tests.stack.programs import Program
from tests.stack.waiting import eventually
from tests.support.ports import free_ports
from tests.support.receiver import Receiver

from .fleet import fleet
from .load import Load, loader
from .scale import processor_seconds
from .simulation import markdown

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLS, PER_SECOND = 4_000, 200
"""Calls that are measured, and their pace."""
WARM_UP = 400
IDLE = 5.0
"""Seconds without a call, whose processor time is taken from what is measured."""
PODS, SCRAPES, INTERVAL = 50, 8, 5
"""Copies of one page that Prometheus scrapes, how often, and seconds between."""
METHOD = "/echo.v1.CallEchoService/CallEcho"


def megabytes(pid: int) -> float:
    """Return a process's resident memory."""
    return psutil.Process(pid).memory_info().rss / 1e6


def calls(folder: Path) -> tuple[list[tuple[str, ...]], dict[str, str]]:
    """Measure what calls take; return a table, and both services' /metrics."""
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        samplers = [
            stack.enter_context(sampler(folder / f"sampler-{number}.log", receiver.endpoint)) for number in (1, 2)
        ]
        entry = stack.enter_context(gateway(folder / "gateway.log", samplers))
        a = stack.enter_context(Service("service-a", OTEL_EXPORTER_OTLP_ENDPOINT=entry.otlp))
        b = stack.enter_context(
            Service("service-b", SERVICE_A_ADDRESS=a.address, OTEL_EXPORTER_OTLP_ENDPOINT=entry.otlp)
        )
        pages = {name: page(service) for name, service in (("Service A", a), ("Service B", b))}
        load = loader()
        message = CallEchoRequest(msg="hello").SerializeToString()

        def send(number: int) -> None:
            load.paced(Load(b.address, [METHOD], message, number, caller="untraced"), PER_SECOND)

        def decided() -> float:
            return sum(one.count(DECIDED) for one in samplers)

        pids = {
            "Service A": [a.pid],
            "Service B": [b.pid],
            "Collector, gateway": [entry.pid],
            "Collector, both samplers": [one.pid for one in samplers],
        }

        def taken() -> dict[str, float]:
            return {name: processor_seconds(of) for name, of in pids.items()}

        send(WARM_UP)
        eventually(decided, lambda found: found >= WARM_UP)
        before = taken()
        time.sleep(IDLE)
        idle = {name: (after - before[name]) / IDLE for name, after in taken().items()}
        before, started = taken(), time.monotonic()
        send(CALLS)
        memory = {name: sum(map(megabytes, of)) for name, of in pids.items()}
        eventually(decided, lambda found: found >= WARM_UP + CALLS)
        seconds = time.monotonic() - started
        after = taken()
        rows: list[tuple[str, ...]] = [("Program", "Cores for 1,000 calls/s", f"Memory at {PER_SECOND} calls/s")]
        for name in pids:
            cores = (after[name] - before[name] - idle[name] * seconds) / CALLS * 1_000
            rows.append((name, f"{cores:.2f}", f"{memory[name]:.0f} MB"))
        return rows, pages


def page(service: Service) -> str:
    """Return what a service's /metrics has."""
    with urlopen(service.metrics_url) as response:  # noqa: S310 - an address of our own
        text: str = response.read().decode()
    return text


def series(text: str) -> Counter[str]:
    """Return how many series of each kind a page of /metrics has."""
    kinds: Counter[str] = Counter()
    for name in re.findall(r"^([a-z_]+)[{ ]", text, re.MULTILINE):
        if not name.startswith(("grpc_server_", "grpc_client_")):
            kinds["of the process, and of telemetry"] += 1
        elif name.endswith("_bucket"):
            kinds["buckets"] += 1
        elif name.endswith("_handled_total"):
            kinds["counts by code"] += 1
        else:
            kinds["others of calls"] += 1
    return kinds


def counted(pages: dict[str, str]) -> list[tuple[str, ...]]:
    """Return a table of the series that each page has."""
    counts = {name: series(text) for name, text in pages.items()}
    kinds = sorted({kind for found in counts.values() for kind in found})
    rows = [("Series of a pod", *counts)]
    rows += [(kind, *(f"{found[kind]:,}" for found in counts.values())) for kind in kinds]
    return [*rows, ("all", *(f"{found.total():,}" for found in counts.values()))]


@contextmanager
def copies(text: str) -> Iterator[str]:
    """Serve a page at whatever path is asked for, and yield its address."""
    body = text.encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def scrapes(folder: Path, text: str) -> list[tuple[str, ...]]:
    """Measure what Prometheus takes for the series of some copies of a page; return a table."""
    found = series(text).total() * PODS
    with copies(text) as address:
        empty = prometheus(folder / "empty", "")
        with empty:
            time.sleep(INTERVAL)
            base, idle = megabytes(empty.pid), processor_seconds([empty.pid])
            time.sleep(INTERVAL)
            idle = (processor_seconds([empty.pid]) - idle) / INTERVAL
        jobs = "".join(
            f"  - job_name: pod-{pod}\n    metrics_path: /{pod}\n    static_configs: [{{targets: ['{address}']}}]\n"
            for pod in range(PODS)
        )
        with (full := prometheus(folder / "full", jobs)):
            time.sleep(2 * INTERVAL)
            before = processor_seconds([full.pid])
            time.sleep(SCRAPES * INTERVAL)
            cores = (processor_seconds([full.pid]) - before) / (SCRAPES * INTERVAL) - idle
            memory = megabytes(full.pid) - base
    return [
        ("Prometheus", f"for 100,000 series, each scraped every {INTERVAL} s"),
        ("Cores", f"{cores / found * 100_000:.2f}"),
        ("Memory", f"{memory / found * 100_000:.0f} MB, beside {base:.0f} MB for none"),
    ]


def prometheus(folder: Path, jobs: str) -> Program:
    """Return a Prometheus with such jobs."""
    [port] = free_ports(1)
    folder.mkdir()
    configuration = folder / "prometheus.yml"
    configuration.write_text(f"global: {{scrape_interval: {INTERVAL}s}}\nscrape_configs:\n{jobs or '  []'}\n")
    return Program(
        "prometheus",
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        log=folder / "prometheus.log",
        ready=f"http://127.0.0.1:{port}/-/ready",
    )


def main() -> int:
    """Measure, and print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        taken, pages = calls(Path(folder))
        scraped = scrapes(Path(folder), pages["Service A"])
    measured = "\n\n".join(markdown(table) for table in (taken, counted(pages), scraped))
    click.echo(f"{measured}\n\n{markdown(fleet(measured))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
