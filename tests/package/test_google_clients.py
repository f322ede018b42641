"""Google's clients, which decide by the call's class whether to reconnect, work as they do on a bare channel."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
import pytest
from google.api_core import bidi as bidi_
from google.api_core import grpc_helpers as grpc_helpers_
from google.cloud import pubsub_v1 as pubsub_v1_  # type: ignore[import-untyped]  # it has no types
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from observability import Call, Outcome
from tests.support.recorder import Recorder
from tests.support.rpc import LOCAL, connected, method
from tests.support.without_us import WAYS, ways

bidi: Any = bidi_  # it has no types
grpc_helpers: Any = grpc_helpers_  # nor this
pubsub_v1: Any = pubsub_v1_
STREAMS: Final = 6
"""As many as its client opens without a pause: it reopens five in ten seconds."""
PATIENCE: Final = 30


def echo_until_again(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    """Answer each message; fail at `again`, as a server does that wants its caller to come back."""
    for message in messages:
        if message == b"again":
            context.abort(grpc.StatusCode.UNAVAILABLE, "come back")
        yield message


def is_unavailable(error: Any) -> bool:
    """Decide whether to come back, as Google's clients do."""
    return isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call) and error.code().name == "UNAVAILABLE"


@contextlib.contextmanager
def opened(rpc: Any) -> Iterator[Any]:
    """Open a stream of both directions, and close it."""
    rpc.open()
    try:
        yield rpc
    finally:
        rpc.close()


def codes(recorder: Recorder, count: int) -> list[str]:
    """Return the codes of this many calls when they have ended, sorted: a reader may see an end late."""
    recorder.wait_for(count)
    assert 0 == recorder.total("grpc_client_in_flight")
    return sorted(recorder.codes)


@ways
@pytest.mark.parametrize("wrapped", [False, True])
def test_bidi_rpc(way: str, wrapped: bool) -> None:  # noqa: FBT001 - a parameter
    """A BidiRpc sends and receives, and its done-callback gets the call: an error with CANCELLED here."""
    recorder, done = Recorder(), queue.Queue[Any]()
    with connected(bidi_stream=echo_until_again) as plain:
        callable_ = method(WAYS[way](recorder, plain), "bidi_stream")
        if wrapped:  # as generated clients do, for which the first message is not to be waited for
            callable_._prefetch_first_result_ = False
            callable_ = grpc_helpers.wrap_errors(callable_)
        rpc = bidi.BidiRpc(callable_, initial_request=b"a")
        rpc.add_done_callback(done.put)
        with opened(rpc):
            rpc.send(b"b")
            messages = [rpc.recv(), rpc.recv()]
            active = rpc.is_active
            call: Any = rpc.call
            call.cancel()
            ended = done.get(timeout=5)

    assert ([b"a", b"b"], True, False) == (messages, active, rpc.is_active)
    assert isinstance(ended, grpc.RpcError)
    assert ended is (call._wrapped if wrapped else call)
    assert ended.code() is grpc.StatusCode.CANCELLED
    del rpc, call, ended
    assert way == "bare" or codes(recorder, 1) == ["CANCELLED"]


@ways
@pytest.mark.parametrize("wrapped", [False, True])
def test_bidi_rpc_that_fails(way: str, wrapped: bool) -> None:  # noqa: FBT001 - a parameter
    """A BidiRpc whose server fails raises that from recv and from send."""
    recorder, done = Recorder(), queue.Queue[Any]()
    with connected(bidi_stream=echo_until_again) as plain:
        callable_ = method(WAYS[way](recorder, plain), "bidi_stream")
        if wrapped:
            callable_._prefetch_first_result_ = False
            callable_ = grpc_helpers.wrap_errors(callable_)
        rpc = bidi.BidiRpc(callable_, initial_request=b"again")
        rpc.add_done_callback(done.put)
        with opened(rpc):
            raised: list[Any] = []
            for act in (rpc.recv, lambda: rpc.send(b"b")):
                with pytest.raises(Exception, match="come back") as error:
                    act()
                raised.append(error.value)
        ended = done.get(timeout=5)

    sources = [error.response if wrapped else error for error in raised]
    assert [True, True] == [source is ended for source in sources]
    assert way == "bare" or codes(recorder, 1) == ["UNAVAILABLE"]


