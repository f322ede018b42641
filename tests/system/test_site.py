"""`make docs` builds the site, and fails where a link leads nowhere or a public name is not documented."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from client.processes import ROOT

PAGES = ("*.md", "docs/**/*.*", "examples/*.*", "LICENSE", "deploy/**/*", ".github/workflows/*")
DEFECTS = [
    ("docs/tls.md", "](settings.md)", "](no-settings.md)", "docs/tls.md:.*no-settings.md"),
    ("docs/tls.md", "](settings.md#lines)", "](settings.md#no-lines)", "docs/tls.md:.*no-lines"),
    ("docs/observers.md", "](../examples/tenants.py)", "](../examples/tenant.py)", "docs/observers.md:.*tenant.py"),
    (
        "docs/reference/errors.md",
        "observability.ListenError()",
        "builtins.OSError()",
        "not documented: observability.ListenError$",
    ),
]
"""Of a page what stands there, what takes its place, and the warning that this is."""


def build(source: Path, site: Path, builder: str = "html") -> list[str]:
    """Build the site as `make docs` does; return what it warns of, which fails it."""
    options: list[str | Path] = [
        "-q",
        "-N",  # no colours, which it takes in CI
        "-W",
        "--keep-going",
        "-b",
        builder,
        "-c",
        source / "docs",
        "-d",
        site / "doctrees",
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, source, site / builder],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    warnings = [line for line in ended.stderr.splitlines() if "WARNING: " in line]
    assert bool(warnings) is bool(ended.returncode), ended.stderr
    return warnings


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Give a copy of what the site is made of; of the longest page, which takes most of the time, the beginning."""
    folder = tmp_path / "source"
    for path in (path for pattern in PAGES for path in ROOT.glob(pattern) if path.is_file()):
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    longest = folder / "docs/conformance.md"
    longest.write_text(longest.read_text().partition("\n## ")[0])
    return folder


def test_site(source: Path, tmp_path: Path) -> None:
    """
    The site is built without a warning; no page loads anything from elsewhere; and what leads nowhere is noticed.

    That is a link to no page, to no heading or to no program, and a public name that the reference has not.
    """
    assert [] == build(source, tmp_path)
    assert [] == loads(tmp_path / "html")
    assert set() == not_in_contents(tmp_path / "html")

    for page, text, other, _ in DEFECTS:
        sound = (source / page).read_text()
        assert text in sound
        (source / page).write_text(sound.replace(text, other))
    warnings = build(source, tmp_path, "dummy")

    assert len(DEFECTS) == len(warnings)
    assert [] == [warning for *_, warning in DEFECTS if not any(re.search(warning, found) for found in warnings)]


def loads(site: Path) -> list[str]:
    """Return what pages and styles load from another place, by which their readers would be seen there."""
    html = "".join(path.read_text() for path in site.rglob("*.html"))
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    elements = r"<(?:script|img|iframe|source)[^>]* src=\"[a-z]*:?//[^\"]*|<link[^>]* href=\"[a-z]*:?//[^\"]*"
    return [*re.findall(elements, html), *re.findall(r"(?:url\(|@import )[\"']?(?:[a-z]+:)?//[^)]*", styles)]


def not_in_contents(site: Path) -> set[str]:
    """Return the pages of docs/ to which the contents beside the start page do not lead."""
    start = (site / "index.html").read_text()
    pages = {path.relative_to(site).as_posix() for path in (site / "docs").rglob("*.html")}
    assert pages
    return {page for page in pages if f'href="{page}"' not in start}
