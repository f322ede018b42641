"""tools/check_all.py runs what this machine can, and says what it left out."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from client.processes import ROOT

PYPROJECT = """[project]
classifiers = [
    "Framework :: AsyncIO",
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Typing :: Typed",
]
"""


class Machine:
    """A machine with the Pythons that are put there, and a make that does nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._asked = folder / "asked"
        self._asked.touch()
        (folder / "tools").mkdir()
        shutil.copy(ROOT / "tools" / "check_all.py", folder / "tools")
        (folder / "pyproject.toml").write_text(PYPROJECT)
        self.fail_at("nothing")

    def put(self, path: str, script: str) -> Path:
        """Put a program there."""
        program = self.folder / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    def fail_at(self, what: str) -> None:
        """Let make fail when it is asked for this, and do nothing for anything else."""
        self.put("bin/make", f'echo "$@" >> {self._asked}; [ "$1" != {what} ]')

    def check_all(self) -> tuple[int, list[str]]:
        """Run it; return its exit status and the last lines, which begin after the last thing that was run."""
        done = subprocess.run(
            [sys.executable, self.folder / "tools" / "check_all.py"],
            env={"PATH": str(self.folder / "bin"), "HOME": str(self.folder)},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert "" == done.stderr
        lines = done.stdout.splitlines()
        return done.returncode, lines[len(self.asked()) :]

    def asked(self) -> list[str]:
        """Return what make was asked for."""
        return self._asked.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Give a machine without a Python."""
    return Machine(tmp_path)


def test_all_are_run(machine: Machine) -> None:
    """Each Python runs the tests with the lowest and the newest dependencies."""
    pythons = [machine.put(f"bin/python{version}", f"echo {version}") for version in ("3.11", "3.12")]
    status, last = machine.check_all()

    assert [f"check-{which} PYTHON={python}" for python in pythons for which in ("lowest", "newest")] == machine.asked()
    assert 0 == status
    assert [
        f"Python {which}: passed" for which in ("3.11, lowest", "3.11, newest", "3.12, lowest", "3.12, newest")
    ] == last


def test_what_is_left_out_is_said(machine: Machine) -> None:
    """A Python that is not there is left out, and a line says so and why."""
    machine.put("bin/python3.12", "echo 3.12")
    status, last = machine.check_all()

    assert 0 == status
    assert [
        "Python 3.11: left out: this machine has no python3.11 on the path, in pyenv or in uv",
        "Python 3.12, lowest: passed",
        "Python 3.12, newest: passed",
    ] == last


def test_failure(machine: Machine) -> None:
    """What fails is said, and the rest is run all the same."""
    machine.put("bin/python3.11", "echo 3.11")
    machine.fail_at("check-lowest")
    status, last = machine.check_all()

    assert 1 == status
    assert ["Python 3.11, lowest: failed", "Python 3.11, newest: passed"] == last[:2]


def test_nothing_to_run(machine: Machine) -> None:
    """Where there is nothing to run, nothing has passed."""
    status, last = machine.check_all()

    assert 1 == status
    assert ["Python 3.11: left out", "Python 3.12: left out"] == [line.rpartition(":")[0] for line in last]


@pytest.mark.parametrize(
    "folder", [".pyenv/versions/3.12.10", ".local/share/uv/python/cpython-3.12.10-linux-x86_64-gnu"]
)
def test_kept_elsewhere(machine: Machine, folder: str) -> None:
    """The newest that pyenv or uv keeps is found, behind what on the path only says that there is one."""
    machine.put("bin/python3.12", "echo 'the python3.12 command exists in these versions' >&2; exit 127")
    machine.put(f"{folder.replace('.10', '.9')}/bin/python3.12", "echo 3.12")
    newest = machine.put(f"{folder}/bin/python3.12", "echo 3.12")
    machine.check_all()

    assert [f"check-{which} PYTHON={newest}" for which in ("lowest", "newest")] == machine.asked()
