"""The compose file, with a real container engine."""

import json
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import pytest

from client.processes import ROOT, Service
from protos.echo_pb2 import CallEchoRequest
from protos.echo_pb2_grpc import CallEchoServiceStub
from tests.stack.engine import Engine, engine, said
from tests.stack.images import images
from tests.stack.project import SERVICES, VIEWERS, Project
from tests.stack.prometheus import COPIES_FILE
from tests.stack.stack import HELLO, WHOLE_TRACE, call_echo
from tests.stack.waiting import eventually

A_DOWN = {
    "service_b": "ok",
    "service_a": "unavailable",
    "error": "StatusCode.UNAVAILABLE: failed to connect to all addresses",
}
UP = {"service-a": "up", "service-b": "up"}


@pytest.fixture(scope="module")
def running_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Return a container engine."""
    with engine(tmp_path_factory.mktemp("engine")) as running:
        yield running


@pytest.fixture(scope="module")
def named_images(running_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """Return the images to run, by the variables that name them to Compose."""
    with images(running_engine, tmp_path_factory.mktemp("images")) as named:
        yield named


@pytest.fixture(scope="module")
def viewers(running_engine: Engine, named_images: Mapping[str, str]) -> Iterator[Project]:
    """Return the stack that looks at services on the host."""
    with Project(running_engine, f"okit-host-{os.getpid()}", named_images) as project:
        project.up()
        yield project


@pytest.fixture(scope="module")
def everything(running_engine: Engine, named_images: Mapping[str, str]) -> Iterator[Project]:
    """Return the stack with both services in containers too."""
    with Project(running_engine, f"okit-all-{os.getpid()}", named_images) as project:
        project.up_with_services()
        yield project


@pytest.fixture(scope="module")
def host_services(running_engine: Engine, viewers: Project) -> Iterator[Service]:
    """Return Service B, which runs on the host beside Service A, both started as docs/stack.md says."""
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": viewers.otlp, **metrics_host(running_engine)}
    with (
        Service("service-a", OTEL_EXPORTER_PROMETHEUS_PORT="9464", **variables) as a,
        Service("service-b", OTEL_EXPORTER_PROMETHEUS_PORT="9465", SERVICE_A_ADDRESS=a.address, **variables) as b,
    ):
        yield b


def test_host_targets(viewers: Project, host_services: Service) -> None:
    """With the services on the host, Prometheus has exactly two targets for them, and both answer."""
    assert host_services.metrics_url
    assert UP == eventually(lambda: viewers.prometheus.targets("services"), lambda health: health == UP)


def test_host_trace(viewers: Project, host_services: Service) -> None:
    """With the services on the host, a call's four spans are in Jaeger."""
    answer, trace_id = call_echo("hello", service_b=host_services.address, otlp=viewers.otlp)

    assert HELLO == answer
    assert WHOLE_TRACE == viewers.jaeger.trace(trace_id, spans=4)


def test_health(everything: Project) -> None:
    """Every health check is green."""
    assert dict.fromkeys((*VIEWERS, *SERVICES), "running healthy") == everything.states()


def test_no_volumes(everything: Project) -> None:
    """No container has a volume, not even one without a name, which no label would show to be left behind."""
    assert [] == everything.volumes()


def test_container_targets(everything: Project) -> None:
    """With the services in containers, Prometheus has exactly two targets for them, and both answer."""
    assert UP == eventually(lambda: everything.prometheus.targets("services"), lambda health: health == UP)


def test_container_trace(everything: Project) -> None:
    """From the host a call goes through B's and A's containers, and its four spans are in Jaeger."""
    answer, trace_id = call_echo("hello", service_b=everything.service_b, otlp=everything.otlp)

    assert HELLO == answer
    assert WHOLE_TRACE == everything.jaeger.trace(trace_id, spans=4)


@pytest.mark.parametrize("service", SERVICES)
def test_not_root(everything: Project, service: str) -> None:
    """A service runs as nobody in particular, and cannot change its own files."""
    assert "10001" == everything.compose("exec", "-T", service, "id", "-u").strip()
    assert everything.inspect(service)["HostConfig"]["ReadonlyRootfs"]


