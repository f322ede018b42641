"""The OpenTelemetry Collector: the real program with the configurations that compose mounts, and what it counts."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.request import urlopen

from tests.stack.programs import DEPLOY, Program
from tests.stack.traces import AT_ONCE, Trace, made_up, send
from tests.support.ports import free_ports
from tests.support.receiver import Receiver

GATEWAY, SAMPLER = DEPLOY / "collector" / "gateway.yaml", DEPLOY / "collector" / "sampler.yaml"
NAME = "otelcol-contrib"
DECIDED = "otelcol_processor_tail_sampling_global_count_traces_sampled"  # traces


class Collector(Program):
    """One Collector on free ports, from `with` to its end; started again, it has the same ones."""

    def __init__(self, configuration: Path, log: Path, **variables: str) -> None:
        otlp, http, health, metrics = free_ports(4)
        self.address = f"127.0.0.1:{otlp}"
        self.otlp = f"http://{self.address}"
        self.metrics_address = f"127.0.0.1:{metrics}"
        super().__init__(
            NAME,
            f"--config={configuration}",
            log=log,
            ready=f"http://127.0.0.1:{health}/",
            variables={
                "COLLECTOR_LISTEN_HOST": "127.0.0.1",
                "COLLECTOR_OTLP_GRPC_PORT": str(otlp),
                "COLLECTOR_OTLP_HTTP_PORT": str(http),
                "COLLECTOR_HEALTH_PORT": str(health),
                "COLLECTOR_METRICS_PORT": str(metrics),
                **variables,
            },
        )

    def count(self, metric: str, *labels: str) -> float:
        """Return the sum of a metric's series that have these labels, such as `sampled="true"`; 0 if it has none."""
        with urlopen(f"http://{self.metrics_address}/metrics") as response:
            text = response.read().decode()
        found = re.findall(rf"^{metric}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE)
        return sum(float(value) for its, value in found if set(labels) <= set(its.split(",")))


def gateway(log: Path, samplers: list[Collector], **variables: str) -> Collector:
    """Return a Collector of the first tier, which divides traces between these samplers."""
    addresses = ", ".join(sampler.address for sampler in samplers)
    return Collector(GATEWAY, log, COLLECTOR_SAMPLERS=f"[{addresses}]", **variables)


def sampler(log: Path, backend: str, **variables: str) -> Collector:
    """Return a Collector of the second tier, which sends what it keeps to an OTLP endpoint."""
    return Collector(SAMPLER, log, COLLECTOR_BACKEND=backend.removeprefix("http://"), **variables)


class Collectors:
    """
    The two tiers as compose has them, with a receiver behind that takes what they keep; from `with` to their end.

    Beside them stand a gateway and a sampler that have more to do than they may: `full`, whose sampler is not there and
    whose queue is small, and `forgetful`, which may have few traces in memory, none of them large, and sends what it
    keeps to nobody. What they refuse and drop is counted, as it would be of others.
    """

    def __init__(self, folder: Path) -> None:
        [nobody] = free_ports(1)
        self.receiver = Receiver()
        self.samplers = [sampler(folder / f"sampler-{n}.log", self.receiver.endpoint) for n in (1, 2)]
        self.gateway = gateway(folder / "gateway.log", self.samplers)
        self.forgetful = sampler(
            folder / "forgetful.log",
            f"http://127.0.0.1:{nobody}",
            COLLECTOR_DECISION_WAIT="1s",
            COLLECTOR_TRACES="200",
            COLLECTOR_TRACE_BYTES="2000",
            COLLECTOR_QUEUE_SPANS="512",
            COLLECTOR_PATIENCE="5s",
        )
        self.full = Collector(
            GATEWAY,
            folder / "full.log",
            COLLECTOR_SAMPLERS=f"[127.0.0.1:{nobody}]",
            COLLECTOR_QUEUE_SPANS="512",
        )
        self.targets = {
            "collector:8888": f"{self.gateway.metrics_address}, {self.full.metrics_address}",
            "sampler-1:8888": f"{self.samplers[0].metrics_address}, {self.forgetful.metrics_address}",
            "sampler-2:8888": self.samplers[1].metrics_address,
        }

    def __enter__(self) -> Self:
        with ExitStack() as stack, ThreadPoolExecutor() as pool:
            stack.enter_context(self.receiver)
            started = [self.gateway, *self.samplers, self.forgetful, self.full]
            for one in started:
                stack.push(one)
            list(pool.map(Program.start, started))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextmanager
    def overloaded(self) -> Iterator[None]:
        """Send more than `full` and `forgetful` may take, again and again meanwhile."""
        over = threading.Event()

        def send_all() -> None:
            for seed in count():
                send(made_up(seed, failed=AT_ONCE), self.full.otlp)
                send(made_up(seed, failed=AT_ONCE), self.forgetful.otlp)
                send([Trace(f"{seed + 1:032x}", failed_at=0)] * 10, self.forgetful.otlp)
                if over.wait(3):
                    return

        thread = threading.Thread(target=send_all)
        thread.start()
        yield
        over.set()
        thread.join()

    def decided(self, *, kept: bool) -> int:
        """Return how many traces the samplers have decided to keep, or to drop."""
        decision = 'sampled="true"' if kept else 'sampled="false"'
        return sum(int(sampler.count(DECIDED, decision)) for sampler in self.samplers)
