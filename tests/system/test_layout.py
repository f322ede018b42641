"""What is installed, and what depends on what."""

import ast
import contextlib
import email.message
import importlib.util
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest
import trove_classifiers

from client.processes import ROOT
from observability import __version__

TELEMETRY = {"structlog", "prometheus_client", "opentelemetry"}
PROGRAMS = ["service-a/app.py", "service-b/app.py", *(str(p.relative_to(ROOT)) for p in ROOT.glob("programs/*.py"))]


@pytest.mark.parametrize("program", PROGRAMS)
def test_services_hold_business_code_only(program: str) -> None:
    """No service imports what telemetry is made of."""
    imported = set()
    for node in ast.walk(ast.parse((ROOT / program).read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])

    assert set() == imported & TELEMETRY


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the sdist and the wheel, built as `make dist` does."""
    folder = tmp_path_factory.mktemp("built")
    build(ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    """Give the wheel."""
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    """Give the sdist."""
    (sdist,) = built.glob("*.tar.gz")
    return sdist


def build(project: Path, folder: Path, *options: str) -> None:
    """Build the project there."""
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder), *options]
    subprocess.run(command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=120)


def pip(python: str, *arguments: str) -> None:
    """Run pip silently, without a check for its newer versions."""
    command = [sys.executable, "-m", "pip", "--python", python, "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, timeout=120)


def modules() -> set[str]:
    """Return the files that the package consists of."""
    files = (ROOT / "observability").rglob("*")
    return {str(path.relative_to(ROOT)) for path in files if path.suffix == ".py" or path.name == "py.typed"}


def test_contents_of_the_wheel(wheel: Path) -> None:
    """The wheel holds the package, the sign that it has types, and what is said of it, and nothing else."""
    said = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    expected = modules() | {f"grpc_observability_kit-{__version__}.dist-info/{name}" for name in said}

    assert f"grpc_observability_kit-{__version__}-py3-none-any.whl" == wheel.name
    assert "observability/py.typed" in expected
    assert sorted(expected) == sorted(zipfile.ZipFile(wheel).namelist())


def test_contents_of_the_sdist(sdist: Path) -> None:
    """The sdist holds the package, what is said of it, and what builds the wheel, and nothing else."""
    beside = {".gitignore", "CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}
    folder = f"grpc_observability_kit-{__version__}"
    with tarfile.open(sdist) as archive:
        names = [member.name for member in archive.getmembers() if member.isfile()]

    assert f"{folder}.tar.gz" == sdist.name
    assert sorted(f"{folder}/{name}" for name in modules() | beside) == sorted(names)


def test_wheel_of_the_sdist(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    """The wheel that is built from the sdist is the same, byte by byte."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    build(tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path, "--target", "wheel")

    assert wheel.read_bytes() == (tmp_path / wheel.name).read_bytes()


def test_metadata(wheel: Path) -> None:
    """The wheel's version is the package's, and its classifiers are known."""
    said = metadata(wheel)

    assert __version__ == said["Version"]
    assert set() == set(said.get_all("Classifier", [])) - trove_classifiers.classifiers


def metadata(wheel: Path) -> email.message.Message:
    """Return what the wheel says of itself."""
    name = f"grpc_observability_kit-{__version__}.dist-info/METADATA"
    return email.message_from_bytes(zipfile.ZipFile(wheel).read(name))


def imported_modules() -> set[str]:
    """Return every module that the package imports, wherever it does, but for its own and Python's."""
    found = set()
    for path in (ROOT / "observability").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.partition(".")[0] not in sys.stdlib_module_names}


def test_wheel_depends_on_what_it_imports(wheel: Path) -> None:
    """The wheel's metadata names every distribution from which the package imports, and no other."""
    required = {re.split(r"[^\w-]", name)[0] for name in metadata(wheel).get_all("Requires-Dist", [])}
    owners = {
        str(distribution.locate_file(file)): canonical(distribution.name)
        for distribution in distributions()
        for file in distribution.files or ()
    }
    imported = set()
    for name in imported_modules():
        with contextlib.suppress(ModuleNotFoundError):  # a name in a module, which is none itself
            spec = importlib.util.find_spec(name)
            imported |= {owners[spec.origin]} if spec and spec.origin else set()

    assert required == imported


def canonical(name: str) -> str:
    """Return a distribution's name as metadata of others write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def consumer(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with an environment `.venv` that has the wheel and what it depends on, but not this project."""
    folder = tmp_path_factory.mktemp("consumer")
    venv.create(folder / ".venv", with_pip=False)
    python = folder / ".venv/bin/python"
    pip(str(python), "install", "--no-deps", "--no-index", str(wheel))
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / ".venv")}))
    # The dependencies, without the .pth files there: one of them is this project's editable install.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def test_wheel_can_be_imported(consumer: Path) -> None:
    """In an environment that has the wheel alone, `import observability` works, and has all that it exports."""
    code = (
        "import observability; print(observability.__file__, *(vars(observability)[n] for n in observability.__all__))"
    )
    result = subprocess.run(
        [consumer / ".venv/bin/python", "-I", "-c", code], capture_output=True, encoding="utf-8", check=True
    )

    assert result.stdout.startswith(str(consumer / ".venv"))


def test_wheel_has_types(consumer: Path) -> None:
    """In such an environment, mypy --strict knows the package's types."""
    program = consumer / "program.py"
    program.write_text(
        "from observability import Call, Outcome, Telemetry, current_call, serve\n"
        "import grpc\n"
        "def observer(call: Call) -> None:\n"
        "    reveal_type(call.trace_id)\n"
        "with Telemetry.start('mine', metrics_port=1) as telemetry:\n"
        "    reveal_type(telemetry)\n"
        "    reveal_type(current_call())\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", consumer / ".venv/bin/python", program.name],
        cwd=consumer,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )

    assert "Success: no issues found in 1 source file" in result.stdout
    revealed = [line.partition("Revealed type is ")[2] for line in result.stdout.splitlines() if "Revealed" in line]
    assert ['"str | None"', '"observability.telemetry.Telemetry"', '"observability.calls.call.Call | None"'] == revealed