def test_service_a_restarts(everything: Project) -> None:
    """A's container stops cleanly, B stays up and says that A is down, and A is used again once it is back."""
    started = everything.inspect("service-b")["State"]["StartedAt"]
    everything.compose("stop", "service-a")
    stopped = everything.states()["service-a"]
    while_stopped = answer(everything)
    everything.compose("start", "service-a")
    afterwards = eventually(lambda: answer(everything), lambda found: found == HELLO)

    assert "exited 0" == stopped
    assert A_DOWN == while_stopped
    assert HELLO == afterwards
    assert started == everything.inspect("service-b")["State"]["StartedAt"]


def test_proxy_of_the_docker_client(
    running_engine: Engine, named_images: Mapping[str, str], everything: Project, tmp_path: Path
) -> None:
    """With a proxy that Docker's client puts into every container, all of it is healthy, and a call's spans arrive."""
    assert everything.states()  # so the images are there: nothing could be built through such a proxy
    variables = {**named_images, "DOCKER_CONFIG": str(with_proxy("http://127.0.0.1:9", tmp_path))}
    with Project(running_engine, f"okit-proxy-{os.getpid()}", variables) as project:
        started = (*VIEWERS, *SERVICES)
        project.compose("--profile", "services", "up", "--detach", "--wait", "--no-build", *started)
        found, trace_id = call_echo("hello", service_b=project.service_b, otlp=project.otlp)

        assert "http_proxy=http://127.0.0.1:9" in project.inspect("service-a")["Config"]["Env"]
        assert dict.fromkeys(started, "running healthy") == project.states()
        assert HELLO == found
        assert WHOLE_TRACE == project.jaeger.trace(trace_id, spans=4)


def test_tls(running_engine: Engine, named_images: Mapping[str, str], everything: Project, tmp_path: Path) -> None:
    """With the profile `tls` all is healthy, a call from the host has mutual TLS all the way, and its spans arrive."""
    assert everything.states()  # so the images are there
    certs = tmp_path / "certs"
    said(sys.executable, ROOT / "tools" / "certs.py", certs)
    files = {"CA": "ca.pem", "CERT": "client.pem", "KEY": "client.key"}
    ours = {f"CLIENT_TLS_{name}": str(certs / file) for name, file in files.items()}
    with Project(running_engine, f"okit-tls-{os.getpid()}", {**named_images, "CERTS": str(certs)}) as project:
        started = (*VIEWERS, *(f"{service}-tls" for service in SERVICES))
        project.compose("--profile", "tls", "up", "--detach", "--wait", "--no-build", *started)
        found, trace_id = call_echo("hello", service_b=project.service_b, otlp=project.otlp, variables=ours)
        callers = [
            re.findall(r" peer_identity=(\S+) ", project.compose("--profile", "tls", "logs", f"{service}-tls"))
            for service in SERVICES
        ]

        assert dict.fromkeys(started, "running healthy") == project.states()
        assert HELLO == found
        assert WHOLE_TRACE == project.jaeger.trace(trace_id, spans=4)
        assert "client" in callers[1]
        assert '"service-b,localhost,127.0.0.1,::1"' in callers[0]
        assert UP == eventually(lambda: project.prometheus.targets("services"), lambda health: health == UP)


def test_copies(running_engine: Engine, named_images: Mapping[str, str], everything: Project) -> None:
    """Of three copies of A each answers a third of B's calls and is scraped by Prometheus; none has a port here."""
    assert everything.states()  # so the images are there
    up = [("service-a", "up")] * 3 + [("service-b", "up")]
    with Project(running_engine, f"okit-copies-{os.getpid()}", named_images, COPIES_FILE) as project:
        options = ("--detach", "--wait", "--no-build", "--scale", "service-a=3")
        project.compose("--profile", "services", "up", *options, *VIEWERS, *SERVICES)
        published = project.compose("--profile", "services", "ps", "--format", "{{.Publishers}}", "service-a")
        assert up == eventually(lambda: project.prometheus.copies("services"), lambda found: found == up)
        with grpc.insecure_channel(project.service_b) as channel:
            for _ in range(90):
                CallEchoServiceStub(channel).CallEcho(CallEchoRequest(msg="hello"), timeout=10)
        counts = eventually(lambda: echoes(project), lambda counts: sum(counts) >= 90)

        assert "127.0.0.1" not in published
        assert 90 == sum(counts)
        assert all(abs(count - 30) <= 5 for count in counts), counts


