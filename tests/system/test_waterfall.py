"""A trace on the screen."""

import dataclasses
from collections.abc import Mapping

import pytest
from rich.console import Console

from client.spans import Span
from client.waterfall import waterfall


def span(name: str, parent: str, start: int, end: int, *, code: str = "OK") -> Span:
    """Make a span of so many milliseconds."""
    return Span(
        service=f"service-{name}",
        name=f"echo.v1.Echo/{name}",
        kind="server",
        trace_id="0" * 32,
        span_id=name,
        parent_id=parent,
        start=start * 1_000_000,
        end=end * 1_000_000,
        attributes={"rpc.status_code": code},
    )


def rows(*spans: Span) -> list[str]:
    """Return what a person sees, line by line, without the header."""
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(waterfall(spans))
    return [line.rstrip() for line in capture.get().splitlines()[1:]]


def test_times_count_from_the_first_start() -> None:
    """Each row has its span's code, its start after the trace's, and how long it took."""
    first, second = rows(span("a", "", 1000, 1010), span("b", "a", 1002, 1005, code="NOT_FOUND"))

    assert ["service-a", "←", "echo.v1.Echo/a", "OK", "0.00", "ms", "10.00", "ms"] == first.split()[:8]
    assert ["└─", "service-b", "←", "echo.v1.Echo/b", "NOT_FOUND", "2.00", "ms", "3.00", "ms"] == second.split()[:9]


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"rpc.status_code": "NOT_FOUND"}, "NOT_FOUND"),
        ({"rpc.grpc.status_code": 0}, "OK"),
        ({"rpc.grpc.status_code": 5}, "NOT_FOUND"),
        ({"rpc.grpc.status_code": 99}, "99"),
        ({}, ""),
    ],
    ids=str,
)
def test_codes_of_either_conventions(attributes: Mapping[str, str | int], code: str) -> None:
    """A code is shown by its name, be it recorded by name or, as the older conventions do, by number."""
    call = dataclasses.replace(span("a", "", 0, 1), attributes=attributes)

    assert code == call.code


def test_branches() -> None:
    """Lines lead from a caller to all that it called, in the order of their starts."""
    shown = rows(span("a", "", 0, 9), span("d", "b", 2, 3), span("c", "a", 4, 5), span("b", "a", 1, 3))

    assert ["service-a ←", "├─ service-b ←", "│  └─ service-d ←", "└─ service-c ←"] == [
        row.partition(" echo")[0] for row in shown
    ]


def test_callers_that_are_not_there() -> None:
    """A span whose caller is elsewhere begins a new tree."""
    assert 2 == len(rows(span("a", "elsewhere", 0, 9), span("b", "b", 1, 2)))


def test_the_shortest_span_can_be_seen() -> None:
    """Even a span of no time at all has a bar."""
    _, short = rows(span("a", "", 0, 1000), span("b", "a", 1000, 1000))

    assert short.endswith(("█", "▐", "▕", "▌", "▎", "▏", "▊", "▋", "▉", "▍"))
