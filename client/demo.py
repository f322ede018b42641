"""The demo: both services, a call that succeeds and one that fails, and all that is reported about them."""

import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from client.collector import Collector
from client.processes import ROOT, Service, environment
from client.screen import Screen
from client.web import metrics
from programs.options import NewFile

CALL = ("call-echo", "hello", "--verbose")
TRACE_ID = re.compile(r"\btrace_id=([0-9a-f]{32})")


class Certs(click.ParamType[Path]):
    """A folder with an authority's certificate, as `make certs` writes it."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path, from the root on: the services run in their own folders."""
        path = Path(value).resolve()
        if not (path / "ca.pem").is_file():
            self.fail(f"{value!r} is not a folder that `make certs` has written", param, ctx)
        return path


@dataclass(frozen=True, slots=True)
class System:
    """What runs for the demo: two services, and the collector that their spans go to."""

    service_a: Service
    service_b: Service
    collector: Collector
    certs: Path | None

    @classmethod
    def start(cls, ends: ExitStack, certs: Path | None) -> "System":
        """Start everything on free ports, with TLS if there are certificates; it ends with `ends`."""
        collector = ends.enter_context(Collector())
        # Spans are sent often: a person is waiting for them.
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        service_a = ends.enter_context(Service("service-a", **variables, **tls("SERVICE_A", "service-a", certs)))
        variables |= {"SERVICE_A_ADDRESS": service_a.address, **tls("SERVICE_B", "service-b", certs)}
        service_b = ends.enter_context(Service("service-b", **variables))
        system = cls(service_a, service_b, collector, certs)
        _ = service_b.address, system.metrics()  # both are there
        return system

    def call(self) -> subprocess.CompletedProcess[str]:
        """Run the client as a person would, with its log line."""
        return subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "client", *CALL],
            cwd=ROOT,
            env=environment(
                OTEL_EXPORTER_OTLP_ENDPOINT=self.collector.endpoint,
                SERVICE_B_ADDRESS=self.service_b.address,
                **tls("CLIENT", "client", self.certs),
            ),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    def metrics(self, *, of_a: bool = True) -> dict[str, list[str]]:
        """Return the lines of the services' /metrics."""
        services = {"B": self.service_b} | ({"A": self.service_a} if of_a else {})
        return {name: metrics(service.metrics_url) for name, service in services.items()}


def tls(prefix: str, owner: str, certs: Path | None) -> dict[str, str]:
    """Return the variables of a program that give it mutual TLS, by what `make certs` has written to this folder."""
    if certs is None:
        return {}
    files = {"CERT": f"{owner}.pem", "KEY": f"{owner}.key"}
    if prefix != "SERVICE_A":
        files["CA"] = "ca.pem"
    if prefix != "CLIENT":
        files["CLIENT_CA"] = "ca.pem"
    return {f"{prefix}_TLS_{name}": str(certs / file) for name, file in files.items()}


def counted_by(lines: Sequence[str], before: Sequence[str], trace_id: str) -> list[str]:
    """Return the metrics that count a call: the counts it changed, and the bucket with its exemplar."""
    known = set(before)
    return [
        line
        for line in lines
        if (line.startswith(("grpc_server_handled_total{", "grpc_client_handled_total{")) and line not in known)
        or ("handling_seconds_bucket{" in line and trace_id in line)
    ]


@click.command()
@click.option("--svg", type=NewFile(), help="Save the screen as a picture, too.")
@click.option("--certs", type=Certs(), help="With TLS, by what `make certs` has written to this folder.")
def demo(svg: Path | None, certs: Path | None) -> int:
    """
    Show everything, with nothing running beforehand.

    Starts both services on free ports, makes a call that succeeds and one that fails, and shows what is reported
    of each: the answer, the log lines, the trace and the metrics. Then it stops everything.
    """
    console = Console(record=svg is not None)
    screen = Screen(console)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))  # not without ending the services
    with ExitStack() as ends:
        with console.status("Starting Service A and Service B …"):
            system = System.start(ends, certs)
        screen.introduce(system.service_a.address, system.service_b.address)
        screen.title("1", "A call that succeeds")
        show_call(system, screen, a_runs=True)
        with console.status("Stopping Service A …"):
            status = system.service_a.stop()
        screen.title("2", f"The same call after Service A was stopped (SIGTERM, exit status {status})")
        show_call(system, screen, a_runs=False)
    screen.farewell()
    if svg is not None:
        console.save_svg(str(svg), title="make demo")
    return 0


def show_call(system: System, screen: Screen, *, a_runs: bool) -> None:
    """Make a call and show what everyone reports of it."""
    before = system.metrics(of_a=a_runs)
    answer = system.call()
    trace_id = next(iter(TRACE_ID.findall(answer.stderr)), "")
    # Both sides of client → B, and of B → A; without A only B's side of the latter.
    spans = system.collector.wait_for(4 if a_runs else 3, trace_id=trace_id)
    lines = [("client", line) for line in answer.stderr.splitlines()]
    lines += [("B", line) for line in system.service_b.stdout.wait_for(trace_id, count=2)]
    if a_runs:
        lines += [("A", line) for line in system.service_a.stdout.wait_for(trace_id)]
    after = system.metrics(of_a=a_runs)
    screen.answer(f"python client {' '.join(CALL)}", answer.stdout.strip(), answer.returncode)
    screen.log_lines(lines)
    screen.trace(trace_id, spans)
    screen.metrics({name: counted_by(after[name], before[name], trace_id) for name in after})
