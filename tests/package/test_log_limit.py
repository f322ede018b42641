"""The bound for the lines of calls that never ran: beyond a rate, one line a second has their number."""

import asyncio
import os
import time
from collections import Counter
from typing import Any

import grpc
import pytest
import structlog

from observability import AioServerInterceptor, ServerInterceptor
from observability.calls.errors import observer_errors
from observability.logs.limit import LINES_PER_SECOND, LineLimit
from observability.logs.observer import LogObserver
from tests.support.recorder import Recorder
from tests.support.rpc import aio_connected, as_asked, connected, method

MANY = 10 * LINES_PER_SECOND
UNKNOWN = "/no.Such/Method"


def limit_to(lines: list[dict[str, Any]]) -> LineLimit:
    """Return a limit whose lines go there."""

    def keep(_logger: Any, level: str, fields: Any) -> Any:
        lines.append({"level": level, **fields})
        raise structlog.DropEvent

    return LineLimit(structlog.wrap_logger(None, processors=[keep]))


async def aio_calls(path: str, request: bytes, *interceptors: Any) -> list[grpc.StatusCode]:
    """Make many calls at once on asyncio; return their codes."""
    async with aio_connected(*interceptors, unary=as_asked) as channel:
        calls = [method(channel, "unary", path)(request) for _ in range(MANY)]
        return [await call.code() for call in calls]


def codes_of_many(stack: str, path: str, request: bytes, recorder: Recorder) -> Counter[grpc.StatusCode]:
    """Make many calls at once; return their codes."""
    if stack == "aio":
        return Counter(asyncio.run(aio_calls(path, request, AioServerInterceptor(*recorder.observers))))
    with connected(ServerInterceptor(*recorder.observers), unary=as_asked) as channel:
        calls = [method(channel, "unary", path).future(request) for _ in range(MANY)]
        return Counter(call.code() for call in calls)


@pytest.mark.parametrize("stack", ["sync", "aio"])
def test_flood_of_unknown_methods(stack: str) -> None:
    """Of many calls of unknown methods some have a line, and lines have the number of the others; counts are exact."""
    recorder = Recorder()
    [log] = [observer for observer in recorder.observers if isinstance(observer, LogObserver)]
    start = time.monotonic()
    codes = codes_of_many(stack, UNKNOWN, b"", recorder)
    recorder.wait_for(MANY)
    seconds = time.monotonic() - start
    assert log.limit.flush(10)

    each = [line for line in recorder.lines if "endpoint" in line]
    others = [line for line in recorder.lines if "endpoint" not in line]
    assert Counter({grpc.StatusCode.UNIMPLEMENTED: MANY}) == codes
    assert LINES_PER_SECOND <= len(each) <= LINES_PER_SECOND * (seconds + 1)
    assert MANY == len(each) + sum(line["calls"] for line in others)
    assert {"UNIMPLEMENTED"} == {line["code"] for line in others}
    assert log.limit.count == MANY - len(each)
    assert MANY == recorder.total("grpc_server_handled_total")


@pytest.mark.parametrize("stack", ["sync", "aio"])
def test_calls_that_ran(stack: str) -> None:
    """Calls whose handler ran have a line each, however many fail."""
    recorder = Recorder()
    codes = codes_of_many(stack, "/test.v1.Words/Unary", b"NOT_FOUND", recorder)
    recorder.wait_for(MANY)

    assert Counter({grpc.StatusCode.NOT_FOUND: MANY}) == codes
    assert ["/unary"] * MANY == [line["endpoint"] for line in recorder.lines]


def test_kinds_are_apart() -> None:
    """A flood of one level and code leaves the lines of all others."""
    lines: list[dict[str, Any]] = []
    limit = limit_to(lines)
    flood = [limit.allows("error", "UNIMPLEMENTED") for _ in range(3 * LINES_PER_SECOND)]
    others = [limit.allows("warning", "RESOURCE_EXHAUSTED"), limit.allows("debug", "UNIMPLEMENTED")]
    assert limit.flush(10)

    left_out = flood.count(False)
    assert [True] * LINES_PER_SECOND == flood[:LINES_PER_SECOND]
    assert left_out > 0
    assert [True, True] == others
    assert [("error", "UNIMPLEMENTED", left_out)] == [(line["level"], line["code"], line["calls"]) for line in lines]
    assert left_out == limit.count


def test_line_comes_by_itself() -> None:
    """The line for others comes when its second is over, though nothing more happens."""
    lines: list[dict[str, Any]] = []
    limit = limit_to(lines)
    for _ in range(3 * LINES_PER_SECOND):
        limit.allows("error", "UNIMPLEMENTED")
    end = time.monotonic() + 15
    while not lines and time.monotonic() < end:
        time.sleep(0.01)

    assert [limit.count] == [line["calls"] for line in lines]


@pytest.mark.expects_errors("observer LineLimit failed")
def test_logger_that_raises() -> None:
    """A logger that raises is counted as an observer's error, and asked again."""
    limit = LineLimit(object())
    before = observer_errors.count
    for _ in range(2):
        for _ in range(3 * LINES_PER_SECOND):
            limit.allows("error", "UNIMPLEMENTED")
        assert limit.flush(10)

    assert before + 2 == observer_errors.count


def test_fork() -> None:
    """What a parent's line is to say is left to it, and a forked process logs its own."""
    lines: list[dict[str, Any]] = []
    limit = limit_to(lines)
    for _ in range(LINES_PER_SECOND + 7):
        limit.allows("error", "UNIMPLEMENTED")
    read, write = os.pipe()
    child = os.fork()
    if not child:
        while limit.allows("error", "UNIMPLEMENTED"):
            pass
        limit.flush(10)
        os.write(write, repr([line["calls"] for line in lines]).encode())
        os._exit(0)
    assert limit.flush(10)
    os.waitpid(child, 0)

    assert b"[1]" == os.read(read, 1000)
    assert [7] == [line["calls"] for line in lines]
