"""
Runs the package's tests on each Python that its classifiers name, with the lowest and the newest dependencies.

A Python is looked for on the path, in pyenv and in uv; one that this machine does not have is left out, and the last
lines say so. Exit status: 0 when all that was run passed, 1 when any failed, or when there was none to run.
"""

# A program run by path, which prints, and starts make and Pythons.
# ruff: noqa: INP001, T201, S603, S607

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WHICH = ("lowest", "newest")


def versions() -> list[str]:
    """Return the Pythons of the classifiers, such as 3.11."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["classifiers"]
    prefix = "Programming Language :: Python :: "
    return [name.removeprefix(prefix) for name in classifiers if name.startswith(prefix)]


def find(version: str) -> Path | None:
    """Return a Python of this version that runs, or None."""
    return next((path for path in _candidates(version) if _is(path, version)), None)


def _candidates(version: str) -> Iterator[Path]:
    name = f"python{version}"
    on_path = shutil.which(name)  # pyenv's may be a mere note of it, which fails where another one is chosen
    yield from [Path(on_path)] if on_path else []
    for folder in (
        Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions",
        Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local/share/uv/python"),
    ):
        yield from sorted(folder.glob(f"*/bin/{name}"), key=_patch, reverse=True)


def _patch(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.parent.parent.name)]


def _is(path: Path, version: str) -> bool:
    asked = [os.fspath(path), "-c", "import sys; print('{}.{}'.format(*sys.version_info))"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.stdout.strip() == version


def main() -> int:
    """Run them; return the exit status."""
    found = {version: find(version) for version in versions()}
    results: dict[str, str] = {}
    for version, path in found.items():
        if path is None:
            results[version] = f"left out: this machine has no python{version} on the path, in pyenv or in uv"
            continue
        for which in WHICH:
            print(f"Python {version}, {which}: {path}", flush=True)
            done = subprocess.run(["make", f"check-{which}", f"PYTHON={path}"], cwd=ROOT, check=False)
            results[f"{version}, {which}"] = "failed" if done.returncode else "passed"
    for name, result in results.items():
        print(f"Python {name}: {result}")
    return int("failed" in results.values() or "passed" not in results.values())


if __name__ == "__main__":
    sys.exit(main())
