"""The benchmark's arithmetic: what it reads, what it compares, what it calls a loss."""

import copy
import xml.etree.ElementTree as ET
from statistics import median

import pytest

from benchmarks import chart
from benchmarks.goals import added, goals, losses
from benchmarks.load import framed, metadata, seconds_of
from benchmarks.plan import FULL, QUICK
from benchmarks.results import Results
from benchmarks.trial import Reported, Trial, percentile
from benchmarks.variants import PARTS, STREAMING, VARIANTS

H2LOAD = """
finished in {taken}, 9855.42 req/s, 630.15KB/s
requests: 3000 total, 3000 started, 3000 done, {succeeded} succeeded, {failed} failed, {failed} errored, 0 timeout
"""


@pytest.fixture
def found() -> Results:
    """
    Make up a run of two repetitions, the second on a machine that was twice as slow.
    """
    costs = {key: [100.0, 200.0] for key in VARIANTS}
    for key, variant in VARIANTS.items():
        if variant.stack != "bare":
            costs[key] = [200.0, 400.0]
    costs["server-sync-ours"] = [140.0, 280.0]
    reported = {
        key: {"calls": 100} | {signal: 100 * (signal in v.signals) for signal in ("lines", "handled", "spans")}
        for key, v in VARIANTS.items()
    }
    return Results(
        about={
            "machine": "a machine",
            "python": "3",
            "versions": dict.fromkeys(chart.NAMED, "1"),
            "load": "h2load",
            "pinned": True,
        },
        costs=costs,
        reported=reported | {"memory": {"calls": 100, "lines": 100, "handled": 100, "spans": 100}},
        throughput={variant.key: [1000.0, 500.0] for variant in STREAMING},
        memory={"100": 1000, "1000": 1040},
        latencies={"bare": [1.0], "live": [2.0], "hung": [3.0], "official": [4.0]},
        growth={},
        goals=[],
        losses=[],
    )


def test_added_is_compared_within_a_repetition(found: Results) -> None:
    """
    What a variant adds is its cost less the bare call's of the same repetition.
    """
    assert [40.0, 80.0] == added(found, "server-sync-ours")


def test_ratio_is_the_median_of_the_repetitions_own(found: Results) -> None:
    """
    A machine that was slow for one repetition does not change the ratio.
    """
    goal = goals(found)[0]

    assert ("sync server: ours / assembled", 0.4, True) == (goal.text, goal.ratio, goal.met)


def test_goal_that_is_not_met_says_so(found: Results) -> None:
    """
    A ratio over its limit is a miss.
    """
    found["costs"]["server-sync-ours"] = [146.0, 292.0]

    assert (0.46, False) == (round(goals(found)[0].ratio, 2), goals(found)[0].met)


def test_goal_without_a_limit_is_neither(found: Results) -> None:
    """
    A goal without a limit is neither met nor missed.
    """
    (latency,) = [goal for goal in goals(found) if "hung" in goal.text]

    assert ("reported", None) == (latency.limit, latency.met)


def test_throughput_must_reach_its_limit(found: Results) -> None:
    """
    Messages a second are compared with the bare stream's, and must be at least so many.
    """
    found["throughput"]["server-sync-ours"] = [960.0, 480.0]
    (streams,) = [goal for goal in goals(found) if goal.text.startswith("streams, sync server")]

    assert (0.96, False) == (streams.ratio, streams.met)


def test_nothing_lost(found: Results) -> None:
    """
    A run in which every call was reported has no losses.
    """
    assert [] == losses(found)


@pytest.mark.parametrize(
    ("key", "signal", "count"),
    [
        ("server-sync-ours", "lines", 99),
        ("server-sync-ours", "lines", 101),
        ("server-sync-ours-unsampled", "handled", 99),
        ("client-aio-ours", "spans", 97),
        ("memory", "lines", 99),
    ],
)
def test_loss_is_named(found: Results, key: str, signal: str, count: int) -> None:
    """
    A line, a count or a span too few, or one reported twice, is a loss of its variant's.
    """
    found["reported"][key][signal] = count

    assert [f"{key}: {count} {signal} of 100 calls"] == losses(found)


def test_spans_that_the_official_package_loses_as_well_are_no_loss(found: Results) -> None:
    """
    Spans may be lost where the official package loses them too, 2 % aside.
    """
    found["reported"]["server-sync-official"]["spans"] = 90
    found["reported"]["server-sync-ours"]["spans"] = 88

    assert [] == losses(found)


def test_losses_of_others_are_not_ours(found: Results) -> None:
    """
    Only what ours loses fails a run.
    """
    found["reported"]["server-sync-assembled"]["lines"] = 0

    assert [] == losses(found)


@pytest.mark.parametrize(("taken", "seconds"), [("1.25s", 1.25), ("258.50ms", 0.2585), ("900us", 0.0009)])
def test_seconds_of_h2load(taken: str, seconds: float) -> None:
    """
    The time that h2load prints is read in each of its units.
    """
    assert seconds == pytest.approx(seconds_of(H2LOAD.format(taken=taken, succeeded=3000, failed=0)))


def test_failed_call_of_h2load_raises() -> None:
    """
    A load of which a call failed is no measurement.
    """
    with pytest.raises(ValueError, match="2999 succeeded"):
        seconds_of(H2LOAD.format(taken="1s", succeeded=2999, failed=1))


def test_framed_message() -> None:
    """
    A message has gRPC's prefix: not compressed, and its length.
    """
    assert b"\0\0\0\1\2" == framed(b"x" * 258)[:5]


def test_traceparent_says_whether_the_caller_sampled() -> None:
    """
    The last digit of the header is the caller's decision; one that traces nothing sends no header.
    """
    [sampled], [unsampled] = metadata("sampled"), metadata("unsampled")

    assert ("traceparent", "01") == (sampled[0], sampled[1][-2:])
    assert ("traceparent", "00") == (unsampled[0], unsampled[1][-2:])
    assert () == metadata("untraced")


def test_cost_is_per_call() -> None:
    """
    A trial's cost is the processor time of one call, in µs.
    """
    assert Trial(1.0, 0.5, Reported(calls=1000)).microseconds == pytest.approx(500.0)


def test_percentile() -> None:
    """
    The 99th percentile of 1 to 100 is passed by one value alone.
    """
    assert percentile([float(value) for value in range(100, 0, -1)], 99) == pytest.approx(100.0)


def test_plans_have_enough_repetitions() -> None:
    """
    A cost is the median of 5 repetitions at least, in a quick run as well.
    """
    assert min(FULL.repetitions, QUICK.repetitions) >= 5


def test_chart_has_a_bar_for_every_stack(found: Results) -> None:
    """
    The chart is an image with one bar per variant, the bare ones and parts of ours aside, each with its median.
    """
    image = ET.fromstring(chart.draw(found))  # noqa: S314 - drawn here
    bars = image.findall("{*}rect[@rx='2']")
    texts = [text.text for text in image.findall("{*}text")]

    assert len([v for v in VARIANTS.values() if v.stack not in ("bare", *PARTS)]) == len(bars)
    assert str(round(median([40.0, 80.0]))) in texts


def test_order_of_repetitions_changes_nothing(found: Results) -> None:
    """
    Ratios belong to their repetition, wherever it stands.
    """
    turned = copy.deepcopy(found)
    turned["costs"] = {key: values[::-1] for key, values in found["costs"].items()}

    assert [goal.ratio for goal in goals(found)] == [goal.ratio for goal in goals(turned)]
