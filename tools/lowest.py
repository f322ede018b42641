"""
Prints the requirements of an environment that has the lowest version of each direct dependency.

They are what pyproject.toml names, its extras and what builds it included, each at its lower bound; gRPC's other
packages, which tests need, at that of grpcio; Google's clients; and what runs the tests, as requirements.txt pins it.
"""

# ruff: noqa: INP001, T201 - a program run by path, which prints

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OF_GRPC = ("grpcio-reflection", "grpcio-status", "grpcio-testing", "grpcio-tools")
TESTING = (
    "billiard",
    "click",
    "grpc-interceptor",
    "hypothesis",
    "psutil",
    "py-grpc-prometheus",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "rich",
    "sentry-sdk",
    "trustme",
)
# Newer ones refuse the lowest protobuf.
OF_GOOGLE = ("google-api-core==2.30.3", "google-cloud-pubsub==2.39.0")


def direct(project: Path) -> dict[str, str]:
    """Return the lower bound of each direct dependency; ValueError for one that has none."""
    settings = tomllib.loads(project.read_text("utf-8"))
    extras = settings["project"].get("optional-dependencies", {}).values()
    groups = [settings["project"]["dependencies"], settings["build-system"]["requires"], *extras]
    found = {}
    for requirement in (requirement for group in groups for requirement in group):
        match = re.fullmatch(r"([\w.-]+)>=([\w.]+)(,<[\w.]+)?", requirement)
        if match is None:
            raise ValueError(f"{requirement!r} has no lower bound, as in name>=1.2,<2")
        found[match[1]] = match[2]
    return found


def pins(project: Path, requirements: Path) -> Iterator[str]:
    """Yield the requirements, one by one."""
    lowest = direct(project)
    lowest |= dict.fromkeys(OF_GRPC, lowest["grpcio"])
    yield from (f"{name}=={version}" for name, version in lowest.items())
    yield from OF_GOOGLE
    pinned = requirements.read_text("utf-8").splitlines()
    yield from (line for line in pinned if line.partition("==")[0] in TESTING)


if __name__ == "__main__":
    print(*pins(ROOT / "pyproject.toml", ROOT / "requirements.txt"), sep="\n")
