"""What a person sees of a call: one object of JSON, an exit status, and nothing else."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing

import grpc
import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it has no stubs

from protos.echo_pb2 import EchoRequest, EchoResponse
from tests.support.h2 import Peer, Wire
from tests.support.process import Service
from tests.system.conftest import System, run_client
from tests.system.scripted import scripted_a

A_DOWN = (
    '{"service_b": "ok", "service_a": "unavailable", '
    '"error": "StatusCode.UNAVAILABLE: failed to connect to all addresses"}\n'
)
TOO_LONG = "x" * (64 * 1024 + 1)


@pytest.fixture
def nobody() -> str:
    """Give an address at which nobody listens."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """Give an address that takes connections and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("call-echo", "hello"), '{"service_b": "ok", "service_a": {"echo": "hello"}}\n'),
        (("echo", "hello"), '{"echo": "hello"}\n'),
        (("health-a",), '{"status": "ok"}\n'),
        (("health-b",), '{"status": "ok"}\n'),
        (("echo", ""), '{"echo": ""}\n'),
        (("echo", "zwölf Boxkämpfer"), '{"echo": "zwölf Boxkämpfer"}\n'),
        (("echo", "--repeat", "3", "hello"), '{"echo": "hello"}\n' * 3),
        (("echo", "--repeat", "0", "hello"), ""),
        (("echo", "--join", "one", "two", "three"), '{"echo": "one two three"}\n'),
    ],
)
def test_success(system: System, arguments: tuple[str, ...], expected: str) -> None:
    """A call that succeeds prints its answer on stdout, nothing on stderr, and exits with 0."""
    result = system.client(*arguments)

    assert (expected, "", 0) == (result.stdout, result.stderr, result.returncode)


def test_chat(system: System) -> None:
    """Each line of stdin is answered by one object, in order, and the end of the input ends the chat."""
    result = system.client("chat", stdin="one\ntwo\n\nfour")

    assert [{"service_b": "ok", "service_a": {"echo": text}} for text in ("one", "two", "", "four")] == [
        json.loads(line) for line in result.stdout.splitlines()
    ]
    assert ("", 0) == (result.stderr, result.returncode)


def test_chat_of_nothing(system: System) -> None:
    """A chat whose input is empty has no answers, and succeeds."""
    result = system.client("chat", stdin="")

    assert ("", "", 0) == (result.stdout, result.stderr, result.returncode)


def test_a_stopped(own_system: System) -> None:
    """When A is stopped, B is `ok`, A `unavailable`, and the text names no inner address."""
    own_system.a.stop()

    result = own_system.client("call-echo", "hello")

    assert (A_DOWN, "", 1) == (result.stdout, result.stderr, result.returncode)


def test_a_frozen_is_unavailable(silent: str) -> None:
    """An A that takes connections and never answers is unavailable, by B's deadline for it."""
    with Service("service-b", "--service-a", silent, "--service-a-timeout", "0.3") as service_b:
        result = run_client("call-echo", "hello", SERVICE_B_ADDRESS=service_b.address)

    error = "StatusCode.DEADLINE_EXCEEDED: Service A did not answer in time"
    assert {"service_b": "ok", "service_a": "unavailable", "error": error} == json.loads(result.stdout)


def test_a_answers_with_an_error(system: System) -> None:
    """A code of A's own says that A failed, not that it is away; its text is A's."""
    result = system.client("call-echo", TOO_LONG)

    error = "StatusCode.INVALID_ARGUMENT: msg: longer than 65536 bytes"
    assert {"service_b": "ok", "service_a": "error", "error": error} == json.loads(result.stdout)
    assert 1 == result.returncode


@pytest.mark.parametrize(
    ("arguments", "service"),
    [
        (("call-echo", "hello"), "service_b"),
        (("chat",), "service_b"),
        (("health-b",), "service_b"),
        (("echo", "hello"), "service_a"),
        (("echo", "--repeat", "2", "hello"), "service_a"),
        (("echo", "--join", "hello"), "service_a"),
        (("health-a",), "service_a"),
    ],
)
def test_nobody_answers(nobody: str, arguments: tuple[str, ...], service: str) -> None:
    """The service that is called is unavailable when nobody listens, and the text ends before grpc's last error."""
    result = run_client(*arguments, stdin="hello\n", SERVICE_A_ADDRESS=nobody, SERVICE_B_ADDRESS=nobody)

    expected = (
        f'{{"{service}": "unavailable", "error": "StatusCode.UNAVAILABLE: failed to connect to all addresses"}}\n'
    )
    assert (expected, "", 1) == (result.stdout, result.stderr, result.returncode)


@pytest.mark.parametrize(
    ("arguments", "service"),
    [
        (("call-echo", "hello"), "service_b"),
        (("health-b",), "service_b"),
        (("echo", "hello"), "service_a"),
        (("health-a",), "service_a"),
    ],
)
def test_silence(silent: str, arguments: tuple[str, ...], service: str) -> None:
    """A service that is silent until --timeout is unavailable."""
    result = run_client(*arguments, "--timeout", "0.3", SERVICE_A_ADDRESS=silent, SERVICE_B_ADDRESS=silent)

    answer = json.loads(result.stdout)
    assert ("unavailable", 1) == (answer[service], result.returncode)
    assert answer["error"].startswith("StatusCode.DEADLINE_EXCEEDED: ")


