"""Handlers that hold no thread: grpc's non-blocking attributes pass through our interceptors."""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from observability import HideExceptions, ServerInterceptor
from tests.support.recorder import Recorder
from tests.support.rpc import LOCAL, method, service

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
WATCHERS = 8
ORDERS = pytest.mark.parametrize("order", ["ours", "hiding", "hiding, ours", "ours, hiding"])


def interceptors(order: str, recorder: Recorder) -> list[grpc.ServerInterceptor]:
    """Return these interceptors in this order."""
    made = {"ours": ServerInterceptor(*recorder.observers), "hiding": HideExceptions()}
    return [made[name] for name in order.split(", ")]


class Watchers:
    """Callers who watch the health, and the statuses that they have got."""

    def __init__(self, channel: grpc.Channel, count: int) -> None:
        self._changed = threading.Condition()
        self.states: list[int] = []
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        self.streams: list[Any] = [watch(health_pb2.HealthCheckRequest(), timeout=30) for _ in range(count)]
        for stream in self.streams:
            threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: Any) -> None:
        try:
            for response in stream:
                with self._changed:
                    self.states.append(response.status)
                    self._changed.notify_all()
        except grpc.RpcError:
            return

    def wait_for(self, status: int, count: int) -> int:
        """Wait until this many have got a status; return how many have."""
        with self._changed:
            self._changed.wait_for(lambda: self.states.count(status) >= count, 10)
            return self.states.count(status)

    def leave(self) -> None:
        """Stop watching."""
        for stream in self.streams:
            stream.cancel()


@ORDERS
def test_watchers_hold_no_thread(order: str) -> None:
    """With more open Health.Watch streams than pool threads, calls are served, and watchers get changes."""
    recorder = Recorder()
    servicer = health.HealthServicer(
        experimental_non_blocking=True, experimental_thread_pool=ThreadPoolExecutor(1, "health")
    )
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, [service(unary=lambda request, _context: request)], interceptors(order, recorder))
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        address = f"127.0.0.1:{server.add_insecure_port(LOCAL)}"
        server.start()
        with grpc.insecure_channel(address) as channel:
            watchers = Watchers(channel, WATCHERS)
            serving = watchers.wait_for(SERVING, WATCHERS)
            answers = [method(channel, "unary")(b"a", timeout=10) for _ in range(4)]
            servicer.set("", NOT_SERVING)
            changed = watchers.wait_for(NOT_SERVING, WATCHERS)
            watchers.leave()
        if "ours" in order:
            recorder.wait_for(WATCHERS + 4)
        server.stop(None).wait()

    assert (WATCHERS, WATCHERS) == (serving, changed)
    assert [b"a"] * 4 == answers
    if "ours" in order:
        assert {"CANCELLED": WATCHERS, "OK": 4} == {code: recorder.codes.count(code) for code in set(recorder.codes)}
        assert 2 * WATCHERS == sum(call.sent for call in recorder.calls if call.method == "Watch")


def send_and_end(_request: bytes, _context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
    """Answer twice and end."""
    for response in (b"a", b"b", None):
        send(response)


def crash(_request: bytes, _context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
    """Answer once and raise."""
    send(b"a")
    raise ValueError("no bread")


@pytest.mark.expects_errors("ValueError: no bread")
@ORDERS
@pytest.mark.parametrize(("behavior", "code"), [(send_and_end, "OK"), (crash, "UNKNOWN")])
def test_handler_with_three_arguments(order: str, behavior: Any, code: str) -> None:
    """A non-blocking handler gets its function to send with, and its end is reported as it was."""
    recorder = Recorder()
    server = grpc.server(
        ThreadPoolExecutor(1), [service(server_stream=non_blocking(behavior))], interceptors(order, recorder)
    )
    address = f"127.0.0.1:{server.add_insecure_port(LOCAL)}"
    server.start()
    with grpc.insecure_channel(address) as channel:
        stream = method(channel, "server_stream")(b"", timeout=10)
        responses = list(itertools.islice(stream, 1 if code == "UNKNOWN" else 2))
        found = stream.code().name
    if "ours" in order:
        recorder.wait_for()
    server.stop(None).wait()

    assert ([b"a"] if code == "UNKNOWN" else [b"a", b"b"]) == responses
    assert code == found
    assert recorder.codes == ([code] if "ours" in order else [])


def non_blocking(behavior: Any) -> Any:
    """Return a behaviour that grpc is to run as one that does not block."""

    def wrapped(*arguments: Any) -> Any:
        return behavior(*arguments)

    wrapped.experimental_non_blocking = True  # type: ignore[attr-defined]  # grpc's way to ask for it
    return wrapped


@ORDERS
def test_own_thread_pool(order: str) -> None:
    """A handler that asks for its own thread pool runs there."""
    recorder = Recorder()
    with ThreadPoolExecutor(1, "own") as own:

        def behavior(_request: bytes, _context: grpc.ServicerContext) -> bytes:
            return threading.current_thread().name.encode()

        behavior.experimental_thread_pool = own  # type: ignore[attr-defined]  # grpc's way to ask for it
        server = grpc.server(ThreadPoolExecutor(1, "shared"), [service(unary=behavior)], interceptors(order, recorder))
        address = f"127.0.0.1:{server.add_insecure_port(LOCAL)}"
        server.start()
        with grpc.insecure_channel(address) as channel:
            name = method(channel, "unary")(b"", timeout=10)
        server.stop(None).wait()

    assert b"own_0" == name
