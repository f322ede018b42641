"""One running stack for all tests: Jaeger, the Collector, Prometheus, both services, and traffic that never stops."""

from collections.abc import Iterator

import pytest

from client.processes import Service
from tests.stack.collector import Collectors
from tests.stack.images import UPSTREAM
from tests.stack.jaeger import Jaeger
from tests.stack.programs import TOOLS
from tests.stack.prometheus import Prometheus
from tests.stack.stack import Stack, targets
from tests.stack.traffic import Traffic
from tests.support.ports import free_ports


@pytest.fixture(scope="session", autouse=True)
def _installed() -> None:
    """Fail early, and say what to do, where the programs are not there."""
    if not UPSTREAM and not (TOOLS / "jaeger").exists():
        pytest.exit("the programs are missing: run make stack-test, or python tools/install.py", returncode=1)


@pytest.fixture(scope="session")
def collectors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collectors]:
    """Return both tiers of the Collector, and beside them two that refuse and drop until the last test."""
    with Collectors(tmp_path_factory.mktemp("collectors")) as collectors, collectors.overloaded():
        yield collectors


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, collectors: Collectors) -> Iterator[Stack]:
    """Return the running stack; Prometheus scrapes all of it, and both services send their spans to Jaeger."""
    folder = tmp_path_factory.mktemp("stack")
    [port] = free_ports(1)
    with (
        Jaeger(folder, f"http://127.0.0.1:{port}") as jaeger,
        Service("service-a", "--reflection", OTEL_EXPORTER_OTLP_ENDPOINT=jaeger.otlp) as a,
        Service("service-b", "--reflection", SERVICE_A_ADDRESS=a.address, OTEL_EXPORTER_OTLP_ENDPOINT=jaeger.otlp) as b,
        Prometheus(
            folder / "prometheus",
            port,
            jaeger.targets | targets(a, b) | collectors.targets,
        ) as prometheus,
    ):
        yield Stack(jaeger, prometheus, a, b)


@pytest.fixture(scope="session")
def traffic(stack: Stack) -> Iterator[Traffic]:
    """Return traffic through every RPC of both services, which runs until the last test is over."""
    with Traffic(stack.a.address, stack.b.address) as traffic:
        yield traffic
