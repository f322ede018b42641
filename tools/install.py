"""
Installs the programs that the stack is proven with, and the workflows checked, into `.tools/`.

Each is built once from its Go module at an exact version, or from a module of our own that names such ones, and kept
under the home directory; a later run, and another checkout, only link to it. Nothing but Python and Go is needed. Exit
status: 0 when all is there, 1 when a build failed, 77 when it is skipped because there is no Go (1 as well where CI is
set).
"""

# A program run by path, which prints, and starts go with arguments that it builds.
# ruff: noqa: INP001, T201, S603, S607

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grpc-observability-kit" / "tools"

EXIT_FAILED = 1
EXIT_SKIPPED = 77  # what test harnesses read as "skipped"

ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "-trimpath -buildvcs=false", "GOWORK": "off"}


class BuildError(Exception):
    """A program could not be built; the text says which and why."""


@dataclass(frozen=True)
class Module:
    """A published Go module, at one version."""

    path: str
    version: str
    """The module's version, which need not be the program's: Prometheus 3.16.0 is module v0.316.0."""

    @property
    def identity(self) -> list[str]:
        """What decides which code it is."""
        return [self.path, self.version]

    def fetch(self) -> Path:
        """Download it, and return its folder in Go's own cache."""
        return Path(json.loads(_go(["mod", "download", "-json", f"{self.path}@{self.version}"], CACHE))["Dir"])


@dataclass(frozen=True)
class Folder:
    """A Go module of this project's, which chooses among others' packages."""

    path: str

    @property
    def identity(self) -> list[str]:
        """What decides which code it is: its files, go.sum among them."""
        files = sorted(path for path in self.fetch().rglob("*") if path.is_file())
        digest = sha256()
        for path in files:
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
        return [self.path, digest.hexdigest()]

    def fetch(self) -> Path:
        """Return where it is."""
        return ROOT / self.path


@dataclass(frozen=True)
class Program:
    """One program: the code that it is built of, and how to build it."""

    name: str
    """The file in `.tools/`."""
    version: str
    """The version as the program prints it."""
    source: Module | Folder
    package: str
    """The main package, relative to the module."""
    tags: str = ""
    """Go build tags."""
    variables: dict[str, str] = field(default_factory=dict)
    """Go variables that hold what the program says of itself, as the linker's `-X` sets them."""

    @property
    def home(self) -> Path:
        """Where the built program is kept, by everything that decides what it is."""
        recipe = json.dumps([*self.source.identity, self.package, self.tags, self.variables, ENVIRONMENT])
        fingerprint = sha256(f"{recipe} {sys.platform} {os.uname().machine}".encode()).hexdigest()[:12]
        return CACHE / f"{self.name}-{self.version}-{fingerprint}"

    @property
    def linker_flags(self) -> str:
        """Leave debug tables out, and set the version."""
        return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in self.variables.items())])


def _prometheus(name: str) -> Program:
    """Prometheus or promtool, which discover targets by DNS alone: the rest of that is most of what is to be built."""
    return Program(
        name,
        "3.16.0",
        Module("github.com/prometheus/prometheus", "v0.316.0"),
        f"./cmd/{name}",
        tags="remove_all_sd,enable_dns_sd",
        variables={"github.com/prometheus/common/version.Version": "3.16.0"},
    )


PROGRAMS = [
    Program(
        "grpc-health-probe",
        "0.4.61",
        Module("github.com/grpc-ecosystem/grpc-health-probe", "v0.4.61"),
        ".",
    ),
    Program(
        "grpcurl",
        "1.9.3",
        Module("github.com/fullstorydev/grpcurl", "v1.9.3"),
        "./cmd/grpcurl",
        variables={"main.version": "v1.9.3"},
    ),
    Program(
        "ghz",
        "0.121.0",
        Module("github.com/bojand/ghz", "v0.121.0"),
        "./cmd/ghz",
        variables={"main.version": "0.121.0"},
    ),
    Program(
        "actionlint",
        "1.7.12",
        Module("github.com/rhysd/actionlint", "v1.7.12"),
        "./cmd/actionlint",
        variables={"github.com/rhysd/actionlint.version": "1.7.12"},
    ),
    Program("buf", "1.72.0", Module("github.com/bufbuild/buf", "v1.72.0"), "./cmd/buf"),
    _prometheus("promtool"),
    _prometheus("prometheus"),
    Program(
        "docker-compose",
        "2.40.3",
        Module("github.com/docker/compose/v2", "v2.40.3"),
        "./cmd",
        variables={"github.com/docker/compose/v2/internal.Version": "2.40.3"},
    ),
    Program(
        "otelcol-contrib",
        "0.161.0",
        Folder("tools/collector"),
        ".",
        variables={"main.version": "0.161.0"},
    ),
    Program(
        "jaeger",
        "2.13.0",
        Module("github.com/jaegertracing/jaeger", "v1.76.0"),
        "./cmd/jaeger",
        variables={"github.com/jaegertracing/jaeger/internal/version.latestVersion": "v2.13.0"},
    ),
]
# What takes so long to build that it is installed when it is named, and not with the others.
BY_NAME = [
    Program(
        "kubernetes",
        "1.34.4",
        Folder("tools/kubernetes"),
        ".",
        variables=dict.fromkeys(
            ("k8s.io/component-base/version.gitVersion", "k8s.io/client-go/pkg/version.gitVersion"), "v1.34.4"
        ),
    ),
]


