"""A project of Compose's: the real compose file, under a separate name and on separate ports."""

import json
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from client.processes import ROOT
from tests.stack.engine import Engine, said
from tests.stack.images import UPSTREAM
from tests.stack.jaeger import JaegerApi
from tests.stack.programs import TOOLS
from tests.stack.prometheus import COMPOSE_FILE, PrometheusApi
from tests.support.ports import free_ports

PAGE = (ROOT / "docs" / "stack.md").read_text()
# Grafana's program cannot be built here: with images of our own, it is left out.
VIEWERS = ("jaeger", "prometheus", *(["grafana"] if UPSTREAM else []))
SERVICES = ("service-a", "service-b")
# Where the published images can be pulled, Docker's own Compose is there too, and nothing of ours is needed.
COMPOSE = ("docker", "compose") if UPSTREAM else (TOOLS / "docker-compose",)
# Compose builds our images, anew for what may have changed; unless they have been made for it.
BUILD = "--build" if UPSTREAM else "--no-build"


class Project:
    """What the compose file starts, from `with` to its end, changed by these other files."""

    def __init__(self, engine: Engine, name: str, images: Mapping[str, str], *changes: str) -> None:
        self._files = [option for file in (COMPOSE_FILE, *changes) for option in ("-f", ROOT / file)]
        self._engine = engine
        self._name = name
        variables = sorted(set(re.findall(r"\$\{(\w+PORT)", (ROOT / COMPOSE_FILE).read_text())))
        self._ports = dict(zip(variables, map(str, free_ports(len(variables))), strict=True))
        self._variables = {**engine.variables, **images, **self._ports}
        self.jaeger = JaegerApi(f"http://127.0.0.1:{self._ports['JAEGER_PORT']}")
        self.prometheus = PrometheusApi(f"http://127.0.0.1:{self._ports['PROMETHEUS_PORT']}")
        self.otlp = f"http://127.0.0.1:{self._ports['OTLP_GRPC_PORT']}"
        self.collector = f"http://127.0.0.1:{self._ports['COLLECTOR_GRPC_PORT']}"
        self.service_b = f"127.0.0.1:{self._ports['SERVICE_B_PUBLISHED_PORT']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def compose(self, *arguments: str) -> str:
        """Run Compose on the project's own file; return its stdout, or fail with all it said."""
        return said(*COMPOSE, "-p", self._name, *self._files, *arguments, **self._variables)

    def up(self) -> None:
        """Start the viewers, and wait until every health check is green."""
        self.compose("up", "--detach", "--wait", *VIEWERS)

    def up_with_services(self) -> None:
        """Start the viewers and both services, and wait until every health check is green."""
        self.compose("--profile", "services", "up", "--detach", "--wait", BUILD, *VIEWERS, *SERVICES)

    def down(self) -> None:
        """End all of it, by the command of docs/stack.md."""
        [options] = re.findall(rf"^    \$ docker compose -f {COMPOSE_FILE} (.*\bdown\b)", PAGE, re.MULTILINE)
        self.compose(*options.split(), "--timeout", "5")

    def states(self) -> dict[str, str]:
        """Return what runs, and how it is: `running healthy`, `exited 0`, …."""
        lines = self.compose("--profile", "*", "ps", "--all", "--format", "json").splitlines()
        return {found["Service"]: _state(found) for found in map(json.loads, lines)}

    def inspect(self, service: str) -> Any:
        """Return what the engine knows of a service's container."""
        [container] = self.compose("ps", "--all", "--quiet", service).split()
        [found] = json.loads(self._engine.docker("inspect", container))
        return found

    def volumes(self) -> list[str]:
        """Return every volume that a container of the project's has, with a name or without."""
        ours = f"label=com.docker.compose.project={self._name}"
        containers = self._engine.docker("ps", "--all", "--quiet", "--filter", ours).split()
        mounts = [m for c in json.loads(self._engine.docker("inspect", *containers)) for m in c["Mounts"]]
        return [mount["Destination"] for mount in mounts if mount["Type"] == "volume"]

    def left_behind(self) -> str:
        """Return every container, volume and network that is still labelled as the project's."""
        ours = ("--quiet", "--filter", f"label=com.docker.compose.project={self._name}")
        return "".join(
            self._engine.docker(*what, *ours) for what in (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
        )


def _state(found: Mapping[str, Any]) -> str:
    return f"{found['State']} {found['Health'] if found['State'] == 'running' else found['ExitCode']}".strip()
