"""tools/install.py builds each program once, keeps it, and prints what it does and what it cannot."""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from client.processes import ROOT

PROBE = "grpc-health-probe"
# What the installer asks of Go: a module's folder, which is read-only, how much there is to compile, and a program.
GO = f"""#!{sys.executable}
import json, pathlib, sys
here = pathlib.Path(__file__).parent
with (here / "asked").open("a") as asked:
    print(sys.argv[1], file=asked)
if sys.argv[1] == "mod":
    module = here / "module"
    module.mkdir(exist_ok=True)
    if not (module / "go.mod").exists():
        (module / "go.mod").touch(0o444)
        module.chmod(0o555)
    print(json.dumps({{"Dir": str(module)}}))
elif sys.argv[1] == "list":
    print("fmt", "net/http", "example.org/main", sep="\\n")
elif not pathlib.Path("go.mod").stat().st_mode & 0o200 or (here / "broken").exists():
    sys.exit("main.go:1: no such thing")
else:
    print("fmt", "example.org/main", sep="\\n", file=sys.stderr)
    program = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
    program.parent.mkdir(exist_ok=True)
    program.write_text("#!/bin/sh\\necho built\\n")
    program.chmod(0o755)
"""


class Machine:
    """A machine where nothing was ever built, with a Go that does as little as it can."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._go = folder / "bin" / "go"
        self._go.parent.mkdir()
        self._go.write_text(GO)
        self._go.chmod(0o755)

    def install(self, *arguments: str, checkout: str = "here", **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the installer of a checkout of this name."""
        tools = self._folder / checkout / "tools"
        tools.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "tools" / "install.py", tools)
        inherited = {name: value for name, value in os.environ.items() if name != "CI"}
        where = {"XDG_CACHE_HOME": str(self._folder / "cache"), "PATH": str(self._go.parent)}
        return subprocess.run(
            [sys.executable, tools / "install.py", *arguments],
            env={**inherited, **where, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    def builds(self) -> int:
        """Return how many programs Go was asked to build."""
        return (self._go.parent / "asked").read_text().split().count("build")

    def break_go(self) -> None:
        """Let Go build nothing from now on."""
        (self._go.parent / "broken").touch()

    def lose(self, name: str) -> None:
        """Delete the program that is kept."""
        [kept] = (self._folder / "cache").rglob(name)
        kept.unlink()

    def run(self, name: str, checkout: str = "here") -> str:
        """Run what was installed; return what it prints."""
        program = self._folder / checkout / ".tools" / name
        return subprocess.run([program], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine where nothing was ever built."""
    return Machine(tmp_path)


def test_first_run_builds(machine: Machine) -> None:
    """The first run builds a program, and puts it where the tests look for it."""
    done = machine.install(PROBE)

    assert (0, 1) == (done.returncode, machine.builds())
    assert "built\n" == machine.run(PROBE)


def test_progress(machine: Machine) -> None:
    """What is being done, and how far it is, is printed on stdout."""
    done = machine.install(PROBE)

    title = f"[1/1] {PROBE} 0.4.61"
    assert [
        f"{title}: fetching the module",
        f"{title}: compiled 2 of at most 3 packages, 0:00",
        f"{title}: ready",
    ] == re.sub(r"\d+:\d\d$", "0:00", done.stdout, flags=re.MULTILINE).splitlines()


def test_second_run_builds_nothing(machine: Machine) -> None:
    """A second run finds the program built, and Go need not even be there."""
    machine.install(PROBE)
    again = machine.install(PROBE, PATH="/nowhere")

    assert (0, 1) == (again.returncode, machine.builds())
    assert f"[1/1] {PROBE} 0.4.61: ready\n" == again.stdout


def test_other_checkout_builds_nothing(machine: Machine) -> None:
    """Another checkout has the program that the first one built."""
    machine.install(PROBE)
    machine.install(PROBE, checkout="elsewhere")

    assert 1 == machine.builds()
    assert "built\n" == machine.run(PROBE, checkout="elsewhere")


def test_lost_program_is_built_again(machine: Machine) -> None:
    """A program that is gone from the cache is built again."""
    machine.install(PROBE)
    machine.lose(PROBE)
    again = machine.install(PROBE)

    assert (0, 2) == (again.returncode, machine.builds())
    assert "built\n" == machine.run(PROBE)


def test_two_at_once_build_once(machine: Machine) -> None:
    """Of two runs at once one builds, and the other waits for it."""
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda checkout: machine.install(PROBE, checkout=checkout), ("here", "elsewhere")))

    assert ([0, 0], 1) == ([each.returncode for each in done], machine.builds())


def test_failed_build(machine: Machine) -> None:
    """A build that fails is a failure that says which program, and what Go said."""
    machine.break_go()
    done = machine.install(PROBE)

    assert 1 == done.returncode
    assert f"[1/1] {PROBE} 0.4.61: go build failed, see " in done.stderr
    assert done.stderr.endswith("main.go:1: no such thing\n")


@pytest.mark.parametrize(("variables", "status"), [({}, 77), ({"CI": "true"}, 1)], ids=["a person's", "CI"])
def test_without_go(machine: Machine, variables: dict[str, str], status: int) -> None:
    """Without Go it skips with a clear message and its own exit status; in CI that is a failure."""
    done = machine.install(PATH="/nowhere", **variables)

    assert status == done.returncode
    assert "skipped: " in done.stdout
    assert "needs Go" in done.stdout


def test_unknown_program(machine: Machine) -> None:
    """A name that it does not know is wrong usage, and it says which it knows."""
    done = machine.install("jager")

    assert 2 == done.returncode
    assert "no such program: jager; there are grpc-health-probe, " in done.stderr
