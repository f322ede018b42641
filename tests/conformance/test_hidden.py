"""
What grpc hides from a server's interceptors: what is told for now of calls that end before their handler starts.

A call that grpc's core refuses, or that is cut off in the queue of a thread pool, has no context that would tell of its
deadline. One of these that ends within 25 ms is told as CANCELLED, any other as DEADLINE_EXCEEDED (call.py,
unserved_code). See cases.py, HIDDEN, for those whose handler has ended.
"""

import contextlib
import time

import grpc
import pytest
from grpc import StatusCode

from .cases import ARITIES, Arity, Case, Way, agreed, requests_stream, responses_stream, ways
from .clients import hold, requests, stub
from .messages import LARGE
from .play import play, staged
from .record import PATIENCE

TOO_LARGE = Case(
    "request_too_large",
    "A request larger than the server accepts is refused by grpc's core, which says nothing of it.",
    client=StatusCode.RESOURCE_EXHAUSTED,
    server=StatusCode.CANCELLED,
    request=LARGE,
    server_options=(("grpc.max_receive_message_length", 100),),
    arities=("unary", "server_stream"),
)
QUEUED = 0.05
"""Seconds that a call waits in the queue at least: more than 25 ms."""


@pytest.mark.parametrize("way", list(ways(TOO_LARGE)), ids="-".join)
def test_request_too_large(way: Way) -> None:
    """A request larger than the server accepts is RESOURCE_EXHAUSTED for its caller, and cut off on the server."""
    played = play(TOO_LARGE, way)
    codes = {line["kind"]: line["code"] for line in played.record.lines}

    assert StatusCode.RESOURCE_EXHAUSTED is played.got
    assert "RESOURCE_EXHAUSTED" == codes["client"]
    assert codes["server"] in ("CANCELLED", "DEADLINE_EXCEEDED")


def _queue(arity: Arity, *, timeout: float | None) -> dict[str, str]:
    """
    Let a call wait for a thread of grpc.server until its deadline, or until its caller cancels it without one.

    Returns what the client and the server tell of it. grpc.server tells nothing before the pool has
    a thread for the call; it gets one when a later call on the same connection shows that the cut-off has arrived.
    """
    case = agreed("queued", "", StatusCode.CANCELLED, timeout=timeout, pool_busy=True)
    with staged(case, Way(arity, "sync", "future")) as stage, grpc.insecure_channel(stage.address) as plain:
        method = stub(stage.telemetry.intercept_channel(plain), stage)
        start = getattr(method, "future", method)
        call = start(requests(stage) if requests_stream(arity) else case.request, timeout=timeout)
        stage.arrived.wait(PATIENCE)
        time.sleep(QUEUED)
        if timeout is None:
            call.cancel()
        with contextlib.suppress(grpc.RpcError, grpc.FutureCancelledError):
            list(call) if responses_stream(arity) else call.result()
        stage.arrived.clear()
        hold(plain)
        stage.arrived.wait(PATIENCE)
        stage.over.set()
        stage.record.wait("client", "server")
    return {line["kind"]: line["code"] for line in stage.record.lines}


@pytest.mark.parametrize("arity", ARITIES)
def test_deadline_in_queue(arity: Arity) -> None:
    """A call whose deadline comes while it waits for a thread is DEADLINE_EXCEEDED on both sides."""
    assert {"client": "DEADLINE_EXCEEDED", "server": "DEADLINE_EXCEEDED"} == _queue(arity, timeout=0.25)


@pytest.mark.parametrize("arity", ["unary", "server_stream"])
def test_unary_request_cancelled_in_queue(arity: Arity) -> None:
    """A call with one request that its caller cancels there looks the same to the server."""
    assert {"client": "CANCELLED", "server": "DEADLINE_EXCEEDED"} == _queue(arity, timeout=None)


@pytest.mark.parametrize("arity", ["client_stream", "bidi_stream"])
def test_stream_of_requests_cancelled_in_queue(arity: Arity) -> None:
    """The handler of a stream of requests starts even then, and so the server knows better."""
    assert {"client": "CANCELLED", "server": "CANCELLED"} == _queue(arity, timeout=None)
