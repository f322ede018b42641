"""Serving until a signal, on both stacks: health, drain, grace, exit status."""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2
from hyperframe.frame import PingFrame, SettingsFrame

from client.lines import fields
from client.processes import ROOT, environment
from observability import ListenError
from observability.address import check_address, is_reachable
from tests.support.h2 import dial
from tests.support.outputs import outputs
from tests.support.process import NOWHERE, sending
from tests.support.python import Popen
from tests.support.receiver import Receiver
from tests.support.rpc import LOCAL, method

EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is warned of
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
REQUEST = health_pb2.HealthCheckRequest
MESSAGES: Any = {
    "request_serializer": REQUEST.SerializeToString,
    "response_deserializer": health_pb2.HealthCheckResponse.FromString,
}
STACKS = pytest.mark.parametrize("stack", ["sync", "aio"])
SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


class Served:
    """The program `served`, from `with` to its end."""

    def __init__(
        self,
        stack: str,
        address: str = LOCAL,
        *,
        variables: dict[str, str] | None = None,
        before: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self._process = Popen(
            [*before, sys.executable, "-m", "tests.support.programs.served", stack, address, json.dumps(options)],
            cwd=ROOT,
            env=environment(**{"GRPC_VERBOSITY": "NONE", "OTEL_TRACES_EXPORTER": "none", **(variables or {})}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.stdout, self.stderr = outputs(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self.stdout.wait_for_end()
        self.stderr.wait_for_end()

    @property
    def address(self) -> str:
        """Where it listens, once it does."""
        return fields(self.stdout.wait_for(" event=listening ")[0])["address"]

    @contextlib.contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """Open a channel to it."""
        with grpc.insecure_channel(self.address) as channel:
            yield channel

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; return its exit status."""
        return self._process.wait(20)


class Health:
    """The states that a health service sends to a watcher, as they come."""

    def __init__(self, channel: grpc.Channel, service: str = "") -> None:
        self._states: queue.Queue[int | None] = queue.Queue()
        self._channel = channel
        self._service = service
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            for response in self._channel.unary_stream("/grpc.health.v1.Health/Watch", **MESSAGES)(
                REQUEST(service=self._service)
            ):
                self._states.put(response.status)
        self._states.put(None)

    def next(self) -> int | None:
        """Wait for the next state; None is the stream's end."""
        return self._states.get(timeout=10)


def check(channel: grpc.Channel, service: str = "") -> int:
    """Ask for the health of a service."""
    callable_ = channel.unary_unary("/grpc.health.v1.Health/Check", **MESSAGES)
    return int(callable_(REQUEST(service=service), timeout=10).status)


@STACKS
@SIGNALS
def test_idle_server_ends_at_once(stack: str, number: int) -> None:
    """A signal ends an idle server with status 0, in far less than the grace, whatever the collector's state."""
    with Served(stack, variables=sending(NOWHERE, timeout=30), grace=30) as served:
        with served.channel() as channel:
            assert b"0" == method(channel, "unary")(b"0", timeout=10)
        start = time.monotonic()
        served.signal(number)
        status = served.wait()
        seconds = time.monotonic() - start
        lines = [fields(line).get("event") for line in served.stdout.wait_for_end()]

    assert 0 == status
    assert seconds < 3
    assert ["listening", None, "spans are given up at the end"] == lines[:3]
    assert "stopped" == lines[-1]


@STACKS
def test_health_while_serving(stack: str) -> None:
    """The server itself, and each of the telemetry's services, is SERVING."""
    with Served(stack) as served, served.channel() as channel:
        states = [check(channel), check(channel, "echo.v1.EchoService")]

    assert [SERVING, SERVING] == states


@STACKS
def test_health_while_draining(stack: str) -> None:
    """After the signal the health is NOT_SERVING, and for the drain delay new calls are still served."""
    with Served(stack, drain_delay=0.5) as served, served.channel() as channel:
        health = Health(channel)
        before = health.next()
        served.signal(signal.SIGTERM)
        after = health.next()
        answer = method(channel, "unary")(b"0", timeout=10)
        status = served.wait()

    assert [SERVING, NOT_SERVING] == [before, after]
    assert b"0" == answer
    assert 0 == status


def listed(channel: grpc.Channel) -> dict[str, int]:
    """Ask for the health of all services."""
    parse = cast("Any", health_pb2).HealthListResponse.FromString
    answer = method(channel, "unary", "/grpc.health.v1.Health/List")(b"", timeout=10)
    return {name: status.status for name, status in parse(answer).statuses.items()}


@STACKS
def test_liveness_and_readiness(stack: str) -> None:
    """Both are SERVING at first; while the server drains, readiness follows it, and liveness does not."""
    names = ("", "readiness", "liveness", "echo.v1.EchoService")
    with Served(stack, drain_delay=30) as served, served.channel() as channel:
        health = {name: Health(channel, name) for name in names}
        before = [health[name].next() for name in names]
        served.signal(signal.SIGTERM)
        after = [health[name].next() for name in names if name != "liveness"]
        checked = [check(channel, name) for name in names]
        served.signal(signal.SIGTERM)
        served.wait()
        last = health["liveness"].next()

    assert [SERVING] * 4 == before
    assert [NOT_SERVING] * 3 == after
    assert [NOT_SERVING, NOT_SERVING, SERVING, NOT_SERVING] == checked
    assert last is None  # its watcher has seen no other state


@pytest.mark.skipif(
    not hasattr(health_pb2, "HealthListResponse"), reason="this version of grpcio-health-checking does not know List"
)
@STACKS
def test_list_of_health(stack: str) -> None:
    """List gives the health of everything that Check knows, and changes with it."""
    with Served(stack, drain_delay=30) as served, served.channel() as channel:
        before = listed(channel)
        health = Health(channel)
        health.next()
        served.signal(signal.SIGTERM)
        health.next()
        # List is no snapshot: the others may follow the one that is watched.
        deadline = time.monotonic() + 10
        while (after := listed(channel))["echo.v1.EchoService"] == SERVING and time.monotonic() < deadline:
            time.sleep(0.01)
        served.signal(signal.SIGTERM)

    assert dict.fromkeys(("", "readiness", "liveness", "echo.v1.EchoService"), SERVING) == before
    assert {**dict.fromkeys(before, NOT_SERVING), "liveness": SERVING} == after


@STACKS
def test_health_of_what_is_not_known(stack: str) -> None:
    """A name that is not served is NOT_FOUND."""
    with Served(stack) as served, served.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        check(channel, "alive")

    assert grpc.StatusCode.NOT_FOUND is cast("Any", caught.value).code()


@STACKS
def test_health_beside_calls_that_hold_all_threads(stack: str) -> None:
    """While calls hold every thread of the server's pool, the health service answers, and sends changes."""
    with Served(stack, grace=0.2, drain_delay=0.5) as served, served.channel() as channel:
        held = [method(channel, "unary").future(b"30") for _ in range(8)]
        health = Health(channel)
        checked = check(channel)
        states = [health.next()]
        served.signal(signal.SIGTERM)
        states.append(health.next())
        served.wait()

    assert SERVING == checked
    assert [SERVING, NOT_SERVING] == states
    assert [False] * 8 == [call.code() is grpc.StatusCode.OK for call in held]


@STACKS
def test_health_beside_checks_that_are_held(stack: str) -> None:
    """Health calls whose request never comes, and watchers that read nothing, keep no other from its answer."""
    unread = {SettingsFrame.INITIAL_WINDOW_SIZE: 0}
    with (
        Served(stack, drain_delay=0.5, grace=0.2) as served,
        dial(served.address) as bodiless,
        dial(served.address, unread) as reads_nothing,
        served.channel() as channel,
    ):
        for name in ("Check", "Watch", "List") * 10:
            bodiless.call(f"/grpc.health.v1.Health/{name}", message=None, end=False)
            reads_nothing.call(f"/grpc.health.v1.Health/{name}")
        for wire in (bodiless, reads_nothing):
            wire.send(PingFrame(0, b"all sent"))
            wire.wait_for(lambda wire=wire: wire.pongs > 0)  # type: ignore[misc]  # what it is bound to is known
        checked = check(channel)
        health = Health(channel)
        states = [health.next()]
        served.signal(signal.SIGTERM)
        states.append(health.next())
        status = served.wait()

    assert SERVING == checked
    assert [SERVING, NOT_SERVING] == states
    assert 0 == status


@STACKS
def test_open_watch_does_not_hold_the_end(stack: str) -> None:
    """A watcher of the health does not keep the server for the grace; its stream ends."""
    with Served(stack, grace=15) as served, served.channel() as channel:
        health = Health(channel)
        health.next()
        start = time.monotonic()
        served.signal(signal.SIGTERM)
        status = served.wait()
        seconds = time.monotonic() - start
        states = [health.next(), health.next()]

    assert 0 == status
    assert seconds < 5
    assert [NOT_SERVING, None] == states


@STACKS
@SIGNALS
def test_call_that_goes_on_is_answered(stack: str, number: int) -> None:
    """A call that goes on when the signal comes is answered within the grace, and its line and span are there."""
    with Receiver() as receiver, Served(stack, variables=sending(receiver.endpoint), grace=10) as served:
        with served.channel() as channel:
            future = method(channel, "unary").future(b"0.3", timeout=10)
            wait_until_served(channel)
            served.signal(number)
            answer = future.result()
        status = served.wait()
        spans = [span.code for span in receiver.spans()]
        lines = served.stdout.wait_for_end()

    assert (b"0.3", 0) == (answer, status)
    assert "OK" in spans
    assert [] != [line for line in lines if "code=OK" in line]


def wait_until_served(channel: grpc.Channel) -> None:
    """Return when the calls made before on this channel have reached the server."""
    check(channel)


@STACKS
@SIGNALS
def test_call_that_goes_on_too_long_is_cut_off(stack: str, number: int) -> None:
    """A call that outlasts the grace is cut off then, and the server ends with status 0 soon after."""
    with Served(stack, grace=0.2) as served, served.channel() as channel:
        future = method(channel, "unary").future(b"5", timeout=10)
        wait_until_served(channel)
        start = time.monotonic()
        served.signal(number)
        code = future.code()
        status = served.wait()
        seconds = time.monotonic() - start

    assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert 0 == status
    assert seconds < 3


@STACKS
@SIGNALS
def test_second_signal_ends_at_once(stack: str, number: signal.Signals) -> None:
    """A second signal ends the process at once, whatever goes on."""
    with Served(stack, drain_delay=15) as served, served.channel() as channel:
        health = Health(channel)
        health.next()
        served.signal(number)
        health.next()
        start = time.monotonic()
        served.signal(number)
        status = served.wait()
        seconds = time.monotonic() - start

    assert -number == status
    assert seconds < 2


@STACKS
@SIGNALS
def test_second_signal_ends_pid_1_at_once(stack: str, number: signal.Signals, pid_1: list[str]) -> None:
    """A second signal ends a process that is PID 1, too, whose signals the kernel drops unless there is a handler."""
    with Served(stack, before=pid_1, drain_delay=60) as served, served.channel() as channel:
        health = Health(channel)
        health.next()
        (program,) = psutil.Process(served.pid).children()
        program.send_signal(number)
        health.next()
        program.send_signal(number)
        status = served.wait()
        lines = [fields(line).get("event") for line in served.stdout.wait_for_end()]

    assert 128 + number == status
    assert "stopped" not in lines  # it did not wait for the delay


@STACKS
def test_used_port(stack: str) -> None:
    """A port that is taken is a ListenError of one line, though grpc would share it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with Served(stack, address) as served:
            status = served.wait()
            errors = served.stderr.wait_for_end()

    assert [f"cannot listen on {address}: address already in use"] == errors
    assert 1 == status


@STACKS
def test_shared_port(stack: str) -> None:
    """With reuse_port two servers listen at one port, and each answers when the other is gone."""
    with Served("sync", reuse_port=True) as first:
        address = first.address
        with Served(stack, address, reuse_port=True) as second:
            addresses = [first.address, second.address]
            first.signal(signal.SIGTERM)
            first.wait()
            answer = called_anew(address)
            with Served("sync", address, reuse_port=True) as third:
                addresses.append(third.address)
                second.signal(signal.SIGTERM)
                second.wait()
                answers = [answer, called_anew(address)]

    assert [address] * 3 == addresses
    assert [b"0"] * 2 == answers


def called_anew(address: str) -> bytes:
    """Make a call over a connection of its own; return its answer."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        return bytes(method(channel, "unary")(b"0", timeout=10))


@STACKS
def test_port_that_another_does_not_share(stack: str) -> None:
    """With reuse_port a port is taken as ever, if who listens there does not share it; and so is one that is shared."""
    with socket.create_server(("127.0.0.1", 0)) as taken, Served("sync", reuse_port=True) as sharing:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with Served(stack, address, reuse_port=True) as served, Served(stack, sharing.address) as alone:
            statuses = [served.wait(), alone.wait()]
            errors = [*served.stderr.wait_for_end(), *alone.stderr.wait_for_end()]

    assert [1, 1] == statuses
    assert [f"cannot listen on {used}: address already in use" for used in (address, sharing.address)] == errors


@STACKS
def test_port_used_at_one_of_several_addresses(stack: str) -> None:
    """A port that is taken at one of several addresses is a ListenError: grpc would be content with the others."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f":{taken.getsockname()[1]}"  # every address, of both families
        with Served(stack, address) as served:
            status = served.wait()
            errors = served.stderr.wait_for_end()

    assert [f"cannot listen on {address}: address already in use"] == errors
    assert 1 == status


@STACKS
@pytest.mark.parametrize("address", ["no.such.host.invalid:0", "127.0.0.1:99999", "unix:/no/such/folder/socket"])
def test_unusable_address(stack: str, address: str) -> None:
    """An address that cannot be listened on for any other reason is a ListenError of one line too."""
    with Served(stack, address) as served:
        status = served.wait()
        errors = served.stderr.wait_for_end()

    assert 1 == status
    assert 1 == len([line for line in errors if line.startswith(f"cannot listen on {address}: ")])


@STACKS
def test_health_service_of_the_application(stack: str) -> None:
    """A health service that the application has added is the one that is set NOT_SERVING."""
    with Served(stack, own_health=True, drain_delay=0.2, grace=0.2) as served, served.channel() as channel:
        state = check(channel, "mine")
        health = Health(channel)
        before = health.next()
        served.signal(signal.SIGTERM)
        after = health.next()
        status = served.wait()

    assert [NOT_SERVING, SERVING, NOT_SERVING, 0] == [state, before, after, status]


@STACKS
def test_credentials(stack: str) -> None:
    """With credentials the server takes no call without them."""
    with Served(stack, secure=True) as served:
        with grpc.secure_channel(served.address, grpc.local_channel_credentials()) as channel:
            answer = method(channel, "unary")(b"0", timeout=10)
        served.signal(signal.SIGTERM)
        status = served.wait()

    assert (b"0", 0) == (answer, status)


@STACKS
@pytest.mark.parametrize(("host", "options"), [(EVERYWHERE, {}), ("127.0.0.1", {}), ("[::]", {"secure": True})])
def test_address_beyond_loopback_without_tls(stack: str, host: str, options: dict[str, Any]) -> None:
    """Calls without TLS at an address beyond loopback are one warning, which names the address."""
    with Served(stack, f"{host}:0", **options) as served:
        address = served.address
        warnings = [fields(line) for line in served.stdout.lines("level=warning", "without TLS")]

    assert [address] * (host == EVERYWHERE) == [line["address"] for line in warnings]


@pytest.mark.parametrize(
    ("address", "expected"),
    {
        "127.0.0.1:1": False,
        "127.1.2.3:1": False,
        "localhost:1": False,
        "[::1]:1": False,
        "unix:/tmp/socket": False,
        "unix-abstract:socket:1": False,
        "0.0.0.0:1": True,
        "[::]:1": True,
        ":1": True,
        "192.0.2.1:1": True,
    }.items(),
)
def test_who_may_reach_an_address(address: str, expected: bool) -> None:  # noqa: FBT001 - it is what is expected
    """Others than this machine may reach what is neither loopback nor a Unix socket."""
    assert expected is is_reachable(address)


@STACKS
def test_unix_socket(stack: str, tmp_path: Path) -> None:
    """An address may be a Unix socket's."""
    address = f"unix:{tmp_path}/socket"
    with Served(stack, address) as served:
        served.stdout.wait_for(" event=listening ")
        with grpc.insecure_channel(address) as channel:
            answer = method(channel, "unary")(b"0", timeout=10)
        served.signal(signal.SIGTERM)
        status = served.wait()

    assert (b"0", 0) == (answer, status)


@pytest.mark.parametrize("pattern", ["unix:{}/socket", "unix:{}/8080", "unix:{}:8080", "unix-abstract:{}:8080"])
def test_name_of_a_unix_socket(pattern: str, tmp_path: Path) -> None:
    """The log names the Unix socket that the server listens on, also where it looks like a port."""
    address = pattern.format(os.path.relpath(tmp_path, ROOT))
    with Served("sync", address) as served:
        assert address == served.address
        target = address if "abstract" in pattern else pattern.format(tmp_path)  # whatever folder we are in
        with grpc.insecure_channel(target) as channel:
            assert b"0" == method(channel, "unary")(b"0", timeout=10)


UNIX_SOCKETS = pytest.mark.parametrize(
    "pattern", ["unix:{}", "unix://{}", "unix:{}%20", "unix-abstract:{}"], ids=["path", "url", "encoded", "abstract"]
)


@STACKS
@UNIX_SOCKETS
def test_unix_socket_that_is_served(stack: str, pattern: str, tmp_path: Path) -> None:
    """A Unix socket that is served is not taken over: the second server says so, and the first serves on."""
    address = pattern.format(tmp_path / "socket")
    with Served("sync", address) as first:
        _ = first.address
        before = list(tmp_path.iterdir())
        with Served(stack, address) as second:
            status = second.wait()
            errors = second.stderr.wait_for_end()
        with grpc.insecure_channel(address) as channel:
            answer = method(channel, "unary")(b"0", timeout=10)
        after = list(tmp_path.iterdir())

    assert ([f"cannot listen on {address}: address already in use"], 1) == (errors, status)
    assert b"0" == answer
    assert before == after


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["busy", "datagrams"])
def test_unix_socket_of_another_program(kind: int, tmp_path: Path) -> None:
    """A socket of another program is not taken over either, even of one that accepts nothing any more."""
    address = f"unix:{tmp_path}/socket"
    with socket.socket(socket.AF_UNIX, kind) as taken, contextlib.ExitStack() as ends:
        taken.bind(f"{tmp_path}/socket")
        if kind == socket.SOCK_STREAM:
            taken.listen(0)
            with contextlib.suppress(BlockingIOError):
                while True:
                    waiting = ends.enter_context(socket.socket(socket.AF_UNIX))
                    waiting.settimeout(0)
                    waiting.connect(f"{tmp_path}/socket")
        with pytest.raises(ListenError) as caught:
            check_address(address)

    assert f"cannot listen on {address}: address already in use" == str(caught.value)


@STACKS
def test_unix_socket_that_was_left_behind(stack: str, tmp_path: Path) -> None:
    """A socket that nobody serves any more is taken over."""
    address = f"unix:{tmp_path}/socket"
    with Served("sync", address) as killed:
        _ = killed.address
        killed.signal(signal.SIGKILL)
        killed.wait()
    left = (tmp_path / "socket").is_socket()
    with Served(stack, address) as served:
        _ = served.address
        with grpc.insecure_channel(address) as channel:
            answer = method(channel, "unary")(b"0", timeout=10)
        served.signal(signal.SIGTERM)
        status = served.wait()

    assert (True, b"0", 0) == (left, answer, status)


@STACKS
def test_ipv6(stack: str) -> None:
    """An IPv6 address has brackets, in the log too; without them the one line says so."""
    with Served(stack, "[::1]:0") as served:
        address = served.address
        with served.channel() as channel:
            answer = method(channel, "unary")(b"0", timeout=10)
    with Served(stack, "::1:8080") as served:
        status = served.wait()
        errors = served.stderr.wait_for_end()

    assert address.startswith("[::1]:")
    assert b"0" == answer
    expected = "cannot listen on ::1:8080: an IPv6 address has brackets, as in [::1]:8080"
    assert ([expected], 1) == (errors, status)
