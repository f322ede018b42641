"""What is installed, and what depends on what."""

import ast
import contextlib
import importlib.util
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

from client.processes import ROOT

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
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the wheel, built as others build it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    (built,) = folder.glob("*.whl")
    return built


def pip(python: str, *arguments: str) -> None:
    """Run pip silently, without a check for its newer versions."""
    command = [sys.executable, "-m", "pip", "--python", python, "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, timeout=120)


def test_wheel_holds_the_package_alone(wheel: Path) -> None:
    """The wheel holds `observability`, typed, and nothing else."""
    names = zipfile.ZipFile(wheel).namelist()

    assert wheel.name.startswith("grpc_observability_kit-")
    assert "observability/py.typed" in names
    assert {"observability"} == {name.split("/")[0] for name in names if ".dist-info/" not in name}


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
    names = zipfile.ZipFile(wheel).namelist()
    (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    required = set(re.findall(r"^Requires-Dist: ([\w-]+)", text, re.MULTILINE))
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
