"""Service A or B under attack: what it counts, what it logs, what it takes."""

import re
import time
from collections import Counter
from collections.abc import Callable

import psutil

from client.lines import fields
from client.processes import Service
from client.web import get

SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
# What gRPC's core writes in its own format: docs/settings.md says how many such lines there are.
CORE = re.compile(
    r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ [\w.]+:\d+\]|WARNING: All log messages before absl::InitializeLog"
)
RAISED = re.compile(r"Traceback|Exception|Error:")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Target:
    """A service, and the methods by which others attack it: one that answers once, and one that answers a stream."""

    def __init__(self, name: str, service: Service, unary: str, chat: str) -> None:
        self.name = name
        self.service = service
        self.unary = unary
        self.chat = chat
        self._seen: Counter[str] = Counter()

    @property
    def address(self) -> str:
        """`HOST:PORT` of its gRPC server."""
        return self.service.address

    @property
    def megabytes(self) -> float:
        """What it holds in memory, in MB."""
        return psutil.Process(self.service.pid).memory_info().rss / 1e6

    @property
    def cpu_seconds(self) -> float:
        """The CPU time that it has taken."""
        times = psutil.Process(self.service.pid).cpu_times()
        return float(times.user + times.system)

    def total(self, metric: str, **labels: str) -> int:
        """Return the sum of a metric over all series with these labels."""
        found = 0.0
        for line in get(self.service.metrics_url).splitlines():
            sample = SAMPLE.fullmatch(line)
            if sample and sample[1] == metric and labels.items() <= dict(LABEL.findall(sample[2] or "")).items():
                found += float(sample[3])
        return round(found)

    def busy_workers(self, enough: Callable[[int], bool], patience: float = 15.0) -> int:
        """Wait until as many threads are held by calls as is enough; return how many are."""
        deadline = time.monotonic() + patience
        while not enough(found := self.total("grpc_server_busy_workers", pool="calls")) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def lines(self, kind: str = "server") -> list[str]:
        """Return the lines of calls so far, served or made."""
        return self.service.stdout.lines(" endpoint=", f" kind={kind} ")

    def counts(self, kind: str = "server", patience: float = 15.0) -> dict[str, int]:
        """Wait until every call that has started is over and logged; return how often each signal has it."""
        deadline = time.monotonic() + patience
        while True:
            counts = {
                "started": self._logged(f"grpc_{kind}_started_total"),
                "handled": self._logged(f"grpc_{kind}_handled_total"),
                "timed": self._logged(f"grpc_{kind}_handling_seconds_count"),
                "lines": self.codes(kind).total(),
            }
            if len({*counts.values()}) == 1 or time.monotonic() > deadline:
                return counts
            time.sleep(0.05)

    def _logged(self, metric: str) -> int:
        """Return the sum of a metric over the services whose calls have lines: health checks have none."""
        return self.total(metric) - self.total(metric, grpc_service="grpc.health.v1.Health")

    def codes(self, kind: str = "server") -> Counter[str]:
        """Return how many calls the log has of each code: one a line, but for lines that have a number of calls."""
        codes = Counter(fields(line)["code"] for line in self.lines(kind))
        for line in map(fields, self.service.stdout.lines(" calls=") if kind == "server" else []):
            codes[line["code"]] += int(line["calls"])
        return codes

    def complaints(self) -> list[str]:
        """Return the errors of its own that it has logged, and what nobody has caught, since it was asked last."""
        lines = [line for line in self.service.stdout.lines() if " service=" not in line]
        lines += [line for line in self.service.stdout.lines("level=error", " event=") if " calls=" not in line]
        # gRPC's core writes there too, and with it bytes of a peer's, ends of lines among them.
        lines += [line for line in self.service.stderr.lines() if RAISED.search(line)]
        new = Counter(lines) - self._seen
        self._seen = Counter(lines)
        return list(new)

    @property
    def core_lines(self) -> int:
        """How many lines gRPC's core has written."""
        return sum(CORE.match(line) is not None for line in self.service.stderr.lines())


def service_a(service: Service) -> Target:
    """Return Service A as a target."""
    return Target("A", service, "/echo.v1.EchoService/Echo", "/echo.v1.EchoService/EchoChat")


def service_b(service: Service) -> Target:
    """Return Service B as a target."""
    return Target("B", service, "/echo.v1.CallEchoService/CallEcho", "/echo.v1.CallEchoService/CallEchoChat")
