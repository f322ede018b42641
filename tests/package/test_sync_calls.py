"""A call of a sync channel is what it is without us, and lives as long."""

import gc
import threading
import traceback
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc_status.rpc_status
import pytest
from google.api_core import exceptions as exceptions_
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it has no types

from tests.support.less_than_calls import Answering
from tests.support.outcomes import behaviors, reporter
from tests.support.recorder import Recorder
from tests.support.rpc import ARITIES, ECHOES, RESPONSES, STREAMS, connected
from tests.support.without_us import SINGLE, WAYS, end, expect, singles, start, streams, ways

exceptions: Any = exceptions_  # its functions have no types


@ways
@pytest.mark.parametrize("arity", ARITIES)
def test_class_of_a_call(way: str, arity: str) -> None:
    """A call is of grpc's own class, by name too, and so all that this is: an error, a call and a future."""
    recorder = Recorder()
    with connected(**ECHOES) as plain:
        grpcs = type(start(plain, arity))
        call = start(WAYS[way](recorder, plain), arity)
        found = [isinstance(call, kind) for kind in (grpcs, grpc.RpcError, grpc.RpcContext, grpc.Call, grpc.Future)]
        name = f"{type(call).__module__}.{type(call).__qualname__}"
        _ = list(call) if arity in STREAMS else call.result()

    assert [True] * 5 == found
    assert f"{grpcs.__module__}.{grpcs.__qualname__}" == name
    expect(way, recorder, "OK")


@ways
@pytest.mark.parametrize("arity", ARITIES)
def test_done_callback_gets_the_call(way: str, arity: str) -> None:
    """A done-callback gets the very call, going on or over: Google's clients look at whether it is an RpcError."""
    recorder, called = Recorder(), threading.Event()
    found: list[Any] = []
    with connected(**behaviors("NOT_FOUND")) as plain:
        call = start(WAYS[way](recorder, plain), arity)
        call.add_done_callback(found.append)
        call.add_done_callback(lambda _call: called.set())
        end(call, arity)
        called.wait(5)
        call.add_done_callback(found.append)

    assert [True] * 2 == [one is call for one in found]
    assert isinstance(found[0], grpc.RpcError)
    expect(way, recorder, "NOT_FOUND")


@ways
@pytest.mark.parametrize("arity", ARITIES)
def test_call_raises_itself(way: str, arity: str) -> None:
    """What a call raises is itself, again and again, and nothing else is its cause or context."""
    recorder = Recorder()
    with connected(**behaviors("NOT_FOUND")) as plain:
        call = start(WAYS[way](recorder, plain), arity)
        errors = [end(call, arity), end(call, arity)]
        error = call.exception()

    assert [True] * 3 == [one is call for one in (*errors, error)]
    assert (None, None) == (call.__cause__, call.__context__)
    assert () == call.args
    expect(way, recorder, "NOT_FOUND")


@ways
@pytest.mark.parametrize("arity", ARITIES)
def test_call_can_be_raised(way: str, arity: str) -> None:
    """A call can be raised by hand, and be caught as grpc's private class."""
    recorder = Recorder()
    with connected(**behaviors("NOT_FOUND")) as plain:
        grpcs = type(start(plain, arity))
        call = start(WAYS[way](recorder, plain), arity)
        end(call, arity)
        try:
            raise call
        except grpcs as error:
            caught = error

    assert caught is call
    expect(way, recorder, "NOT_FOUND")


@ways
@pytest.mark.parametrize("arity", ARITIES)
def test_call_as_text(way: str, arity: str) -> None:
    """Str and repr of a call, and the last line of its stack trace, are what grpc makes of it."""
    recorder = Recorder()
    with connected(**behaviors("NOT_FOUND")) as plain:
        call = start(WAYS[way](recorder, plain), arity)
        before = str(call)
        error = end(call, arity)

    assert before in ("<_MultiThreadedRendezvous object>", str(call))
    assert repr(call) == str(call)
    assert 'status = StatusCode.NOT_FOUND\n\tdetails = "as asked"' in str(call)
    lines = traceback.format_exception(error)
    assert lines[-1].startswith("grpc._channel._MultiThreadedRendezvous: <_MultiThreadedRendezvous of RPC that term")
    assert [True] == [
        f"in {'_next' if arity in STREAMS else 'result'}\n" in line for line in lines if "grpc/_ch" in line
    ][-1:]
    expect(way, recorder, "NOT_FOUND")


