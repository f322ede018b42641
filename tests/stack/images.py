"""
The images that the compose file runs, as the variables that name them to it.

`IMAGES=upstream` has Compose pull the published ones and build ours on the published Python. Otherwise every
image is made here of what there is without a registry: the programs of .tools/ with a busybox beside them, laid out
as in the published images, and Debian's own Python, on which Compose builds ours.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from client.processes import ROOT
from tests.stack.engine import Engine, missing, said
from tests.stack.programs import TOOLS
from tests.stack.prometheus import COMPOSE_FILE

UPSTREAM = os.environ.get("IMAGES") == "upstream"
# Where an engine of the tests' own cannot pull from, these names cannot be mistaken for anything published.
PREFIX = "grpc-observability-kit-test"
# Both stages of deploy/Dockerfile stand on this.
DEBIAN, PACKAGES = "bookworm", "python3,python3-venv,ca-certificates"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grpc-observability-kit" / "images"

BUSYBOX = """
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -m 1777 /tmp
"""
JAEGER = f"""{BUSYBOX}
COPY jaeger /cmd/jaeger/jaeger-linux
VOLUME ["/tmp"]
USER 10001
ENTRYPOINT ["/cmd/jaeger/jaeger-linux"]
"""
PROMETHEUS = f"""{BUSYBOX}
COPY prometheus promtool /bin/
RUN mkdir /etc/prometheus && mkdir -m 777 /prometheus
VOLUME ["/prometheus"]
USER 65534
WORKDIR /prometheus
ENTRYPOINT ["/bin/prometheus"]
"""
COLLECTOR = """
FROM scratch
COPY otelcol-contrib /otelcol-contrib
USER 10001
ENTRYPOINT ["/otelcol-contrib"]
"""
# The machine's own certificates: a registry of packages may be reached through a proxy that it trusts.
PYTHON = f"""
FROM {PREFIX}/debian
COPY *.crt /etc/ssl/certs/ca-certificates.crt
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt
"""


# Compose builds the services as its file says; on the machine's own network, by which pip finds its packages.
NETWORK = """
services:
  service-a: &host
    build: { network: host }
  service-b: *host
"""


@contextmanager
def images(engine: Engine, folder: Path) -> Iterator[Mapping[str, str]]:
    """Yield the variables that name every image to Compose: none for the published ones. What was made is removed."""
    if UPSTREAM:
        yield {}
        return
    names = ("jaeger", "prometheus", "collector", "python", "service-a", "service-b")
    variables = {f"{name.replace('-', '_').upper()}_IMAGE": f"{PREFIX}/{name}" for name in names}
    _make(engine, folder)
    _build_services(engine, folder, variables)
    yield variables
    engine.docker("image", "rm", "--force", *(f"{PREFIX}/{name}" for name in (*names, "debian")))


def _make(engine: Engine, folder: Path) -> None:
    """Make what the project takes from others: the viewers, and Python."""
    busybox = Path(shutil.which("busybox") or missing("the images are made of busybox-static, which is not here"))
    python(engine, folder)
    _build(engine, folder, "jaeger", JAEGER, busybox, TOOLS / "jaeger")
    _build(engine, folder, "prometheus", PROMETHEUS, busybox, TOOLS / "prometheus", TOOLS / "promtool")
    _build(engine, folder, "collector", COLLECTOR, TOOLS / "otelcol-contrib")


def python(engine: Engine, folder: Path) -> str:
    """Make the image that deploy/Dockerfile stands on; return its name."""
    if not shutil.which("debootstrap"):
        missing("the image of Python is made by debootstrap, which is not here")
    _import_debian(engine, folder / "debian")
    certificates = Path(os.environ.get("PIP_CERT") or "/etc/ssl/certs/ca-certificates.crt")
    return _build(engine, folder, "python", PYTHON, certificates)


def _build(engine: Engine, folder: Path, name: str, dockerfile: str, *files: Path) -> str:
    """Make an image of these files; return its name."""
    (folder / name).mkdir()
    (folder / name / "Dockerfile").write_text(dockerfile)
    for file in files:
        shutil.copy(file, folder / name / file.name)
    engine.docker("build", "--quiet", "--tag", f"{PREFIX}/{name}", folder / name)
    return f"{PREFIX}/{name}"


def _build_services(engine: Engine, folder: Path, variables: Mapping[str, str]) -> None:
    network = folder / "network.yml"
    network.write_text(NETWORK)
    files = ("-f", ROOT / COMPOSE_FILE, "-f", network)
    said(TOOLS / "docker-compose", *files, "--profile", "services", "build", **engine.variables, **variables)


def _import_debian(engine: Engine, folder: Path) -> None:
    """Import a small Debian with Python, made once and kept under the home directory."""
    CACHE.mkdir(parents=True, exist_ok=True)
    tarball = CACHE / f"debian-{DEBIAN}-{os.uname().machine}-{PACKAGES}.tar"
    with tarball.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tarball.exists():
            said("debootstrap", "--variant=minbase", f"--include={PACKAGES}", DEBIAN, folder)
            unfinished = tarball.with_suffix(".unfinished")
            said("tar", "-C", folder, "-cf", unfinished, ".")
            unfinished.rename(tarball)
    engine.docker("import", tarball, f"{PREFIX}/debian")
