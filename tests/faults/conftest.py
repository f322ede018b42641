"""The marker of these tests, both services, and the figures that are measured, as a table at the end of the run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from client.processes import Service
from tests.faults.targets import Target, service_a, service_b

HERE = Path(__file__).parent
FIGURE = "figure"

Figure = Callable[[str, str, str], None]
"""What was measured, what came out, and what it has to be: `figure("calls that succeed", "99.8 %", "≥ 99 %")`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test of this folder as one of `faults`."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("faults")


@pytest.fixture
def figure(record_property: Callable[[str, Any], None]) -> Figure:
    """Give what records a figure, which stands in the table at the end whether the test then passes or not."""
    return lambda what, value, goal: record_property(FIGURE, (what, value, goal))


@pytest.fixture(scope="module")
def targets() -> Iterator[dict[str, Target]]:
    """Give both services, whose spans nobody takes."""
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    with (
        Service("service-a", **variables) as a,
        Service("service-b", "--service-a", a.address, **variables) as b,
    ):
        yield {"A": service_a(a), "B": service_b(b)}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures of all tests, as a table of Markdown."""
    figures = [
        (report.nodeid.removeprefix("tests/faults/").replace(".py::", ": ", 1), *cast("tuple[str, str, str]", value))
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
        if name == FIGURE
    ]
    if figures:
        terminalreporter.section("figures")
        for row in [("Test", "What", "Measured", "Held"), ("---",) * 4, *sorted(figures)]:
            terminalreporter.line(f"| {' | '.join(row)} |")