def test_collector(running_engine: Engine, named_images: Mapping[str, str], everything: Project) -> None:
    """With the profile `collector` a call that fails is in Jaeger, through both tiers; Prometheus scrapes all three."""
    assert everything.states()  # so the images are there
    variables = {**named_images, "SERVICES_OTLP_ENDPOINT": "http://collector:4317"}
    up = [("collector", "up"), ("sampler", "up"), ("sampler", "up")]
    with Project(running_engine, f"okit-collector-{os.getpid()}", variables) as project:
        profiles = ("--profile", "services", "--profile", "collector")
        project.compose(*profiles, "up", "--detach", "--wait", "--no-build", *VIEWERS, *SERVICES, "collector")
        project.compose(*profiles, "stop", "service-a")
        found, trace_id = call_echo("hello", service_b=project.service_b, otlp=project.collector)

        # B may have tried twice.
        sides = {(span.service, span.kind) for span in project.jaeger.trace(trace_id, spans=3)}
        assert A_DOWN == found
        assert {("client", "client"), ("service-b", "server"), ("service-b", "client")} == sides
        assert up == eventually(lambda: project.prometheus.copies("collector"), lambda copies: copies == up)


def echoes(project: Project) -> list[float]:
    """Return how many calls of Echo each of A's copies has answered, as Prometheus knows."""
    found = project.prometheus.query('sum by (instance) (grpc_server_handled_total{grpc_method="Echo"})')
    return [float(sample["value"][1]) for sample in found]


def with_proxy(proxy: str, folder: Path) -> Path:
    """Make a folder of settings for Docker's client: the person's own, with this proxy for every container."""
    theirs = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    settings = {}
    for path in theirs.iterdir() if theirs.is_dir() else ():
        if path.name == "config.json":
            settings = json.loads(path.read_text())
        else:
            (folder / path.name).symlink_to(path)
    proxies = {"default": {"httpProxy": proxy, "httpsProxy": proxy}}
    (folder / "config.json").write_text(json.dumps({**settings, "proxies": proxies}))
    return folder


def test_modes_follow_each_other(running_engine: Engine, named_images: Mapping[str, str]) -> None:
    """Prometheus follows the services into containers while it runs, still with two targets and no more."""
    with Project(running_engine, f"okit-switch-{os.getpid()}", named_images) as project:
        project.up()
        # Prometheus is ready a moment before it knows its targets.
        before = eventually(lambda: project.prometheus.targets("services"))
        project.up_with_services()

        assert set(UP) == set(before)
        assert UP == eventually(lambda: project.prometheus.targets("services"), lambda health: health == UP)


def test_down(running_engine: Engine, named_images: Mapping[str, str]) -> None:
    """After the `down` of docs/stack.md no container, volume or network is left."""
    with Project(running_engine, f"okit-down-{os.getpid()}", named_images) as project:
        project.up_with_services()
        before = project.left_behind()
        project.down()

        assert before
        assert "" == project.left_behind()


def answer(project: Project) -> dict[str, object]:
    """Return the answer to a call from the host."""
    return call_echo("hello", service_b=project.service_b, otlp=project.otlp)[0]


def metrics_host(engine: Engine) -> dict[str, str]:
    """Return what docs/stack.md says to set for Prometheus to reach services on the host: nothing on Docker Desktop."""
    if platform.system() != "Linux" or "Docker Desktop" in engine.docker("info", "--format", "{{.OperatingSystem}}"):
        return {}
    exports = re.findall(r"export (OTEL_EXPORTER_PROMETHEUS_HOST)=(\S+)", (ROOT / "docs" / "stack.md").read_text())
    assert exports, "docs/stack.md does not say how Prometheus reaches the services on the host"
    return dict(exports)
