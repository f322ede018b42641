"""
A container engine for the tests: the person's own where one answers, else a dockerd of our own, as root.

An engine of our own has its own socket, data and processes, and is ended by its process id. It can pull nothing
where there is no registry of images, so `images.py` builds what the compose file asks for.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from tests.stack.waiting import eventually

PACKAGES = "docker.io iptables busybox-static debootstrap"


class Engine:
    """An engine that answers, and the docker client and Compose that speak to it."""

    def __init__(self, host: str | None) -> None:
        self.variables = {"DOCKER_HOST": host} if host else {}

    def docker(self, *arguments: str | Path, **variables: str) -> str:
        """Run the docker client; return its stdout, or fail with all it said."""
        return said("docker", *arguments, **self.variables, **variables)

    def answers(self) -> bool:
        """Return whether the engine answers at all."""
        command = ["docker", "version", "--format", "{{.Server.Version}}"]
        done = subprocess.run(command, env={**os.environ, **self.variables}, capture_output=True, check=False)
        return done.returncode == 0


@contextmanager
def engine(folder: Path) -> Iterator[Engine]:
    """Yield an engine; skip the tests, or in CI fail them, where there is none and none can be started."""
    if not shutil.which("docker"):
        missing("there is no docker client")
    if (theirs := Engine(None)).answers():
        yield theirs
    elif os.getuid() != 0 or not shutil.which("dockerd"):
        missing("no container engine answers, and none can be started: that takes dockerd, and root")
    else:
        with own_engine(folder) as ours:
            yield ours


@contextmanager
def own_engine(folder: Path) -> Iterator[Engine]:
    """Run a dockerd whose every file is in `folder`."""
    ours = Engine(f"unix://{folder / 'docker.sock'}")
    log = folder / "dockerd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                "dockerd",
                f"--host={ours.variables['DOCKER_HOST']}",
                f"--data-root={folder / 'data'}",
                f"--exec-root={folder / 'exec'}",
                f"--pidfile={folder / 'dockerd.pid'}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        assert eventually(lambda: process.poll() is None and ours.answers()), log.read_text()
        yield ours
    finally:
        process.terminate()
        process.wait(timeout=60)
        unmount(folder)
        shutil.rmtree(folder)


def unmount(folder: Path) -> None:
    """Undo what dockerd leaves mounted when it ends: its own network namespace."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in mounts:
        if Path(mount).is_relative_to(folder):
            said("umount", mount)


def missing(what: str) -> NoReturn:
    """Skip the tests for want of something; in CI fail them."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} (apt-get install {PACKAGES})")
    pytest.skip(what)


def said(program: str | Path, *arguments: str | Path, **variables: str) -> str:
    """Run a program of this machine; return its stdout, or fail with all it said."""
    done = subprocess.run(
        [program, *arguments],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, f"{program} {arguments}:\n{done.stdout}\n{done.stderr}"
    return done.stdout
