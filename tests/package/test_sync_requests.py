"""A sync interceptor after ours gets the requests and call details that it would get without us."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
import pytest

from observability import ClientInterceptor
from tests.support.less_than_calls import Default
from tests.support.recorder import Recorder
from tests.support.rpc import ARITIES, ECHOES, RESPONSES, STREAMS, connected, method, requests
from tests.support.without_us import REQUEST_STREAMS, WAYS, Around, end, expect, ways


class Asking(Around):
    """An interceptor that reads the requests in some way."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self._read = read

    def ask(self, request: Any) -> Any:
        """Read them."""
        return self._read(request)


READ: Final[dict[str, Callable[[Any], Any]]] = {
    "any iterable": lambda requests: iter(list(requests)),
    "twice": lambda requests: iter(list(requests) and list(requests)),
    "a sequence": lambda requests: (requests[index] for index in range(len(requests))),
    "reversed": lambda requests: reversed([*reversed(requests)]),
    "truth": lambda requests: iter(requests) if requests else iter([]),
}


@ways
@pytest.mark.parametrize("arity", REQUEST_STREAMS)
@pytest.mark.parametrize("read", READ)
def test_list_of_requests(way: str, arity: str, read: str) -> None:
    """A list of requests can be read as a list by an interceptor after ours, as often as it likes."""
    recorder = Recorder()
    with connected(**ECHOES) as plain:
        channel = WAYS[way](recorder, grpc.intercept_channel(plain, Asking(READ[read])))
        result = method(channel, arity)([b"a", b"b", b"c"], timeout=10)
        found = list(result) if arity in STREAMS else [result]

    assert RESPONSES[arity] == found
    expect(way, recorder, "OK")


@ways
@pytest.mark.parametrize("arity", REQUEST_STREAMS)
def test_retry_after_ours(way: str, arity: str) -> None:
    """A retry interceptor after ours sends all of a list again, and both tries are counted as sent."""
    recorder, tries = Recorder(), [False, True]

    class Retrying(Around):
        """Tries again, once."""

        def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
            call = continuation(client_call_details, iter(request_iterator))
            return (
                call if call.code() is grpc.StatusCode.OK else continuation(client_call_details, iter(request_iterator))
            )

        intercept_stream_stream = intercept_stream_unary

    def fail_once(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        received = list(messages)
        if not tries.pop(0):
            context.abort(grpc.StatusCode.UNAVAILABLE, "once")
        return b" ".join(received)

    def fail_once_with(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        found = fail_once(messages, context)
        context.set_trailing_metadata((("found", found),))
        yield from ()

    served: dict[str, Any] = {arity: fail_once_with if arity in STREAMS else fail_once}
    with connected(**served) as plain:
        channel = WAYS[way](recorder, grpc.intercept_channel(plain, Retrying()))
        result = method(channel, arity)([b"a", b"b", b"c"], timeout=10)
        found = dict(result.trailing_metadata())["found"].encode() if arity in STREAMS else result
        del result

    assert b"a b c" == found
    expect(way, recorder, "OK")
    assert way == "bare" or [6] == [outcome.sent for outcome in recorder.outcomes]


@pytest.mark.expects_errors("'list' object is not an iterator")
@ways
@pytest.mark.parametrize("arity", REQUEST_STREAMS)
def test_list_of_requests_that_grpc_reads(way: str, arity: str) -> None:
    """Grpc itself reads no list: the call ends as it does without us."""
    recorder = Recorder()
    with connected(**ECHOES) as plain:
        error: Any = end(start_with(WAYS[way](recorder, plain), arity, [b"a"]), arity)

    assert (grpc.StatusCode.UNKNOWN, "Exception iterating requests!") == (error.code(), error.details())
    expect(way, recorder, "UNKNOWN")


def start_with(channel: grpc.Channel, arity: str, request: Any) -> Any:
    """Start a call with this."""
    callable_ = method(channel, arity)
    return (callable_ if arity in STREAMS else callable_.future)(request, timeout=10)


@ways
@pytest.mark.parametrize("arity", REQUEST_STREAMS)
def test_requests_have_what_they_have(way: str, arity: str) -> None:
    """An iterator of requests is one for an interceptor after ours too, with what else it has."""
    recorder, seen = Recorder(), []

    class Requests(Iterator[bytes]):
        """Another library's requests."""

        name = "bread"

        def __init__(self) -> None:
            self._messages = iter([b"a", b"b", b"c"])

        def __next__(self) -> bytes:
            return next(self._messages)

    def look(requests: Any) -> Any:
        seen.append((requests.name, iter(requests) is requests, hasattr(requests, "no_bread")))
        return requests

    with connected(**ECHOES) as plain:
        channel = WAYS[way](recorder, grpc.intercept_channel(plain, Asking(look)))
        result = method(channel, arity)(Requests(), timeout=10)
        found = list(result) if arity in STREAMS else [result]

    assert [("bread", True, False)] == seen
    assert RESPONSES[arity] == found
    expect(way, recorder, "OK")


# Details stay what they were


class OwnDetails(grpc.ClientCallDetails):
    """Another library's call details: a method, some metadata, and one more attribute."""

    def __init__(self, method: str, **fields: Any) -> None:
        self.__dict__.update(fields, method=method)


class LockedDetails(OwnDetails):
    """Such that do not let themselves be changed."""

    @property
    def metadata(self) -> Any:  # type: ignore[override]  # as it may be
        """What cannot be replaced."""
        return [("own", "yes")]


@pytest.mark.parametrize("arity", ARITIES)
@pytest.mark.parametrize(
    ("kind", "fields", "metadata"),
    [
        (OwnDetails, {}, None),
        (OwnDetails, {"own": 1, "metadata": None}, ["traceparent"]),
        (OwnDetails, {"metadata": [("own", "yes")]}, ["own", "traceparent"]),
        (LockedDetails, {}, ["own"]),
    ],
    ids=["method alone", "no metadata", "metadata", "locked"],
)
def test_details_of_another_library(arity: str, kind: Any, fields: dict[str, Any], metadata: list[str] | None) -> None:
    """Another library's call details, passed to our interceptor directly, are handed on as what they are."""
    recorder, seen = Recorder(), []
    given = kind("/a/B", **fields)
    interceptor = ClientInterceptor(*recorder.observers)
    intercept: dict[str, Any] = {
        "unary": interceptor.intercept_unary_unary,
        "client_stream": interceptor.intercept_stream_unary,
        "server_stream": interceptor.intercept_unary_stream,
        "bidi_stream": interceptor.intercept_stream_stream,
    }

    def go_on(details: Any, _request: Any) -> Any:
        seen.append(details)
        return [b"a"] if arity in STREAMS else Default(None)

    intercept[arity](go_on, given, requests(arity))
    (details,) = seen
    changed = getattr(details, "metadata", None)

    assert (kind, fields.get("own")) == (type(details), getattr(details, "own", None))
    assert metadata == (None if changed is None else [key for key, _ in changed])
    assert ["OK"] == recorder.codes
