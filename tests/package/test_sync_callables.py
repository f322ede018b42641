"""Callables and channels of sync gRPC take the arguments and have the attributes that they have without us."""

import inspect
from typing import Any, Final

import grpc
import grpc_testing  # type: ignore[import-untyped]  # it has no types
import pytest
from google.api_core import grpc_helpers as grpc_helpers_

from observability.client.channel import ObservedChannel
from protos import echo_pb2
from protos.echo_pb2_grpc import EchoServiceStub
from tests.support.recorder import Recorder
from tests.support.rpc import ARITIES, STREAMS, method, requests
from tests.support.without_us import REQUEST_STREAMS, WAYS, end, expect, ways

grpc_helpers: Any = grpc_helpers_  # its functions have no types
KINDS: Final = {
    "unary": grpc.UnaryUnaryMultiCallable,
    "client_stream": grpc.StreamUnaryMultiCallable,
    "server_stream": grpc.UnaryStreamMultiCallable,
    "bidi_stream": grpc.StreamStreamMultiCallable,
}
CALLS: Final = [
    (arity, name)
    for arity in ARITIES
    for name in (("__call__",) if arity in STREAMS else ("__call__", "with_call", "future"))
]
every_call: Final = pytest.mark.parametrize(("arity", "name"), CALLS)


@ways
@pytest.mark.parametrize("arity", ARITIES)
def test_kind_of_a_callable(way: str, arity: str) -> None:
    """A callable is of the one class of its arity, and of no other."""
    with grpc.insecure_channel("localhost:1") as plain:
        callable_ = method(WAYS[way](Recorder(), plain), arity)

    assert [arity] == [name for name, kind in KINDS.items() if isinstance(callable_, kind)]


@ways
@every_call
def test_signature_of_a_callable(way: str, arity: str, name: str) -> None:
    """A callable takes what grpc's own does, by the same names, in the same order and with the same defaults."""
    with grpc.insecure_channel("localhost:1") as plain:
        signatures = [
            [
                (parameter.name, parameter.default, parameter.kind)
                for parameter in inspect.signature(getattr(method(channel, arity), name)).parameters.values()
            ]
            for channel in (plain, WAYS[way](Recorder(), plain))
        ]

    assert signatures[0] == signatures[1]


@ways
@every_call
@pytest.mark.parametrize("wrong", ["nothing", "other name", "unknown name", "too many"])
def test_wrong_arguments(way: str, arity: str, name: str, wrong: str) -> None:
    """Wrong arguments raise grpc's own TypeError, at once, and no call is reported."""
    recorder, found = Recorder(), []
    many = arity in REQUEST_STREAMS
    arguments: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
        "nothing": ((), {}),
        "other name": ((), {"request" if many else "request_iterator": requests(arity)}),
        "unknown name": ((requests(arity),), {"no": "bread"}),
        "too many": ((requests(arity), *[None] * 6), {}),
    }
    given, named = arguments[wrong]
    with grpc.insecure_channel("localhost:1") as plain:
        for channel in (plain, WAYS[way](recorder, plain)):
            with pytest.raises(TypeError) as raised:
                getattr(method(channel, arity), name)(*given, **named)
            found.append(str(raised.value).replace("_SingleThreadedUnary", "_Unary"))

    assert found[0] == found[1]
    assert [] == recorder.calls


@ways
@every_call
@pytest.mark.parametrize("options", [{"metadata": 5}, {"metadata": (("k", 5),)}, {"timeout": "soon"}], ids=str)
def test_unusable_options(way: str, arity: str, name: str, options: dict[str, Any]) -> None:
    """What grpc cannot make a call with raises grpc's own error at once, and is reported as UNKNOWN with it."""
    recorder, found = Recorder(), []

    def call(channel: grpc.Channel) -> None:
        made = getattr(method(channel, arity), name)(requests(arity), **options)
        _ = list(made) if arity in STREAMS else made.result()  # grpc's pipeline raises from what it returns

    with grpc.insecure_channel("localhost:1") as plain:
        for channel in (plain, WAYS[way](recorder, plain)):
            with pytest.raises((TypeError, ValueError)) as raised:
                call(channel)
            found.append((type(raised.value), str(raised.value)))

    assert found[0] == found[1]
    expect(way, recorder, "UNKNOWN")
    assert way == "bare" or [found[0][1]] == [str(outcome.error) for outcome in recorder.outcomes]


