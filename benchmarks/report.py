"""A run's results as tables on the terminal."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from rich.table import Table

from .goals import Goal, added
from .growth import STACKS
from .variants import UNARY, VARIANTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from .results import Results

_MARKS = {True: "[green]pass[/]", False: "[red]miss[/]", None: ""}


def report(console: Console, results: Results, goals: Sequence[Goal]) -> None:
    """Print everything that a run found."""
    for table in _tables(results, goals):
        console.print(table)
        console.print()
    console.print(_about(results), highlight=False)
    for loss in results["losses"]:
        console.print(f"[red]lost[/]  {loss}", highlight=False)


def _tables(results: Results, goals: Sequence[Goal]) -> Iterator[Table]:
    yield _costs(results)
    yield _streams(results)
    yield _latencies(results)
    for dimension, points in results["growth"].items():
        yield _growth(dimension, points)
    yield _goals(goals)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _costs(results: Results) -> Table:
    table = _table("µs of CPU per unary call", "", "in all", "added", "calls", "lines", "counted", "spans")
    for group, variants in UNARY.items():
        table.add_section()
        table.add_row(f"[bold]{group}[/]")
        for variant in variants:
            reported = results["reported"][variant.key]
            table.add_row(
                variant.title,
                spread(results["costs"][variant.key]),
                "" if variant.stack == "bare" else spread(added(results, variant.key)),
                f"{reported['calls']:,}",
                *(
                    f"{reported[signal]:,}" if signal in variant.signals else ""
                    for signal in ("lines", "handled", "spans")
                ),
            )
    return table


def _streams(results: Results) -> Table:
    table = _table("Streams of 10,000 messages of 100 B", "", "messages/s")
    for key, rates in results["throughput"].items():
        variant = VARIANTS[key]
        table.add_row(f"{variant.style} {variant.side}, {variant.stack}", spread(rates))
    return table


_SERVERS = {
    "bare": "bare",
    "live": "ours, receiver live",
    "hung": "ours, receiver hung",
    "official": "official, receiver live",
}


def _latencies(results: Results) -> Table:
    table = _table("99th percentile at half load, ms", "sync server", "ms")
    for name, milliseconds in results["latencies"].items():
        table.add_row(_SERVERS[name], spread(milliseconds, ".2f"))
    return table


def _growth(dimension: str, points: dict[str, dict[str, list[float]]]) -> Table:
    unit = "stream" if "stream" in dimension else "call"
    table = _table(f"µs of CPU per {unit}, by {dimension}", dimension, *STACKS, "+ official", "+ ours")
    for point, costs in points.items():
        middle = {stack: median(costs[stack]) for stack in STACKS}
        table.add_row(
            f"{int(point):,}",
            *(f"{middle[stack]:,.0f}" for stack in STACKS),
            *(f"{middle[stack] - middle['bare']:,.0f}" for stack in STACKS[1:]),
        )
    return table


def _goals(goals: Sequence[Goal]) -> Table:
    table = _table("Goals: ratios within each repetition", "", "ratio", "goal", "")
    for goal in goals:
        table.add_row(goal.text, spread(goal.ratios, ".2f"), goal.limit, _MARKS[goal.met])
    return table


def _about(results: Results) -> str:
    about = results["about"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"{about['machine']}; Python {about['python']}; {versions}; load from {about['load']}.",
        "Median (lowest-highest) of the repetitions."
        + ("" if about["pinned"] else " Nothing was pinned: there is one core, or no way to."),
    ]
    if about["quick"]:
        lines.append("A quick run: fewer calls, points and repetitions, and less memory's time. The full run decides.")
    return "\n".join(lines)


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Return the median, and from where to where the values go."""
    return f"{median(values):{form}} ({min(values):{form}}-{max(values):{form}})"
