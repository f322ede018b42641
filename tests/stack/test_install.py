"""tools/install.py says plainly what it cannot do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from client.processes import ROOT


def install(*arguments: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the program where nothing was ever built, and there is no Go."""
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "install.py", *arguments],
        env={**inherited, "XDG_CACHE_HOME": str(home), "PATH": "/nowhere", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.parametrize(("variables", "status"), [({}, 77), ({"CI": "true"}, 1)])
def test_without_go(tmp_path: Path, variables: dict[str, str], status: int) -> None:
    """Without Go it skips with a clear word and a status of its own; in CI that is a failure."""
    done = install(home=tmp_path, **variables)

    assert status == done.returncode
    assert "skipped: " in done.stdout
    assert "needs Go" in done.stdout


def test_unknown_program(tmp_path: Path) -> None:
    """A name that it does not know is wrong usage, and it says which it knows."""
    done = install("jager", home=tmp_path)

    assert 2 == done.returncode
    assert "no such program: jager; there are grpc-health-probe, " in done.stderr
