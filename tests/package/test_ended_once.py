"""
However many ends a call on grpc.server is given, grpc gets the first alone.

It would give a later one to its core, which refuses it, and then keep the call for ever, and with it one of the
connection's streams: a server that keeps a call never stops, and `serving` fails where that is so.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from observability import HideExceptions, ServerInterceptor
from tests.support.recorder import PATIENCE, Recorder
from tests.support.rpc import HANDLERS, NAMES, SERVICE, STREAMS, method, serving
from tests.support.starting import wait_until
from tests.support.without_us import REQUEST_STREAMS

HIDING = pytest.mark.parametrize("hiding", [False, True])
LATE = "a handler has raised after the end of its call"
WHERE = pytest.mark.parametrize("arity", ["client_stream", "bidi_stream"])


class Reader:
    """
    A handler that reads its second request on another thread, and meanwhile ends.

    The second is parsed when the handler is `leaving`; `left` is set when grpc has seen what came of that.
    """

    def __init__(self, end: Callable[[grpc.ServicerContext], Any]) -> None:
        self._end = end
        self.leaving = threading.Event()
        self.parsing = threading.Event()
        self.left = threading.Event()

    def once(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        """Read the first, have the second read, and end."""
        next(requests)
        threading.Thread(target=self._read, args=(requests,)).start()
        self.parsing.wait(PATIENCE)
        return self._end(context)

    def stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        """Do so in a stream, without a response: grpc's serving thread, which parses, would have to send it."""
        self.once(requests, context)
        yield from ()

    def parse(self, data: bytes) -> bytes:
        """Parse a request, on grpc's serving thread; the second is none."""
        if data == b"rubbish":
            self.parsing.set()
            self.leaving.wait(PATIENCE)
            raise ValueError("no bread")
        return data

    def serialize(self, response: bytes) -> bytes:
        """Serialise a response, by when the handler has returned."""
        self.leaving.set()
        self.left.wait(PATIENCE)
        return response

    @staticmethod
    def _read(requests: Iterator[bytes]) -> None:
        with contextlib.suppress(grpc.RpcError):
            list(requests)


class Next(grpc.ServerInterceptor):
    """Notes that the serving thread has come to another call."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Note it."""
        if handler_call_details.method == "/next":
            self._reader.left.set()
        return continuation(handler_call_details)


def status(channel: grpc.Channel, arity: str, *requests: bytes) -> tuple[str, str | None]:
    """Make a call, and wait for its end; return its code and its details."""
    make = method(channel, arity)
    request = iter(requests) if arity in REQUEST_STREAMS else requests[0]
    if arity in STREAMS:
        call = make(request, timeout=PATIENCE)
        with contextlib.suppress(grpc.RpcError):
            list(call)
    else:
        call = make.future(request, timeout=PATIENCE)
        call.exception()
    return call.code().name, call.details()


@HIDING
def test_request_that_is_refused_while_the_handler_returns(*, hiding: bool) -> None:
    """What a handler has returned stands, though before grpc has sent it, one of its requests cannot be parsed."""
    recorder, reader = Recorder(), Reader(lambda _context: b"done")
    handler = grpc.stream_unary_rpc_method_handler(reader.once, reader.parse, reader.serialize)
    with serving(
        *([HideExceptions()] if hiding else []),
        Next(reader),
        ServerInterceptor(*recorder.observers),
        handlers=[grpc.method_handlers_generic_handler(SERVICE, {NAMES["client_stream"]: handler})],
    ) as address:
        with grpc.insecure_channel(address) as channel:
            call = method(channel, "client_stream").future(iter([b"a", b"rubbish"]), timeout=PATIENCE)
            reader.leaving.wait(PATIENCE)
            other = method(channel, "unary", "/next").future(b"", timeout=PATIENCE)
            answer = call.result()
            other.exception()
        recorder.wait_for(2)

    assert b"done" == answer
    assert ["OK", "UNIMPLEMENTED"] == sorted(recorder.codes)
    assert [["OK", "UNIMPLEMENTED"]] * 4 == recorder.everywhere()


def abort(context: grpc.ServicerContext) -> None:
    """Abort the call."""
    context.abort(grpc.StatusCode.NOT_FOUND, "as asked")


@HIDING
@WHERE
@pytest.mark.parametrize("end", [abort, lambda _context: b"done"])
def test_request_that_is_refused_after_the_handler(arity: str, end: Any, *, hiding: bool) -> None:
    """So it is where grpc has sent the end already."""
    recorder = Recorder()
    contexts: list[grpc.ServicerContext] = []

    def ending(context: grpc.ServicerContext) -> Any:
        contexts.append(context)
        return end(context)

    reader = Reader(ending)

    def parse(data: bytes) -> bytes:
        if data == b"rubbish":
            reader.parsing.set()
            wait_until(lambda: bool(contexts) and not contexts[0].is_active())
            raise ValueError("no bread")
        return data

    behavior = reader.stream if arity in STREAMS else reader.once
    handler = HANDLERS[arity](behavior, parse)
    with serving(
        *([HideExceptions()] if hiding else []),
        ServerInterceptor(*recorder.observers),
        handlers=[grpc.method_handlers_generic_handler(SERVICE, {NAMES[arity]: handler})],
    ) as address:
        with grpc.insecure_channel(address) as channel:
            got = status(channel, arity, b"a", b"rubbish")
        recorder.wait_for()

    assert got == (("NOT_FOUND", "as asked") if end is abort else ("OK", ""))
    assert [[got[0]]] * 4 == recorder.everywhere()


