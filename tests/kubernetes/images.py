"""The services' images, as files that a cluster of the tests' own is given; made once for what they are made of."""

from hashlib import sha256
from pathlib import Path

from client.processes import ROOT
from tests.stack.engine import engine
from tests.stack.images import CACHE, python

SERVICES = ("service-a", "service-b")
# What .dockerignore lets through, and what says how.
SOURCES = (
    *("deploy/Dockerfile", "deploy/healthcheck.py", "LICENSE", "README.md", "pyproject.toml", "requirements.txt"),
    *("observability", "programs", "protos", *SERVICES),
)


def image_of(service: str) -> str:
    """Return the name of a service's image, by which deploy/kubernetes/local runs it."""
    return f"grpc-observability-kit/{service}:local"


def saved(folder: Path) -> Path:
    """Return a tar of both services' images, as `docker save` writes it."""
    path = CACHE / f"services-{fingerprint()}.tar"
    if not path.exists():
        for name in ("engine", "images"):
            (folder / name).mkdir()
        with engine(folder / "engine") as running:
            base = python(running, folder / "images")
            for service in SERVICES:
                options = (f"--build-arg=BASE={base}", "--network=host", f"--target={service}")
                running.docker(
                    *("build", "--quiet", *options, f"--tag={image_of(service)}"),
                    *(f"--file={ROOT / 'deploy' / 'Dockerfile'}", ROOT),
                )
            unfinished = path.with_suffix(".unfinished")
            running.docker("save", f"--output={unfinished}", *map(image_of, SERVICES))
        for other in CACHE.glob("services-*.tar"):
            other.unlink()
        unfinished.rename(path)
    return path


def fingerprint() -> str:
    """Return what is another for each change of what the images are made of."""
    digest = sha256()
    for source in SOURCES:
        top = ROOT / source
        for path in sorted([top] if top.is_file() else top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
