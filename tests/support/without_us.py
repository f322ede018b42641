"""A bare sync channel, and both of our ways to observe one."""

from collections.abc import Callable
from typing import Any, Final

import grpc
import pytest

from observability import ClientInterceptor
from observability.client.channel import ObservedChannel
from tests.support.recorder import Recorder
from tests.support.rpc import STREAMS, method, requests

SINGLE: Final = ("unary", "client_stream")
REQUEST_STREAMS: Final = ("client_stream", "bidi_stream")
Observe = Callable[[Recorder, grpc.Channel], grpc.Channel]
# Without us, and in both of our ways: what holds for one holds for all.
WAYS: Final[dict[str, Observe]] = {
    "bare": lambda _told, channel: channel,
    "interceptor": lambda recorder, channel: grpc.intercept_channel(channel, ClientInterceptor(*recorder.observers)),
    "channel": lambda recorder, channel: ObservedChannel(channel, *recorder.observers),
    "both": lambda recorder, channel: ObservedChannel(
        grpc.intercept_channel(ObservedChannel(channel), ClientInterceptor()), *recorder.observers
    ),
}
ways: Final = pytest.mark.parametrize("way", WAYS)
streams: Final = pytest.mark.parametrize("arity", STREAMS)
singles: Final = pytest.mark.parametrize("arity", SINGLE)


def expect(way: str, recorder: Recorder, *codes: str) -> None:
    """Compare what was reported with these codes, and with nothing in flight; a bare channel reports nothing."""
    if way == "bare":
        return
    recorder.wait_for(len(codes))
    assert [list(codes)] * 4 == recorder.everywhere("client")
    assert 0 == recorder.total("grpc_client_in_flight")


def start(channel: grpc.Channel, arity: str, **options: Any) -> Any:
    """Start a call in the way that returns before its end."""
    callable_ = method(channel, arity)
    return (callable_ if arity in STREAMS else callable_.future)(requests(arity), timeout=10, **options)


def end(call: Any, arity: str) -> grpc.RpcError:
    """Read a call to its end; return what that raises."""
    with pytest.raises(grpc.RpcError) as raised:
        _ = list(call) if arity in STREAMS else call.result()
    return raised.value


class Around(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Another library's interceptor, which may change requests and responses."""

    def ask(self, request: Any) -> Any:
        """Return the requests to send instead."""
        return request

    def answer(self, call: Any) -> Any:
        """Return the responses to give instead."""
        return call

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Do so."""
        return self.answer(continuation(client_call_details, self.ask(request)))

    intercept_unary_stream = intercept_unary_unary

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Do so."""
        return self.intercept_unary_unary(continuation, client_call_details, request_iterator)

    intercept_stream_stream = intercept_stream_unary
