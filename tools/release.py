"""
Prints what the changelog says of a version, for the tag that names it, such as v1.0.0.

Exit status: 0, or 1 when the tag, the package's version and the changelog do not agree; stderr says in what.
"""

# ruff: noqa: INP001, T201 - a program run by path, which prints

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class DisagreementError(Exception):
    """A tag cannot be released; the text says what it does not agree with."""


def notes(tag: str, package: str, changelog: str) -> str:
    """Return the changelog's section of this tag's version, which must be the package's; raise DisagreementError."""
    version = re.search(r'^__version__ = "(.+)"$', package, re.MULTILINE)
    if version is None or tag != f"v{version[1]}":
        raise DisagreementError(f"the tag is {tag}, and __version__ is {version and version[1]}")
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)
    for section in sections[1:]:
        heading, _, text = section.partition("\n")
        if re.fullmatch(rf"\[{re.escape(version[1])}\] - \d{{4}}-\d\d-\d\d", heading):
            return text.strip() + "\n"
    raise DisagreementError(f"CHANGELOG.md has no heading such as ## [{version[1]}] - 2026-01-31")


def main() -> int:
    """Print the notes; return the exit status."""
    if len(sys.argv) != 2:  # noqa: PLR2004 - the program and its argument
        print("usage: python tools/release.py TAG", file=sys.stderr)
        return 2
    package = (ROOT / "observability" / "__init__.py").read_text("utf-8")
    try:
        print(notes(sys.argv[1], package, (ROOT / "CHANGELOG.md").read_text("utf-8")), end="")
    except DisagreementError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
