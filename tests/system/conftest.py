"""The programs under test, as processes on free ports."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc
import pytest

from tests.support import python
from tests.support.outputs import look_at
from tests.support.process import Service
from tests.support.receiver import Receiver

Client = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class System:
    """Service A, Service B that calls it, and where their spans go."""

    a: Service
    b: Service
    receiver: Receiver

    @property
    def variables(self) -> dict[str, str]:
        """What leads a client to these services."""
        return {
            "SERVICE_A_ADDRESS": self.a.address,
            "SERVICE_B_ADDRESS": self.b.address,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.receiver.endpoint,
        }

    def client(self, *arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the client against these services, until its end."""
        return run_client(*arguments, stdin=stdin, **{**self.variables, **variables})


def run_client(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `python client` from the root until its end, with these variables alone."""
    ended = python.run("client", *arguments, stdin=stdin, variables=variables)
    look_at(ended.stdout, ended.stderr)
    return ended


@contextlib.contextmanager
def running_system(*, a: tuple[str, ...] = (), b: tuple[str, ...] = (), **variables: str) -> Iterator[System]:
    """Run both services with these options and variables, and a receiver that gets their spans at once."""
    with Receiver() as receiver:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            **variables,
        }
        with (
            Service("service-a", *a, **variables) as service_a,
            Service("service-b", "--service-a", service_a.address, *b, **variables) as service_b,
        ):
            yield System(service_a, service_b, receiver)


@pytest.fixture(scope="package")
def system() -> Iterator[System]:
    """Give a system that nobody stops or changes; each worker has one."""
    with running_system() as running:
        yield running


@pytest.fixture
def own_system() -> Iterator[System]:
    """Give a system that the test may break."""
    with running_system() as running:
        yield running


@contextlib.contextmanager
def channel_to(service: Service) -> Iterator[grpc.Channel]:
    """Open a plain channel to a service."""
    with grpc.insecure_channel(service.address) as channel:
        yield channel
