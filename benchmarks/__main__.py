"""The command: measure, write results.json, chart and page, print the tables; exit 1 when something was lost."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import chart, experiments, growth, page, results
from .goals import goals, losses
from .laboratory import Laboratory
from .load import loader
from .machine import about
from .plan import FULL, QUICK, Plan
from .process import cores, pin
from .report import report

_WIDTH = 110
"""Columns of the tables where there is no terminal to ask."""


def run(plan: Plan, console: Console, *, quick: bool) -> results.Results:
    """Make every experiment of a plan."""
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=experiments.steps(plan) + growth.steps(plan))
        pin(cores()[1])
        with Laboratory(loader(), cores(), lambda: progress.advance(task)) as laboratory:
            progress.update(task, description="calls and streams")
            calls = experiments.calls(laboratory, plan)
            reported = {key: asdict(counts) for key, counts in calls.reported.items()}
            progress.update(task, description="latency")
            latencies = experiments.latencies(laboratory, plan)
            progress.update(task, description="growth")
            grown = growth.growth(laboratory, plan)
            progress.update(task, description="memory")
            memory, reported["memory"] = experiments.memory(laboratory, plan)
            found = results.Results(
                about=about(laboratory, quick=quick),
                costs=calls.costs,
                reported=reported,
                throughput=calls.throughput,
                memory=memory,
                latencies=latencies,
                growth=grown,
                goals=[],
                losses=[],
            )
    found["goals"] = [goal.reported() for goal in goals(found)]
    found["losses"] = losses(found)
    return found


def main() -> int:
    """Measure, or show again what was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer calls and points: under 2 minutes")
    parser.add_argument(
        "--show",
        action="store_true",
        help="measure nothing: show what was measured last, and write its chart and tables",
    )
    options = parser.parse_args()
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    where = results.QUICK if options.quick else results.FULL
    if not options.show:
        results.write(run(QUICK if options.quick else FULL, console, quick=options.quick), where.results)
    found = results.read(where.results)
    where.chart.write_text(chart.draw(found))
    if where is results.FULL:
        page.write(found, results.PAGE)
    report(console, found, goals(found))
    return 1 if found["losses"] else 0


if __name__ == "__main__":
    sys.exit(main())
