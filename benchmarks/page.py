"""What docs/performance.md shows of the results: tables between two marks, written anew by each full run."""

from __future__ import annotations

import re
from statistics import median
from typing import TYPE_CHECKING, Final

from .goals import added, goals
from .variants import CALLERS, TITLES, UNARY

if TYPE_CHECKING:
    from pathlib import Path

    from .results import Results

_MARKED: Final = re.compile(r"(?<=<!-- from results.json -->\n).*?(?=<!-- until here -->)", re.DOTALL)


def tables(results: Results) -> str:
    """Return what each stack adds to a call, and the ratios that are aimed at, as Markdown."""
    costs = [
        f"| {group}{CALLERS[variant.caller]} | {TITLES[variant.stack]} | {median(added(results, variant.key)):.0f} |"
        for group, variants in UNARY.items()
        for variant in variants
        if variant.stack != "bare"
    ]
    ratios = [f"| {goal.text} | {goal.ratio:.2f} | {goal.limit} |" for goal in goals(results)]
    return "\n".join(
        [
            "",
            "| Server or client | Party | µs added to a bare call |",
            "|---|---|---|",
            *costs,
            "",
            "| Ratio of what is added | median | aimed at |",
            "|---|---|---|",
            *ratios,
            "",
            "",
        ]
    )


def write(results: Results, page: Path) -> None:
    """Put the tables into the page, in place of those that are there."""
    page.write_text(_MARKED.sub(lambda _: tables(results), page.read_text("utf-8")), "utf-8")


def shown(page: Path) -> str:
    """Return the tables that the page has; ValueError where it has no place for them."""
    found = _MARKED.search(page.read_text("utf-8"))
    if found is None:
        raise ValueError(f"{page} has no place for tables")
    return found[0]
