"""What the dashboard draws across its panels is there whenever it happened, as Grafana reads Prometheus's answer."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.stack.dashboards import Annotation, annotations
from tests.stack.prometheus import Prometheus
from tests.stack.waiting import eventually
from tests.support.ports import free_ports

# Prometheus scrapes five times as often as it is configured to, and every time below is shortened as much.
PACE = 5
PROGRAM = str(Path(__file__).parent / "short_lived.py")
PROCESSES, RESTARTS = 3, 10  # of each kind: so many processes, restarted so often
APART = 1.5  # seconds between two starts at least: what starts within a second is drawn as one
# How long a process is gone, in seconds, and how many scrapes find nothing there.
DOWN = {"at once": (0.0, 0), "after a missed scrape": (5.5, 1), "after 10 seconds": (10.5, 2)}
BY_NAME = {annotation.name: annotation for annotation in annotations()}
# The steps, in seconds, in which Grafana asks for 15 minutes, 2 hours and 16 hours on a screen that is 1,920 wide.
STEPS = (1.0, 5.0, 30.0)


@dataclass(frozen=True, slots=True)
class Life:
    """When a process started, and when it was first scraped."""

    started: float
    scraped: float


@dataclass(frozen=True, slots=True)
class Lives:
    """The lives of every process, by its address, and the Prometheus that scraped them."""

    prometheus: Prometheus
    of: dict[str, list[Life]]
    down: dict[str, str]

    def missed(self, address: str) -> float:
        """Return how many scrapes found nothing between the first one that found this process and the last."""
        first, *_, last = (life.scraped for life in self.of[address])
        up = f'up{{instance="{address}"}}[{(last - first) * 1000:.0f}ms]'
        return sum(self.prometheus.values(f"count_over_time({up}) - sum_over_time({up})", last).values())

    def events(self, annotation: Annotation, address: str, step: float) -> list[tuple[float, float]]:
        """Return the events that Grafana draws of this process."""
        shortened = Annotation(annotation.name, annotation.expression, annotation.step / PACE, annotation.by_value)
        every = [life.scraped for lives in self.of.values() for life in lives]
        # The rules fire too, of processes that are gone.
        of_this = f'instance="{address}", alertname=~"|Alive"'
        asked = shortened.asked(step / PACE).replace("{", f"{{{of_this}, ", 1)
        [samples] = self.prometheus.range(asked, min(every) - step, max(every) + step, step / PACE)
        return shortened.events(samples, step / PACE)


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    """Restart processes of each kind side by side, each as soon as it was scraped."""
    port, *ports = free_ports(1 + len(DOWN) * PROCESSES)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    down = dict(zip(addresses, list(DOWN) * PROCESSES, strict=True))
    folder = tmp_path_factory.mktemp("annotations")
    targets = {"service-a:9464": ", ".join(addresses), "service-b:9465": "127.0.0.1:1"}
    with (
        Prometheus(folder / "prometheus", port, targets, pace=PACE) as prometheus,
        ThreadPoolExecutor(len(ports)) as pool,
    ):
        pauses = [DOWN[kind][0] / PACE for kind in down.values()]
        found = Lives(prometheus, dict(zip(addresses, pool.map(restarted, ports, pauses), strict=True)), down)
        last = {address: lives[-1].started for address, lives in found.of.items()}
        assert last == eventually(lambda: kept(prometheus), lambda known: known == last)
        yield found


def restarted(port: int, pause: float) -> list[Life]:
    """Start the process and end it when it was scraped, again and again."""
    lives: list[Life] = []
    with contextlib.ExitStack() as processes:
        # It is loaded before its time, so that nobody is there for no longer than is meant.
        following = processes.enter_context(loaded(port))
        for _ in range(1 + RESTARTS):
            process, following = following, processes.enter_context(loaded(port))
            lives.append(Life(*lived(process)))
            time.sleep(max(pause, lives[-1].started + APART / PACE - time.time()))
    return lives


@contextlib.contextmanager
def loaded(port: int) -> Iterator[subprocess.Popen[str]]:
    """Give a process that is ready to start, and ends with the block at the latest."""
    command = [sys.executable, PROGRAM, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        try:
            yield process
        finally:
            process.kill()


def lived(process: subprocess.Popen[str]) -> tuple[float, float]:
    """Let a process start, be scraped and end; return when it started and when it was scraped."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("start\n")
    process.stdin.flush()
    started, scraped = (float(process.stdout.readline()) for _ in range(2))
    process.kill()
    process.wait()
    return started, scraped


def kept(prometheus: Prometheus) -> dict[str, float]:
    """Return the last start of each process that Prometheus knows."""
    samples = prometheus.query("last_over_time(process_start_time_seconds[5m])")
    return {sample["metric"]["instance"]: float(sample["value"][1]) for sample in samples}


def undrawn(lives: list[Life], events: list[tuple[float, float]], step: float) -> list[Life]:
    """Return the lives of which no event is drawn between their start and a step after they were scraped."""
    return [
        life
        for life in lives
        if not any(life.started - 0.002 <= end and start <= life.scraped + step for start, end in events)
    ]


@pytest.mark.parametrize("kind", DOWN)
def test_every_start_is_drawn(lives: Lives, kind: str) -> None:
    """
    Each start of a service is a separate event, at the very millisecond: the first, and after any time down.
    """
    for address in (address for address, its in lives.down.items() if its == kind):
        events = lives.events(BY_NAME["Starts"], address, step=STEPS[0])

        assert lives.missed(address) >= RESTARTS * DOWN[kind][1] / 2
        started = pytest.approx([life.started for life in lives.of[address]], abs=0.002)
        assert started == [start for start, _ in events]
        assert started == [end for _, end in events]


@pytest.mark.parametrize("step", STEPS)
def test_starts_are_drawn_from_afar(lives: Lives, step: float) -> None:
    """
    However coarse the steps in which Grafana asks, a start is drawn, or a later one within the same step.
    """
    for address, its in lives.of.items():
        events = lives.events(BY_NAME["Starts"], address, step)

        assert [] == undrawn(its, events, step / PACE)


@pytest.mark.parametrize("step", STEPS)
def test_every_alert_is_drawn(lives: Lives, step: float) -> None:
    """
    An alert that fires between two of the steps in which Grafana asks is drawn as well.
    """
    step = max(step, BY_NAME["Alerts"].step)
    for address, its in lives.of.items():
        events = lives.events(BY_NAME["Alerts"], address, step)

        assert [] == undrawn(its, events, step / PACE)
