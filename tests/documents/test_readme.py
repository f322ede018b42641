"""The README says what the programs do: every option, every variable, every link."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from observability.settings import OURS, STANDARD

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TABLE = README.split("## Settings")[1].split("\n## ")[0]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PROGRAMS = (
    ["service-a/app.py"],
    ["service-b/app.py"],
    *(
        ["client", command]
        for command in ("call-echo", "echo", "chat", "health-a", "health-b", "demo", "trace", "load")
    ),
)


def help_of(program: list[str]) -> str:
    """Return what a program says of itself, unwrapped."""
    output = subprocess.run(
        [sys.executable, *program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return re.sub(r"\s+", " ", output)


@pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)
def test_every_option_stands_in_the_table(program: list[str]) -> None:
    """
    Each option of each program, and the variable that it can be given by, stands in the README's table.
    """
    text = help_of(program)
    options = set(re.findall(r"--[a-z-]+", text)) - {"--help"}
    variables = {name.strip(",") for names in re.findall(r"env var: ([A-Z_, ]+)", text) for name in names.split()}

    assert set() == {name for name in options | variables if f"`{name}`" not in TABLE}


def test_every_variable_stands_in_the_table() -> None:
    """
    Each variable that the package reads stands in the README's table.
    """
    read = {
        *STANDARD,
        *OURS,
        "OTEL_SERVICE_NAME",
        "OTEL_EXPORTER_PROMETHEUS_HOST",
        "OTEL_PYTHON_GRPC_EXCLUDED_SERVICES",
    }

    assert set() == {name for name in read if f"`{name}`" not in TABLE}


def test_the_table_names_nothing_else() -> None:
    """
    No row of the README's table is about a variable that nothing reads.
    """
    code = "".join(
        path.read_text()
        for folder in ("observability", "programs", "service-a", "service-b", "client")
        for path in (ROOT / folder).rglob("*.py")
    )
    known = {*STANDARD, *OURS} | {
        f"SERVICE_{side}_{name}" for side in "AB" for name in re.findall(r'prefix}_(\w+)"', code)
    }
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+)`", TABLE)) - {"NOT_SERVING"}

    assert set() == {name for name in named if name not in known and f'"{name}"' not in code}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """
    Every link of a document to a file of the project leads to one.
    """
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text())
    missing = [target for target in targets if "://" not in target and not (document.parent / target).exists()]

    assert [] == missing
