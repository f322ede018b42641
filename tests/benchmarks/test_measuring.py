"""A measurement counts what was really reported: of every stack, with real processes and a real load."""

import shutil
from collections.abc import Iterator

import pytest

from benchmarks.laboratory import Laboratory
from benchmarks.load import H2Load, Loader, OwnClient
from benchmarks.trial import Reported
from benchmarks.variants import VARIANTS

CALLS = 40
H2LOAD = shutil.which("h2load")


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    """
    Start a laboratory whose load is our own client.
    """
    with Laboratory(OwnClient()) as started:
        yield started


@pytest.mark.parametrize(
    "key",
    [
        "server-sync-bare",
        "server-sync-ours",
        "server-sync-ours-unsampled",
        "server-sync-ours-untraced",
        "server-sync-official",
        "server-sync-assembled",
        "server-aio-ours",
        "client-sync-ours",
        "client-aio-ours",
    ],
)
def test_every_call_is_counted_once(laboratory: Laboratory, key: str) -> None:
    """
    Lines, handled counts and spans are counted where there are such, one for each call; and the calls cost time.
    """
    variant = VARIANTS[key]
    with laboratory.measure([variant]) as (measured,):
        trial = measured.unary(laboratory.loader, CALLS)

    assert Reported(CALLS, **dict.fromkeys(variant.signals, CALLS)) == trial.reported
    assert trial.microseconds > 0


def test_stream_is_one_call(laboratory: Laboratory) -> None:
    """
    A stream is reported once, however many messages it has.
    """
    with laboratory.measure([VARIANTS["server-sync-ours"]]) as (measured,):
        trial = measured.streams(laboratory.loader, 2, 50)

    assert Reported(2, lines=2, handled=2, spans=2) == trial.reported


@pytest.mark.parametrize(
    "loader",
    [
        OwnClient(),
        pytest.param(H2LOAD, marks=pytest.mark.skipif(H2LOAD is None, reason="h2load is not installed")),
    ],
    ids=["own", "h2load"],
)
def test_steady_pace_times_every_call(laboratory: Laboratory, loader: Loader | str) -> None:
    """
    At a steady pace, the time of each call is returned.
    """
    paced = H2Load(loader) if isinstance(loader, str) else loader
    with laboratory.measure([VARIANTS["server-sync-bare"]]) as (measured,):
        taken = measured.latencies(paced, CALLS, 200.0)

    assert CALLS == len(taken)
    assert min(taken) > 0
