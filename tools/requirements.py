"""
Prints the requirements of an environment for the package's tests, with the `lowest` or the `newest` dependencies.

They are what pyproject.toml names, its extras and what builds it included, each at its lower bound or in its range;
gRPC's other packages, which tests need, at that of grpcio; Google's clients; and what runs the tests, as
requirements.txt pins it.
"""

# ruff: noqa: INP001, T201 - a program run by path, which prints

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias, get_args

ROOT = Path(__file__).resolve().parent.parent
Which: TypeAlias = Literal["lowest", "newest"]
OF_GRPC = ("grpcio-reflection", "grpcio-status", "grpcio-testing", "grpcio-tools")
TESTING = (
    "billiard",
    "click",
    "grpc-interceptor",
    "hpack",
    "hyperframe",
    "hypothesis",
    "psutil",
    "py-grpc-prometheus",
    "pytest",
    "pytest-rerunfailures",
    "pytest-timeout",
    "pytest-xdist",
    "rich",
    "sentry-sdk",
    "trustme",
)
# Newer ones refuse the lowest protobuf.
OF_GOOGLE = {"google-api-core": "2.30.3", "google-cloud-pubsub": "2.39.0"}


def direct(project: Path) -> dict[str, tuple[str, str]]:
    """Return each direct dependency's lower bound and range; ValueError for one that has no lower bound."""
    settings = tomllib.loads(project.read_text("utf-8"))
    extras = settings["project"].get("optional-dependencies", {}).values()
    groups = [settings["project"]["dependencies"], settings["build-system"]["requires"], *extras]
    found = {}
    for requirement in (requirement for group in groups for requirement in group):
        match = re.fullmatch(r"([\w.-]+)(>=([\w.]+)(,<[\w.]+)?)", requirement)
        if match is None:
            raise ValueError(f"{requirement!r} has no lower bound, as in name>=1.2,<2")
        found[match[1]] = match[3], match[2]
    return found


def requirements(which: Which, project: Path, pinned: Path) -> Iterator[str]:
    """Yield the requirements, one by one."""
    found = direct(project)
    found |= dict.fromkeys(OF_GRPC, found["grpcio"])
    if which == "lowest":
        yield from (
            f"{name}=={version}" for name, version in ({n: v for n, (v, _) in found.items()} | OF_GOOGLE).items()
        )
    else:
        yield from (f"{name}{range_}" for name, (_, range_) in found.items())
        yield from OF_GOOGLE
    lines = pinned.read_text("utf-8").splitlines()
    yield from (line for line in lines if line.partition("==")[0] in TESTING)


if __name__ == "__main__":
    if sys.argv[1:] not in [[which] for which in get_args(Which)]:
        sys.exit(f"usage: python tools/requirements.py {'|'.join(get_args(Which))}")
    print(*requirements(sys.argv[1], ROOT / "pyproject.toml", ROOT / "requirements.txt"), sep="\n")  # type: ignore[arg-type]  # seen to be one of them
