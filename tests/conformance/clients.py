"""Callers on grpc channels that play a case, one for each way to make a call; each returns the code that it got."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from grpc import StatusCode

from tests.support.recorder import PATIENCE

from .messages import VERY_LARGE, parse, serialize
from .servers import SERVICE
from .stage import Stage
from .vocabulary import Arity, requests_stream

OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
_KINDS: dict[Arity, str] = {
    "unary": "unary_unary",
    "client_stream": "stream_unary",
    "server_stream": "unary_stream",
    "bidi_stream": "stream_stream",
}


def stub(channel: Any, stage: Stage) -> Any:
    """Return what calls the case's method."""
    kind = getattr(channel, _KINDS[stage.way.arity])
    return kind(f"/{SERVICE}/{stage.case.caller.method}", request_serializer=serialize, response_deserializer=parse)


def requests(stage: Stage) -> Iterator[Any]:
    """Give the requests of a stream."""
    yield stage.case.messages.request
    yield stage.case.messages.second
    while stage.case.messages.endless and not stage.over.is_set():
        yield VERY_LARGE  # the second waits to be read, where short ones are written without end


def call(stage: Stage) -> StatusCode:
    """Make the call, and return the code that its caller gets."""
    with grpc.insecure_channel(stage.address, (*OPTIONS, *stage.case.environment.channel_options)) as plain:
        if stage.case.environment.obstacle == "limited":
            hold(plain)
            stage.wait()
        if stage.case.caller.timeout:
            grpc.channel_ready_future(plain).result(PATIENCE)
        channel = stage.telemetry.intercept_channel(plain, target=stage.address)
        _interrupt_later(stage, {"stop_server": stage.stop, "close_channel": plain.close})
        request = requests(stage) if requests_stream(stage.way.arity) else stage.case.messages.request
        try:
            return _WAYS[stage.way.client](stage, stub(channel, stage), request)
        except grpc.FutureCancelledError:
            return StatusCode.CANCELLED
        except grpc.RpcError as error:
            return _code(error)


def hold(channel: Any) -> None:
    """Make another call, which takes the server's only place and goes on until the end."""
    channel.unary_unary("/hold").future(b"").add_done_callback(lambda _future: None)  # which keeps it going


def _interrupt_later(stage: Stage, ends: dict[str, Callable[[], object]]) -> None:
    def interrupt() -> None:
        stage.wait()
        ends[stage.case.caller.end]()

    if stage.case.caller.end in ends:
        threading.Thread(target=interrupt).start()


def _code(call: Any) -> StatusCode:
    code: StatusCode = call.code()
    return code


def _blocking(stage: Stage, method: Any, request: Any) -> StatusCode:
    method(request, timeout=stage.case.caller.timeout)
    return StatusCode.OK


def _with_call(stage: Stage, method: Any, request: Any) -> StatusCode:
    return _code(method.with_call(request, timeout=stage.case.caller.timeout)[1])


def _future(stage: Stage, method: Any, request: Any) -> StatusCode:
    future = method.future(request, timeout=stage.case.caller.timeout)
    _interrupt(stage, future)
    if stage.case.caller.drops:
        return StatusCode.CANCELLED
    future.result()
    return _code(future)


def _iterate(stage: Stage, method: Any, request: Any) -> StatusCode:
    responses = method(request, timeout=stage.case.caller.timeout)
    if stage.case.caller.end == "drop_unread" or stage.case.environment.waits_unserved:
        _interrupt(stage, responses)
    if stage.case.caller.end == "drop_unread":
        return StatusCode.CANCELLED
    for _ in responses:
        _interrupt(stage, responses)
        if stage.case.caller.drops:
            return StatusCode.CANCELLED
    return StatusCode.OK


def _interrupt(stage: Stage, call: Any) -> None:
    if stage.case.caller.interrupts:
        stage.wait()
    if stage.case.caller.cancels:
        call.cancel()


_WAYS: dict[str, Callable[[Stage, Any, Any], StatusCode]] = {
    "call": _blocking,
    "with_call": _with_call,
    "future": _future,
    "iterate": _iterate,
}