@ways
@pytest.mark.parametrize("arity", ARITIES)
def test_call_read_by_others(way: str, arity: str) -> None:
    """grpc-status and google-api-core read the status out of a call."""
    recorder = Recorder()
    status = Status(code=5, message="gone")
    status.details.append(AnyMessage(type_url="a/b"))

    def fail(_request: Any, context: grpc.ServicerContext) -> Any:
        context.abort_with_status(grpc_status.rpc_status.to_status(status))

    def fail_later(request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"first"
        fail(request, context)

    served: dict[str, Any] = {arity: fail_later if arity in STREAMS else fail}
    with connected(**served) as plain:
        error: Any = end(start(WAYS[way](recorder, plain), arity), arity)

    assert status == grpc_status.rpc_status.from_call(error)
    assert isinstance(exceptions.from_grpc_error(error), exceptions.NotFound)
    expect(way, recorder, "NOT_FOUND")


@ways
@pytest.mark.parametrize("arity", ARITIES)
def test_interface_of_a_call(way: str, arity: str) -> None:
    """All of grpc's methods, and what is private to it, answer as grpc's own call does."""
    recorder, found, names = Recorder(), [], []
    with connected(**behaviors("NOT_FOUND")) as plain:
        for channel in (plain, WAYS[way](recorder, plain)):
            call = start(channel, arity)
            end(call, arity)
            names.append(set(dir(call)))
            asked = [getattr(call, name)() for name in ("done", "running", "cancelled", "is_active", "cancel")]
            metadata = [list(call.initial_metadata()), list(call.trailing_metadata())]
            found.append((call.code(), call.details(), asked, metadata, call._state.code))
            assert 0 <= call.time_remaining() <= 10
            assert call.add_callback(print) is False
            assert call.traceback() is not None
            assert call.debug_error_string()

    assert found[0] == found[1]
    assert [] == [name for name in names[0] if not hasattr(call, name)]
    expect(way, recorder, "NOT_FOUND")


@ways
@singles
def test_future_that_times_out(way: str, arity: str) -> None:
    """Waiting for a future for too short a time ends nothing."""
    recorder, leave = Recorder(), threading.Event()
    with connected(**behaviors("cancelled", leave)) as plain:
        future = start(WAYS[way](recorder, plain), arity)
        with pytest.raises(grpc.FutureTimeoutError):
            future.result(timeout=0.01)
        with pytest.raises(grpc.FutureTimeoutError):
            future.exception(0.01)
        codes = list(recorder.codes)
        leave.set()
        answer = future.result()

    assert [] == codes
    assert b"done" == answer
    expect(way, recorder, "OK")


@ways
@pytest.mark.parametrize("arity", ARITIES)
def test_cancelled_call(way: str, arity: str) -> None:
    """A call that is cancelled raises FutureCancelledError from its result, and its responses raise itself."""
    recorder, leave = Recorder(), threading.Event()
    with connected(**behaviors("cancelled", leave)) as plain:
        call = start(WAYS[way](recorder, plain), arity)
        cancelled = call.cancel(), call.cancel(), call.cancelled()
        with pytest.raises(grpc.FutureCancelledError):
            call.result()
        with pytest.raises(grpc.FutureCancelledError):
            call.exception()
        if arity in STREAMS:
            assert end(call, arity) is call
        leave.set()

    assert (True, False, True) == cancelled
    expect(way, recorder, "CANCELLED")
    assert way == "bare" or ["Locally cancelled by application!"] == [outcome.details for outcome in recorder.outcomes]


@pytest.mark.expects_errors("Exception in callback .*no_bread")
@ways
@pytest.mark.parametrize("arity", ARITIES)
def test_done_callback_that_raises(way: str, arity: str, caplog: pytest.LogCaptureFixture) -> None:
    """A done-callback that raises is named in grpc's log, and the call ends as it does."""

    def no_bread(_call: Any) -> None:
        raise ValueError("no bread")

    recorder, leave, called = Recorder(), threading.Event(), threading.Event()
    with connected(**behaviors("cancelled", leave)) as plain:
        call = start(WAYS[way](recorder, plain), arity)
        call.add_done_callback(no_bread)
        call.add_done_callback(lambda _call: called.set())
        leave.set()
        _ = list(call) if arity in STREAMS else call.result()
        called.wait(5)

    assert [True] == [repr(no_bread) in record.getMessage() for record in caplog.records if "allback" in record.msg]
    expect(way, recorder, "OK")


# How long a call lives


@ways
@pytest.mark.parametrize("arity", ARITIES)
@pytest.mark.usefixtures("no_collection")
def test_dropped_call(way: str, arity: str) -> None:
    """A call that is dropped goes, and is cancelled on the wire, without the garbage collector."""
    recorder, leave, begun, over = Recorder(), threading.Event(), threading.Event(), threading.Event()
    with connected(**reporter(over, behaviors("cancelled", leave, begun))) as plain:
        call = start(WAYS[way](recorder, plain), arity)
        begun.wait(5)
        reference = weakref.ref(call)
        del call
        gone = reference() is None
        cancelled = over.wait(5)
        leave.set()

    assert (True, True) == (gone, cancelled)
    expect(way, recorder, "CANCELLED")
    assert way == "bare" or ["Dropped before its end"] == [outcome.details for outcome in recorder.outcomes]


@ways
@pytest.mark.parametrize("arity", ARITIES)
@pytest.mark.usefixtures("no_collection")
def test_dropped_call_with_a_done_callback(way: str, arity: str) -> None:
    """A done-callback keeps a call that its caller has dropped: it goes on to its end, and then goes."""
    recorder, leave, called = Recorder(), threading.Event(), threading.Event()
    found: list[Any] = []

    def done(call: Any) -> None:
        found.extend((weakref.ref(call), call.code()))
        called.set()

    with connected(**behaviors("cancelled" if arity in SINGLE else "OK", leave)) as plain:
        call = start(WAYS[way](recorder, plain), arity)
        if arity in STREAMS:
            _ = next(call), next(call)
        call.add_done_callback(done)
        del call
        leave.set()
        called.wait(5)
        reference, code = found
        deadline = threading.Event()
        while reference() is not None and not deadline.wait(0.005):
            pass

    assert code is grpc.StatusCode.OK
    expect(way, recorder, "OK")


@ways
@pytest.mark.parametrize("arity", ARITIES)
@pytest.mark.parametrize("waits_for", ["code", "details", "trailing_metadata", "exception"])
def test_dropped_call_that_a_thread_waits_for(way: str, arity: str, waits_for: str) -> None:
    """A thread that waits for a call keeps it, if only by a bound method, and waits for the call's end."""
    recorder, leave, begun = Recorder(), threading.Event(), threading.Event()

    def fail_later(_request: Any, context: grpc.ServicerContext) -> Any:
        begun.set()
        leave.wait(10)
        context.abort(grpc.StatusCode.NOT_FOUND, "as asked")

    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        fail_later(request, context)
        yield b"never"

    served: dict[str, Any] = {arity: stream if arity in STREAMS else fail_later}
    with connected(**served) as plain, ThreadPoolExecutor(1) as pool:
        call = start(WAYS[way](recorder, plain), arity)
        waiting = pool.submit(getattr(call, waits_for))
        begun.wait(5)
        del call
        gc.collect()
        leave.set()
        waited = waiting.result(5)

    expected = {"code": grpc.StatusCode.NOT_FOUND, "details": "as asked", "trailing_metadata": ()}
    assert isinstance(waited, grpc.RpcError) if waits_for == "exception" else expected[waits_for] == waited
    del waited, waiting
    expect(way, recorder, "NOT_FOUND")


@ways
@streams
@pytest.mark.parametrize("status", ["OK", "NOT_FOUND"])
@pytest.mark.parametrize("asked", ["code", "details", "trailing_metadata", "debug_error_string", "exception", "done"])
def test_status_asked_for(way: str, arity: str, status: str, asked: str) -> None:
    """A stream of which its caller reads as many messages as there are, and then asks for the status, has that."""
    recorder, over = Recorder(), threading.Event()
    with connected(**behaviors(status)) as plain:
        stream = start(WAYS[way](recorder, plain), arity)
        if not stream.add_callback(over.set):
            over.set()
        _ = [next(stream) for _ in range(2 if status == "OK" else 1)]
        over.wait(5)
        getattr(stream, asked)()
        if asked == "done":  # which does not say how it ended
            del stream
        expect(way, recorder, status)


@ways
@streams
def test_stream_dropped_when_over(way: str, arity: str) -> None:
    """A stream that is over when it is dropped has the status that grpc has, though nobody asked for it."""
    recorder, over = Recorder(), threading.Event()
    with connected(**behaviors("NOT_FOUND")) as plain:
        stream = start(WAYS[way](recorder, plain), arity)
        if not stream.add_callback(over.set):
            over.set()
        next(stream)
        over.wait(5)
        del stream
        expect(way, recorder, "NOT_FOUND")

    assert way == "bare" or ["as asked"] == [outcome.details for outcome in recorder.outcomes]


@ways
@streams
def test_status_asked_for_beside_a_reader(way: str, arity: str) -> None:
    """A thread that asks for the status while another reads does not change the count of messages."""
    recorder, leave = Recorder(), threading.Event()
    with connected(**behaviors("cancelled", leave)) as plain, ThreadPoolExecutor(2) as pool:
        stream = start(WAYS[way](recorder, plain), arity)
        reading, asking = pool.submit(list, stream), pool.submit(stream.code)
        leave.set()
        messages, code = reading.result(5), asking.result(5)

    assert ([b"first", b"done"], grpc.StatusCode.OK) == (messages, code)
    expect(way, recorder, "OK")
    assert way == "bare" or [2] == [outcome.received for outcome in recorder.outcomes]


@ways
@streams
def test_interrupted_reader(way: str, arity: str) -> None:
    """A reader that is interrupted while it waits for a message may go on reading: the call has not ended."""
    recorder = Recorder()

    class Interrupted(Iterator[bytes]):
        """Is interrupted once."""

        def __init__(self, call: Any) -> None:
            self._call = call
            self._raised = False

        def __next__(self) -> bytes:
            if not self._raised:
                self._raised = True
                raise KeyboardInterrupt
            response: bytes = next(self._call)
            return response

    with connected(**ECHOES) as plain:
        stream = start(WAYS[way](recorder, grpc.intercept_channel(plain, Answering(Interrupted))), arity)
        with pytest.raises(KeyboardInterrupt):
            next(stream)
        messages = list(stream)

    assert RESPONSES[arity] == messages
    expect(way, recorder, "OK")
