"""What is built and released, from which Python to which, is said once."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from client.processes import ROOT
from observability import __version__
from tests.support.rpc import ARITIES

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
GITHUB = ROOT / ".github"
CHANGELOG = """# Changelog

## [Unreleased]

## [1.2.3] - 2026-01-31

### Added

- Bread.

## [1.2.2] - 2026-01-30

- Water.
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Give a project of version 1.2.3."""
    for folder in ("tools", "observability"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "tools" / "release.py", tmp_path / "tools")
    (tmp_path / "observability" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    return tmp_path


def release(project: Path, *arguments: str) -> tuple[int, str, str]:
    """Run tools/release.py; return its exit status, stdout and stderr."""
    command = [sys.executable, str(project / "tools" / "release.py"), *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    return done.returncode, done.stdout, done.stderr


def test_notes(project: Path) -> None:
    """A release says what the changelog says of its version."""
    assert (0, "### Added\n\n- Bread.\n", "") == release(project, "v1.2.3")


def test_tag_of_another_version(project: Path) -> None:
    """A tag of another version than the package's is refused."""
    assert (1, "", "the tag is v1.2.2, and __version__ is 1.2.3\n") == release(project, "v1.2.2")


def test_version_without_a_heading(project: Path) -> None:
    """A version that the changelog does not have, with a date, is refused."""
    (project / "CHANGELOG.md").write_text(CHANGELOG.replace("[1.2.3] - 2026-01-31", "[1.2.3]"))

    assert (1, "", "CHANGELOG.md has no heading such as ## [1.2.3] - 2026-01-31\n") == release(project, "v1.2.3")


def test_usage(project: Path) -> None:
    """Without a tag it says what it takes."""
    assert (2, "", "usage: python tools/release.py TAG\n") == release(project)


def test_this_version_can_be_released() -> None:
    """The changelog has what it says of the package's version."""
    status, notes, complaint = release(ROOT, f"v{__version__}")

    assert (0, "") == (status, complaint)
    assert "- " in notes


def loaded(path: str) -> dict[Any, Any]:
    """Return what a file for GitHub says."""
    said: dict[Any, Any] = yaml.safe_load((GITHUB / path).read_text("utf-8"))
    return said


def versions() -> list[str]:
    """Return the Pythons of the classifiers."""
    found = [
        re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", each)
        for each in PYPROJECT["project"]["classifiers"]
    ]
    return [each[1] for each in found if each]


def test_the_workflow_runs_each_python() -> None:
    """The workflow runs the tests on each Python of the classifiers, with the lowest and the newest dependencies."""
    matrix = loaded("workflows/ci.yml")["jobs"]["versions"]["strategy"]["matrix"]

    assert {"python": versions(), "dependencies": ["lowest", "newest"]} == matrix


def test_first_python() -> None:
    """The lowest Python of the classifiers is required, and types and lint are for it."""
    lowest = versions()[0]

    assert f">={lowest}" == PYPROJECT["project"]["requires-python"]
    assert lowest == PYPROJECT["tool"]["mypy"]["python_version"]
    assert f"py{lowest.replace('.', '')}" == PYPROJECT["tool"]["ruff"]["target-version"]


def test_what_the_workflow_runs_is_ci() -> None:
    """The workflow's other job runs .ci/run, as CI elsewhere does."""
    [*_, step] = loaded("workflows/ci.yml")["jobs"]["all"]["steps"]

    assert step["run"].endswith("bash .ci/run")


def test_form_for_calls() -> None:
    """The form for a call that is reported wrongly asks for stack, side, arity, and the codes expected and observed."""
    fields = {field.get("id"): field for field in loaded("ISSUE_TEMPLATE/call.yml")["body"]}
    arities = [option.partition(" ")[0] for option in fields["arity"]["attributes"]["options"]]

    assert list(ARITIES) == arities
    assert all(
        fields[name]["validations"]["required"] for name in ("stack", "side", "arity", "expected", "observed", "how")
    )