ECHO: Final = echo_pb2.DESCRIPTOR.services_by_name["EchoService"]


@pytest.mark.parametrize("way", ["bare", "channel"])
def test_google_channel_stub(way: str) -> None:
    """google-api-core's fake channel, whose callables know fewer options than grpc's, works in our channel."""
    recorder, fake = Recorder(), grpc_helpers.ChannelStub()
    stub = EchoServiceStub(WAYS[way](recorder, fake))
    request, response = echo_pb2.EchoRequest(msg="a"), echo_pb2.EchoResponse(echo="a")
    fake.Echo.response = response
    fake.EchoRepeat.response = iter([response] * 2)
    found = [stub.Echo(request), *stub.EchoRepeat(echo_pb2.EchoRepeatRequest(), timeout=5)]

    assert [response] * 3 == found
    assert [request] == fake.Echo.requests
    assert [(None, 5)] == [(call.credentials, call.timeout) for call in fake.EchoRepeat.calls]
    expect(way, recorder, "OK", "OK")


@pytest.mark.parametrize("way", ["bare", "channel"])
@pytest.mark.parametrize("name", ["Echo", "EchoRepeat", "EchoJoin", "EchoChat"])
@pytest.mark.parametrize("code", [grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND], ids=str)
def test_grpc_testing_channel(way: str, name: str, code: grpc.StatusCode) -> None:
    """grpc-testing's channel, whose streams and futures are less than grpc's, works in our channel too."""
    recorder = Recorder()
    fake = grpc_testing.channel([ECHO], grpc_testing.strict_real_time())
    descriptor = ECHO.methods_by_name[name]
    kind = (
        f"{'stream' if descriptor.client_streaming else 'unary'}_{'stream' if descriptor.server_streaming else 'unary'}"
    )
    callable_: Any = getattr(EchoServiceStub(WAYS[way](recorder, fake)), name)
    message: Any = {"EchoRepeat": echo_pb2.EchoRepeatRequest()}.get(name, echo_pb2.EchoRequest(msg="a"))
    asked = iter([message]) if descriptor.client_streaming else message
    response = echo_pb2.EchoResponse(echo="a")
    call = (callable_ if descriptor.server_streaming else callable_.future)(asked)
    taken = getattr(fake, f"take_{kind}")(descriptor)
    rpc = taken[-1]
    if descriptor.client_streaming:
        rpc.take_request()
        rpc.requests_closed()
    if descriptor.server_streaming:
        rpc.send_initial_metadata(())
        rpc.send_response(response)
        found = [next(call)]
        rpc.terminate((), code, "as asked")
        ended = next(call, "end") if code is grpc.StatusCode.OK else end(call, "server_stream").code()
        assert ended in ("end", code)
    else:
        rpc.send_initial_metadata(())
        rpc.terminate(response, (), code, "as asked")
        found = [call.result()] if code is grpc.StatusCode.OK else [response]
        assert call.code() is code
    assert [response] == found
    expect(way, recorder, code.name)


def test_what_a_channel_and_a_callable_have_more() -> None:
    """Attributes that a channel, or a callable of it, has besides grpc's are found on ours."""
    with grpc.insecure_channel("localhost:1") as plain:
        channel: Any = ObservedChannel(plain)
        grpcs: Any = plain
        found = channel._channel is grpcs._channel, method(channel, "unary")._method, hasattr(channel, "no_bread")

    assert (True, b"/test.v1.Words/Unary", False) == found
