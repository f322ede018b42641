"""The results that the repository shows are those of a whole run, in which nothing was lost."""

import pytest

from benchmarks import chart, page, results
from benchmarks.goals import goals, losses
from benchmarks.plan import FULL
from benchmarks.variants import STREAMING, VARIANTS


@pytest.fixture(scope="module")
def shown() -> results.Results:
    """
    Read the committed results.
    """
    return results.read(results.FULL.results)


def test_goals_follow_from_the_numbers(shown: results.Results) -> None:
    """
    Each goal's ratio is what the numbers beside it come to.
    """
    assert shown["goals"] == [goal.reported() for goal in goals(shown)]


def test_nothing_was_lost(shown: results.Results) -> None:
    """
    No variant of ours lost a line, a count or a span.
    """
    assert [] == losses(shown) == shown["losses"]


def test_every_variant_was_measured(shown: results.Results) -> None:
    """
    Every variant has a number for every repetition of the whole plan.
    """
    counts = {key: len(values) for key, values in (shown["costs"] | shown["throughput"]).items()}

    assert {*VARIANTS} == {*shown["costs"]}
    assert {variant.key for variant in STREAMING} == {*shown["throughput"]}
    assert {FULL.repetitions} == {*counts.values()}
    assert not shown["about"]["quick"]


def test_chart_shows_the_results(shown: results.Results) -> None:
    """
    The chart is the one that the results draw.
    """
    assert chart.draw(shown) == results.FULL.chart.read_text()


def test_page_shows_the_results(shown: results.Results) -> None:
    """
    The tables of docs/performance.md are those of the results.
    """
    assert page.tables(shown) == page.shown(results.PAGE)