def main() -> int:
    """Install what was asked for, and return the exit status."""
    names = [program.name for program in (*PROGRAMS, *BY_NAME)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "programs", nargs="*", metavar="PROGRAM", help=f"all but {BY_NAME[0].name}, unless named: {', '.join(names)}"
    )
    wanted = set(parser.parse_args().programs)
    if wanted - set(names):
        parser.error(f"no such program: {', '.join(sorted(wanted - set(names)))}; there are {', '.join(names)}")

    programs = [program for program in (*PROGRAMS, *BY_NAME) if program.name in wanted] if wanted else PROGRAMS
    missing = [program for program in programs if not (program.home / program.name).exists()]
    if missing and shutil.which("go") is None:
        print("skipped: building the viewing stack's programs needs Go, and there is no `go` on the path")
        return EXIT_FAILED if os.environ.get("CI") else EXIT_SKIPPED
    try:
        for number, program in enumerate(programs, 1):
            install(program, f"[{number}/{len(programs)}] {program.name} {program.version}")
    except BuildError as error:
        print(error, file=sys.stderr)
        return EXIT_FAILED
    return os.EX_OK


def install(program: Program, title: str) -> None:
    """Build `program` unless it is kept already, and link to it from `.tools/`."""
    with _lock(program):
        if not (program.home / program.name).exists():
            _build(program, title)
    print(f"{title}: ready")
    TOOLS.mkdir(exist_ok=True)
    # A link is put in place by a rename, so that a test running meanwhile never finds the program gone.
    link = TOOLS / f".{program.name}.{os.getpid()}"
    link.symlink_to(program.home / program.name)
    link.rename(TOOLS / program.name)


@contextmanager
def _lock(program: Program) -> Iterator[None]:
    """Let one process at a time build `program`; a second waits and then finds it built."""
    program.home.parent.mkdir(parents=True, exist_ok=True)
    with _beside(program, "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(program: Program, title: str) -> None:
    """
    Build `program` within a copy of its code's own folder.

    `go install MODULE@VERSION` refuses modules that replace or exclude others (Jaeger, Compose, Prometheus),
    and another module that requires them misses their checksums. Their own go.mod and go.sum say
    exactly what they are built of.
    """
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=f".{program.name}-") as scratch:
        module, built = Path(scratch, "module"), Path(scratch, "built")
        print(f"{title}: fetching the module", flush=True)
        shutil.copytree(program.source.fetch(), module)
        for path in [module, *module.rglob("*")]:  # Go's module cache is read-only, folders as well
            path.chmod(path.stat().st_mode | 0o200)
        arguments = ["-tags", program.tags, "-ldflags", program.linker_flags]
        total = len(_go(["list", "-deps", "-tags", program.tags, program.package], module).splitlines())
        command = ["go", "build", "-v", *arguments, "-o", str(built / program.name), program.package]
        log = _beside(program, "log")
        with log.open("w") as output:
            process = subprocess.Popen(command, cwd=module, env=_environment(), stdout=output, stderr=output)
            _follow(process, log, total, title)
        if process.returncode != 0:
            raise BuildError(f"{title}: go build failed, see {log}:\n{_tail(log)}")
        built.rename(program.home)


def _go(arguments: list[str], folder: Path) -> str:
    """Run one go command that answers on stdout."""
    done = subprocess.run(
        ["go", *arguments], cwd=folder, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"go {' '.join(arguments)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _beside(program: Program, kind: str) -> Path:
    return program.home.with_name(f"{program.home.name}.{kind}")


def _environment() -> dict[str, str]:
    return {**os.environ, **ENVIRONMENT}


def _follow(process: subprocess.Popen[bytes], log: Path, total: int, title: str) -> None:
    """Show how far the build is: in place on a terminal, else a line every half minute."""
    started = time.monotonic()
    live = sys.stdout.isatty()
    while True:
        try:
            process.wait(0.5 if live else 30)
        except subprocess.TimeoutExpired:
            pass
        except BaseException:
            process.terminate()
            process.wait()
            raise
        seconds = int(time.monotonic() - started)
        compiled = min(sum(not line.startswith("go: ") for line in log.read_text().splitlines()), total)
        clock = f"{seconds // 60}:{seconds % 60:02}"
        state = f"{title}: compiled {compiled} of at most {total} packages, {clock}"
        print(f"\r{state}" if live else state, end="" if live else "\n", flush=True)
        if process.returncode is not None:
            print(end="\n" if live else "")
            return


def _tail(log: Path) -> str:
    return "\n".join(log.read_text().splitlines()[-20:])


if __name__ == "__main__":
    sys.exit(main())