Send = Callable[[Any], None]


def raise_late(send: Send) -> None:
    """Complete the call, and raise."""
    send(b"a")
    send(None)
    raise ValueError("no bread")


def abort_late(send: Send, context: grpc.ServicerContext) -> None:
    """Complete the call, and abort it."""
    send(None)
    abort(context)


def complete_twice(send: Send) -> None:
    """Complete the call twice."""
    send(None)
    send(None)


def send_late(send: Send) -> None:
    """Complete the call, and send what cannot be serialised, and what can."""
    send(None)
    send(b"unserialisable")
    send(b"a")


def fail_twice(send: Send) -> None:
    """Send twice what cannot be serialised."""
    send(b"unserialisable")
    send(b"unserialisable")


def fail_and_complete(send: Send) -> None:
    """Send what cannot be serialised, and complete the call."""
    send(b"unserialisable")
    send(None)


def fail_and_raise(send: Send) -> None:
    """Send what cannot be serialised, and raise."""
    send(b"unserialisable")
    raise ValueError("no bread")


def fail_and_abort(send: Send, context: grpc.ServicerContext) -> None:
    """Send what cannot be serialised, and abort."""
    send(b"unserialisable")
    abort(context)


def serialize(response: bytes) -> bytes:
    """Serialise a response, if it can be."""
    if response == b"unserialisable":
        raise TypeError("no bytes")
    return response


@pytest.mark.expects_errors(rf"^observability: {LATE} \[ValueError: no bread\]$", r"\[TypeError: no bytes\]$")
@HIDING
@pytest.mark.parametrize("arity", ["server_stream", "bidi_stream"])
@pytest.mark.parametrize(
    ("act", "code"),
    [
        (raise_late, "OK"),
        (abort_late, "OK"),
        (complete_twice, "OK"),
        (send_late, "OK"),
        (fail_twice, "INTERNAL"),
        (fail_and_complete, "INTERNAL"),
        (fail_and_raise, "INTERNAL"),
        (fail_and_abort, "INTERNAL"),
    ],
)
def test_handler_that_ends_twice_without_blocking(
    arity: str, act: Callable[..., None], code: str, caplog: pytest.LogCaptureFixture, *, hiding: bool
) -> None:
    """A handler that sends by a function may go on when its call is over; what it then raises is logged once."""

    def behavior(_request: Any, context: grpc.ServicerContext, send: Send) -> None:
        act(send, *([context] if "context" in act.__annotations__ else []))

    behavior.experimental_non_blocking = True  # type: ignore[attr-defined]  # grpc's way to ask for it
    recorder = Recorder()
    handlers = {NAMES[arity]: HANDLERS[arity](behavior, None, serialize)}
    with serving(
        *([HideExceptions()] if hiding else []),
        ServerInterceptor(*recorder.observers),
        handlers=[grpc.method_handlers_generic_handler(SERVICE, handlers)],
    ) as address:
        with grpc.insecure_channel(address) as channel:
            got = [status(channel, arity, b"a") for _ in range(3)]
        recorder.wait_for(3)

    assert [code] * 3 == [name for name, _ in got]
    assert [[code] * 3] * 4 == recorder.everywhere()
    assert (3 if "raise" in act.__name__ else 0) == len([line for line in caplog.messages if line == LATE])


@pytest.mark.expects_errors(rf"^observability: {LATE} \[ValueError: no bread\]$")
def test_exception_after_a_request_that_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """What a handler raises whose requests have ended the call before is logged, as grpc logs it."""

    def behavior(requests: Iterator[bytes], _context: grpc.ServicerContext) -> bytes:
        list(requests)
        raise ValueError("no bread")

    def parse(_data: bytes) -> bytes:
        raise ValueError("no bytes")

    recorder = Recorder()
    handler: Any = grpc.stream_unary_rpc_method_handler(behavior, parse)
    with serving(
        ServerInterceptor(*recorder.observers),
        handlers=[grpc.method_handlers_generic_handler(SERVICE, {NAMES["client_stream"]: handler})],
    ) as address:
        with grpc.insecure_channel(address) as channel:
            got = status(channel, "client_stream", b"a")
        recorder.wait_for()

    assert ("INTERNAL", "Exception deserializing request!") == got
    assert [LATE] == caplog.messages
