"""Whatever a sync interceptor after ours answers with, its caller gets, and it is reported."""

import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.support.less_than_calls import ANSWERED_FUTURES, ANSWERED_STREAMS, Answering, Kept, Pending, WithStatusError
from tests.support.outcomes import behaviors, reporter
from tests.support.recorder import Recorder
from tests.support.rpc import ECHOES, RESPONSES, connected, method, requests
from tests.support.without_us import WAYS, expect, singles, start, streams, ways


@ways
@streams
@pytest.mark.parametrize("answer", ANSWERED_STREAMS.values(), ids=ANSWERED_STREAMS)
def test_stream_that_is_less_than_a_call(way: str, arity: str, answer: Callable[[Any], Any]) -> None:
    """A stream that another interceptor answers with is passed on, is iterated the same way, and is reported."""
    recorder = Recorder()
    with connected(**ECHOES) as plain:
        found = list(start(WAYS[way](recorder, grpc.intercept_channel(plain, Answering(answer))), arity))

    assert RESPONSES[arity] == found
    expect(way, recorder, "OK")
    assert way == "bare" or [len(RESPONSES[arity])] == [outcome.received for outcome in recorder.outcomes]


@ways
@streams
@pytest.mark.parametrize("kind", ["generator", "iterable", "call alone"])
@pytest.mark.parametrize("how", ["NOT_FOUND", "dropped", "unread", "cancelled"])
def test_end_of_a_stream_that_is_less_than_a_call(way: str, arity: str, kind: str, how: str) -> None:
    """However such a stream ends, that is reported, and nothing is left in flight."""
    recorder, leave, begun, over = Recorder(), threading.Event(), threading.Event(), threading.Event()
    served = behaviors("NOT_FOUND" if how == "NOT_FOUND" else "cancelled", leave, begun)
    with connected(**reporter(over, served)) as plain:
        answering = Answering(ANSWERED_STREAMS[kind])
        stream = start(WAYS[way](recorder, grpc.intercept_channel(plain, answering)), arity)
        begun.wait(5)
        responses = iter(stream) if how != "unread" else None
        if responses is not None:
            assert b"first" == next(responses)
        if how == "NOT_FOUND":
            with pytest.raises(grpc.RpcError):
                next(responses)  # type: ignore[arg-type]  # it is none if unread alone
        if how == "cancelled" and kind != "generator":
            stream.cancel()
        del stream, responses
        assert over.wait(5)
        leave.set()

    expect(way, recorder, "NOT_FOUND" if how == "NOT_FOUND" else "CANCELLED")


@ways
@streams
@pytest.mark.parametrize("answer", [None, b"a", 5], ids=str)
def test_no_stream_at_all(way: str, arity: str, answer: Any) -> None:
    """What is no stream at all is handed on as it is."""
    recorder = Recorder()
    with connected(**ECHOES) as plain:
        channel = grpc.intercept_channel(plain, Answering(lambda _call: answer))
        found = method(WAYS[way](recorder, channel), arity)(requests(arity))

    assert answer is found
    expect(way, recorder, "OK")


@ways
@streams
def test_list_for_a_stream(way: str, arity: str) -> None:
    """A list for a stream is that very list."""
    recorder, answer = Recorder(), [b"a", b"b"]
    with connected(**ECHOES) as plain:
        channel = WAYS[way](recorder, grpc.intercept_channel(plain, Answering(lambda _call: answer)))
        found = method(channel, arity)(requests(arity))

    assert answer is found
    expect(way, recorder, "OK")
    assert way == "bare" or [2] == [outcome.received for outcome in recorder.outcomes]


@ways
@streams
def test_iterable_is_iterated_again(way: str, arity: str) -> None:
    """What can be iterated again can be, and is reported once."""
    recorder = Recorder()

    with connected(**ECHOES) as plain:
        stream = start(WAYS[way](recorder, grpc.intercept_channel(plain, Answering(Kept))), arity)
        found = [list(stream), list(stream), stream.kept]

    assert [RESPONSES[arity]] * 3 == found
    expect(way, recorder, "OK")


@ways
@singles
@pytest.mark.parametrize("name", ["__call__", "with_call", "future"])
@pytest.mark.parametrize("answer", ANSWERED_FUTURES)
def test_future_that_is_less_than_a_call(way: str, arity: str, name: str, answer: str) -> None:
    """In every way to call, the caller gets the result of a future that another interceptor answers with."""
    recorder = Recorder()
    change, result, code = ANSWERED_FUTURES[answer]
    with connected(**behaviors("OK")) as plain:
        channel = WAYS[way](recorder, grpc.intercept_channel(plain, Answering(change)))

        def call() -> Any:
            made = getattr(method(channel, arity), name)(requests(arity), timeout=10)
            return {"__call__": lambda: made, "with_call": lambda: made[0], "future": lambda: made.result()}[name]()  # noqa: PLW0108 - of one way alone

        if isinstance(result, bytes):
            assert result == call()
        else:
            with pytest.raises(result):
                call()

    expect(way, recorder, code)


@ways
@singles
def test_dropped_future_that_is_less_than_a_call(way: str, arity: str) -> None:
    """Such a future is reported when it is dropped, at the latest."""
    recorder, leave = Recorder(), threading.Event()
    with connected(**behaviors("cancelled", leave)) as plain:
        future = start(WAYS[way](recorder, grpc.intercept_channel(plain, Answering(Pending))), arity)
        del future
        leave.set()

    expect(way, recorder, "CANCELLED")


@ways
@singles
def test_error_with_a_code(way: str, arity: str) -> None:
    """An RpcError with a code that another interceptor raises is reported with that code."""
    recorder = Recorder()

    def fail(_call: Any) -> Any:
        raise WithStatusError

    with connected(**ECHOES) as plain:
        channel = WAYS[way](recorder, grpc.intercept_channel(plain, Answering(fail)))
        with pytest.raises(WithStatusError):
            method(channel, arity)(requests(arity))

    expect(way, recorder, "NOT_FOUND")
