"""`make .venv`: an environment whose making broke off is not taken for a finished one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from client.processes import ROOT

MAKE = ["make", "--no-print-directory"]
# A make that runs this test hands its own flags down.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Give a folder with the Makefile, and with requirements that cannot be had."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "benchmarks").mkdir()
    for folder in (tmp_path, tmp_path / "benchmarks"):
        (folder / "requirements.txt").write_text("./there-is-no-such-folder\n")
    return tmp_path


def make(project: Path, *arguments: str, path: str = os.environ["PATH"]) -> int:
    """Run make; return its exit status."""
    variables = {**ENVIRONMENT, "PATH": path}
    return subprocess.run(
        [*MAKE, *arguments], cwd=project, env=variables, capture_output=True, check=False, timeout=120
    ).returncode


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Give a PATH whose python3 makes environments with a pip that is there: to unpack one takes five seconds."""
    python = Path(sys.executable)
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "python3"
    program.write_text(
        "#!/bin/sh\n"
        f'[ "$2" = venv ] || exec {python} "$@"\n'
        f'{python} "$@" --without-pip && ln -s {python.with_name("pip")} "$4/bin/pip"\n'
    )
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def is_there(project: Path, environment: str) -> bool:
    """Return whether make takes an environment for made."""
    return make(project, "--question", environment) == 0


@pytest.mark.parametrize("environment", [".venv", ".venv-bench"])
def test_failure(project: Path, environment: str, path: str) -> None:
    """An environment whose requirements could not be installed is not there, though its folder is."""
    status = make(project, environment, path=path)

    assert 2 == status
    assert (project / environment / "bin/pip").exists()
    assert not is_there(project, environment)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interruption(project: Path, number: int) -> None:
    """An environment that was interrupted as it was made is not there, however that was."""
    with subprocess.Popen(
        [*MAKE, ".venv"],
        cwd=project,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        while not (project / ".venv/bin/python").exists():
            time.sleep(0.01)
        os.killpg(process.pid, number)

    assert (project / ".venv/bin/python").exists()
    assert not is_there(project, ".venv")


def test_made_once(project: Path) -> None:
    """An environment that is there is made again when its requirements change, and not before."""
    (project / ".venv").mkdir()
    (project / ".venv/made").touch()
    before = is_there(project, ".venv")
    os.utime(project / "requirements.txt", (time.time() + 10,) * 2)

    assert (True, False) == (before, is_there(project, ".venv"))


def test_another_python(project: Path) -> None:
    """An environment is made again when PYTHON asks for another Python than it has, and only then."""
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").symlink_to(sys.executable)
    (project / ".venv/made").touch()
    other = project / "other-python"
    other.write_text("#!/bin/sh\necho Python 3.99.0\n")
    other.chmod(0o755)

    assert [True, False] == [
        make(project, "--question", ".venv", f"PYTHON={python}") == 0 for python in (sys.executable, other)
    ]