@pytest.mark.parametrize(
    ("arguments", "service"),
    [
        (("call-echo", "hello"), "service_b"),
        (("health-b",), "service_b"),
        (("echo", "hello"), "service_a"),
        (("health-a",), "service_a"),
    ],
)
def test_another_code(system: System, arguments: tuple[str, ...], service: str) -> None:
    """A service that answers with another code has an error."""
    elsewhere = f"127.0.0.1:{system.receiver.port}"  # a gRPC server that has none of these methods

    result = system.client(*arguments, SERVICE_A_ADDRESS=elsewhere, SERVICE_B_ADDRESS=elsewhere)

    error = "StatusCode.UNIMPLEMENTED: Method not found!"
    assert ({service: "error", "error": error}, 1) == (json.loads(result.stdout), result.returncode)


@pytest.mark.parametrize(
    "details", [b"\xff" * 20, Status(code=5, message="no").SerializeToString()], ids=["garbage", "of-another-status"]
)
def test_details_that_are_none(details: bytes) -> None:
    """A status whose details cannot be parsed, or contradict it, is shown as one without."""

    def fail(_request: EchoRequest, context: grpc.ServicerContext) -> EchoResponse:
        context.set_trailing_metadata((("grpc-status-details-bin", details),))
        context.abort(grpc.StatusCode.INTERNAL, "no")

    with scripted_a(fail) as service:
        result = run_client("echo", "hello", SERVICE_A_ADDRESS=service.address)

    assert ({"service_a": "error", "error": "StatusCode.INTERNAL: no"}, "", 1) == (
        json.loads(result.stdout),
        result.stderr,
        result.returncode,
    )


@pytest.mark.parametrize(
    ("arguments", "service"),
    [
        (("call-echo", "hello"), "service_b"),
        (("health-b",), "service_b"),
        (("echo", "hello"), "service_a"),
        (("echo", "--join", "hello"), "service_a"),
        (("health-a",), "service_a"),
    ],
)
def test_ok_without_a_message(arguments: tuple[str, ...], service: str) -> None:
    """A service that answers with OK, and without the message that is the answer, has an error."""

    def answer_nothing(wire: Wire) -> None:
        wire.greet()
        while True:
            wire.answer(wire.next_call())

    with Peer(answer_nothing) as peer:
        result = run_client(*arguments, SERVICE_A_ADDRESS=peer.address, SERVICE_B_ADDRESS=peer.address)

    error = "StatusCode.INTERNAL: the answer has no message"
    assert ("", 1) == (result.stderr, result.returncode)
    assert {service: "error", "error": error} == json.loads(result.stdout)


def test_stream_ends_with_its_failure(own_system: System) -> None:
    """A stream that fails prints the answers it got, and the failure last."""
    result = own_system.client("chat", stdin=f"one\n{TOO_LONG}\nthree\n")

    first, last = [json.loads(line) for line in result.stdout.splitlines()]
    assert {"service_b": "ok", "service_a": {"echo": "one"}} == first
    assert {"service_b": "ok", "service_a": "error"} == {key: last[key] for key in ("service_b", "service_a")}
    assert 1 == result.returncode


def test_options_before_variables(system: System, nobody: str) -> None:
    """--service-b wins over SERVICE_B_ADDRESS, and --service-a over SERVICE_A_ADDRESS."""
    to_b = system.client("health-b", "--service-b", system.b.address, SERVICE_B_ADDRESS=nobody)
    to_a = system.client("health-a", "--service-a", system.a.address, SERVICE_A_ADDRESS=nobody)

    assert (0, 0) == (to_b.returncode, to_a.returncode)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "Usage: python client"),
        (("nonsense",), "No such command 'nonsense'."),
        (("echo",), "Missing argument 'MSG...'."),
        (("echo", "a", "b"), "One MSG at a time"),
        (("echo", "--join", "--repeat", "2", "a"), "--join and --repeat exclude each other."),
        (("echo", "--repeat", "-1", "a"), "'-1' is not a whole number from 0 to"),
        (("call-echo", "a", "--timeout", "soon"), "'soon' is not a number from 0.001 to"),
        (("call-echo", "a", "--timeout", "nan"), "'nan' is not a number from 0.001 to"),
        (("call-echo", "a", "--service-b", "nowhere"), "'nowhere' is not HOST:PORT"),
        (("call-echo", "a", "--service-b", "host:70000"), "'host:70000' is not HOST:PORT"),
        (("call-echo", "\udcff"), "'\\udcff' is not UTF-8 text"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], expected: str) -> None:
    """A command that is wrong says why on stderr, prints nothing on stdout, and exits with 2."""
    result = run_client(*arguments)

    assert ("", 2) == (result.stdout, result.returncode)
    assert expected in result.stderr


def test_help_names_every_command() -> None:
    """The help shows every command and exits with 0."""
    result = run_client("--help")

    assert 0 == result.returncode
    for command in ("call-echo", "echo", "chat", "health-a", "health-b", "demo", "trace", "load"):
        assert f"\n  {command} " in result.stdout