@ways
def test_resumable_bidi_rpc(way: str) -> None:
    """A ResumableBidiRpc comes back each time that its server wants it to."""
    recorder, done = Recorder(), queue.Queue[Any]()
    with connected(bidi_stream=echo_until_again) as plain:
        rpc = bidi.ResumableBidiRpc(
            method(WAYS[way](recorder, plain), "bidi_stream"), should_recover=is_unavailable, initial_request=b"a"
        )
        rpc.add_done_callback(done.put)
        messages = []
        with opened(rpc):
            for _ in range(STREAMS):
                messages.append(rpc.recv())
                rpc.send(b"again")
            messages.append(rpc.recv())
        ended = done.get(timeout=5)

    assert [b"a"] * (STREAMS + 1) == messages
    assert ended is None
    assert way == "bare" or codes(recorder, STREAMS + 1) == ["CANCELLED"] + ["UNAVAILABLE"] * STREAMS


@ways
def test_background_consumer(way: str) -> None:
    """A BackgroundConsumer reads on over all streams, and ends with the first error that is not to come back from."""
    recorder, messages, done = Recorder(), queue.Queue[bytes](), queue.Queue[Any]()
    left = ["UNAVAILABLE", "UNAVAILABLE", "NOT_FOUND"]

    def fail_in_turn(_messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"a"
        context.abort(grpc.StatusCode[left.pop(0)], "in turn")

    with connected(bidi_stream=fail_in_turn) as plain:
        rpc = bidi.ResumableBidiRpc(method(WAYS[way](recorder, plain), "bidi_stream"), should_recover=is_unavailable)
        rpc.add_done_callback(done.put)
        consumer = bidi.BackgroundConsumer(rpc, messages.put)
        consumer.start()
        ended = done.get(timeout=5)
        consumer.stop()
        received = [messages.get(timeout=5) for _ in range(3)]

    assert [b"a"] * 3 == received
    assert ended.code() is grpc.StatusCode.NOT_FOUND
    assert way == "bare" or codes(recorder, 3) == ["NOT_FOUND", "UNAVAILABLE", "UNAVAILABLE"]


class Subscriber(grpc.GenericRpcHandler):
    """A fake Pub/Sub: each stream brings a message, and fails so that its caller comes back; the last stays open."""

    def __init__(self) -> None:
        self.streams = 0
        self.closing = threading.Event()

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of a method of google.pubsub.v1.Subscriber."""
        if handler_call_details.method.endswith("/StreamingPull"):
            types = pubsub_v1.types
            return grpc.stream_stream_rpc_method_handler(
                self._pull, types.StreamingPullRequest.deserialize, types.StreamingPullResponse.serialize
            )
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: Empty().SerializeToString())

    def _pull(self, messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        next(messages)
        self.streams += 1
        name = str(self.streams)
        message = pubsub_v1.types.PubsubMessage(data=name.encode(), message_id=name)
        received = pubsub_v1.types.ReceivedMessage(ack_id=name, message=message)
        yield pubsub_v1.types.StreamingPullResponse(received_messages=[received])
        if self.streams < STREAMS:
            context.abort(grpc.StatusCode.UNAVAILABLE, "come back")
        context.add_callback(self.closing.set)
        self.closing.wait(PATIENCE)


@ways
def test_subscriber_client(way: str) -> None:
    """A SubscriberClient opens a new stream each time that Pub/Sub wants it to, and gets every message."""
    fake, received, ended = Subscriber(), queue.Queue[Any](), queue.Queue[str]()

    def keep(call: Call) -> Callable[[Outcome], None]:
        return lambda outcome: ended.put(outcome.code.name) if call.method == "StreamingPull" else None

    recorder = Recorder(extra=(keep,))
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, [fake])
        port = server.add_insecure_port(LOCAL)
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as plain:
            transport = SubscriberGrpcTransport(channel=WAYS[way](recorder, plain))
            client = pubsub_v1.SubscriberClient(transport=transport)

            def take(message: Any) -> None:
                message.ack()
                received.put(message.data)

            pulling = client.subscribe("projects/p/subscriptions/s", take)
            pulling.add_done_callback(received.put)
            messages = [received.get(timeout=PATIENCE) for _ in range(STREAMS)]
            pulling.cancel()
            pulling.result(PATIENCE)
        fake.closing.set()
        server.stop(None).wait()

    assert [str(number).encode() for number in range(1, STREAMS + 1)] == messages
    assert STREAMS == fake.streams
    if way != "bare":
        pulled = sorted(ended.get(timeout=PATIENCE) for _ in range(STREAMS))
        assert ["CANCELLED"] + ["UNAVAILABLE"] * (STREAMS - 1) == pulled
        assert 0 == recorder.total("grpc_client_in_flight")
