"""
The images that the compose file runs, as the variables that name them to it.

``IMAGES=upstream`` has Compose pull the published ones and build ours on the published Python. Otherwise every
image is made here of what there is without a registry: the programs of .tools/ with a busybox beside them, laid out
as in the published images, and Debian's own Python under our Dockerfile.
"""

import fcntl
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from client.processes import ROOT
from tests.stack.engine import Engine, missing, said
from tests.stack.programs import TOOLS

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
# The machine's own certificates: a registry of packages may be reached through a proxy that it trusts.
PYTHON = f"""
FROM {PREFIX}/debian
COPY certificates.crt /etc/ssl/certs/ca-certificates.crt
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt
"""


def images(engine: Engine, folder: Path) -> Mapping[str, str]:
    """Return the variables that name every image to Compose; empty for the published ones."""
    if UPSTREAM:
        return {}
    busybox = shutil.which("busybox")
    if not busybox or not shutil.which("debootstrap"):
        missing("the images are made of busybox-static and debootstrap, which are not here")
    files = {name: TOOLS / name for name in ("jaeger", "prometheus", "promtool")} | {"busybox": Path(str(busybox))}
    _build(engine, folder / "jaeger", "jaeger", JAEGER, {name: files[name] for name in ("busybox", "jaeger")})
    _build(
        engine,
        folder / "prometheus",
        "prometheus",
        PROMETHEUS,
        {name: files[name] for name in ("busybox", "prometheus", "promtool")},
    )
    _import_debian(engine, folder / "debian")
    _build(engine, folder / "python", "python", PYTHON, {"certificates.crt": _certificates()})
    for service in ("service-a", "service-b"):
        engine.docker(
            *("build", "--quiet", "--network=host", "--file", ROOT / "deploy" / "Dockerfile", "--target", service),
            *("--build-arg", f"BASE={PREFIX}/python", "--tag", f"{PREFIX}/{service}", ROOT),
            DOCKER_BUILDKIT="0",  # the builder that needs no plugin
        )
    names = ("jaeger", "prometheus", "service-a", "service-b")
    return {f"{name.replace('-', '_').upper()}_IMAGE": f"{PREFIX}/{name}" for name in names}


def _build(engine: Engine, folder: Path, name: str, dockerfile: str, files: Mapping[str, Path]) -> None:
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(dockerfile)
    for file, path in files.items():
        shutil.copy(path, folder / file)
    engine.docker("build", "--quiet", "--tag", f"{PREFIX}/{name}", folder, DOCKER_BUILDKIT="0")


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


def _certificates() -> Path:
    return Path(os.environ.get("PIP_CERT") or "/etc/ssl/certs/ca-certificates.crt")
