"""Third-party contexts, call details and servicers that have only what grpc asks for."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import MagicMock

import grpc
import grpc.aio
import grpc.experimental
import pytest

from observability import AioHideExceptions, AioServerInterceptor, HideExceptions, ServerInterceptor, current_call
from protos import echo_pb2, echo_pb2_grpc
from tests.support.outcomes import aio_behaviors, behaviors
from tests.support.recorder import Recorder
from tests.support.rpc import (
    AIO_ECHOES,
    ARITIES,
    ECHOES,
    LOCAL,
    RESPONSES,
    STREAMS,
    aio_connected,
    connected,
    method,
    requests,
    service,
    talk,
)

STACKS = pytest.mark.parametrize("stack", ["sync", "aio"])
wrap_handler: Any = grpc.experimental.wrap_server_method_handler  # it has no types
EACH_ARITY = pytest.mark.parametrize("arity", ARITIES)
KINDS = pytest.mark.parametrize("kind", ["observing", "hiding"])


def ours(stack: str, kind: str, recorder: Recorder) -> list[Any]:
    """Return interceptors of ours: the one that observes, behind the one that hides if that is asked for."""
    if stack == "sync":
        return [*([HideExceptions()] if kind == "hiding" else []), ServerInterceptor(*recorder.observers)]
    return [*([AioHideExceptions()] if kind == "hiding" else []), AioServerInterceptor(*recorder.observers)]


def abstract(base: Any) -> Any:
    """Return a class of contexts that pass on what is abstract in this one, and nothing else."""

    def passing(name: str) -> Any:
        return lambda self, *args, **kwargs: getattr(self.inner, name)(*args, **kwargs)

    def init(self: Any, inner: Any) -> None:
        self.inner = inner

    names = base.__abstractmethods__
    return type("Abstract", (base,), {"__init__": init, **{name: passing(name) for name in names}})


def refuse(*_args: Any) -> Any:
    """Be a method that is not there."""
    raise NotImplementedError


Abstract = abstract(grpc.ServicerContext)
AioAbstract = abstract(grpc.aio.ServicerContext)
# One that does not say whether it has taken a callback; and those that do not know who is there, or take none.
Forgetful = type(
    "Forgetful", (Abstract,), {"add_callback": lambda self, callback: self.inner.add_callback(callback) and None}
)
Deaf = type("Deaf", (Abstract,), dict.fromkeys(("add_callback", "peer", "time_remaining", "is_active"), refuse))
AioDeaf = type("AioDeaf", (AioAbstract,), {"peer": refuse})
Unidentified = type("Unidentified", (Abstract,), {"peer_identities": refuse})
AioUnidentified = type("AioUnidentified", (AioAbstract,), {"peer_identities": refuse})


class Giving(grpc.ServerInterceptor):
    """Gives every handler a context of this class, as people do who want to see what a handler does with it."""

    def __init__(self, class_: Any) -> None:
        self._class = class_

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Give it one."""
        handler = continuation(handler_call_details)

        def wrap(behavior: Any) -> Any:
            return lambda request, context: behavior(request, self._class(context))

        return wrap_handler(wrap, handler)


class AioGiving(grpc.aio.ServerInterceptor):
    """The same for asyncio."""

    def __init__(self, class_: Any) -> None:
        self._class = class_

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Give it one."""
        handler = await continuation(handler_call_details)

        def wrap(behavior: Any) -> Any:
            async def run(request: Any, context: Any) -> Any:
                try:
                    return await behavior(request, self._class(context))
                finally:
                    self.ended()

            async def generate(request: Any, context: Any) -> Any:
                try:
                    async for response in behavior(request, self._class(context)):
                        yield response
                finally:
                    self.ended()

            return generate if handler.response_streaming else run

        return wrap_handler(wrap, handler)

    def ended(self) -> None:
        """Be called when a handler has ended."""


GIVING = [
    pytest.param("sync", lambda: Giving(Abstract), id="sync"),
    pytest.param("sync", lambda: Giving(Forgetful), id="sync-forgetful"),
    pytest.param("sync", lambda: Giving(Deaf), id="sync-deaf"),
    pytest.param("aio", lambda: AioGiving(AioAbstract), id="aio"),
    pytest.param("aio", lambda: AioGiving(AioDeaf), id="aio-deaf"),
]


def code_of(stack: str, arity: str, behavior: Any, *interceptors: Any) -> str:
    """Make a call, and return the code that its caller gets."""
    try:
        talk(stack, arity, server=interceptors, behavior=behavior)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code.name
    return "OK"


@pytest.mark.expects_errors("ValueError: no bread")
@pytest.mark.parametrize("status", ["OK", "NOT_FOUND", "UNKNOWN"])
@pytest.mark.parametrize(("stack", "giving"), GIVING)
@EACH_ARITY
@KINDS
def test_context_with_the_abstract_methods_alone(
    stack: str, giving: Callable[[], Any], arity: str, kind: str, status: str
) -> None:
    """Behind an interceptor that gives handlers such a context a call is as without us, and reported as that."""
    recorder = Recorder()
    behavior = (behaviors(status) if stack == "sync" else aio_behaviors(status))[arity]
    alone = code_of(stack, arity, behavior, giving())
    together = code_of(stack, arity, behavior, giving(), *ours(stack, kind, recorder))
    recorder.wait_for()

    assert status == alone == together
    assert [[status]] * 4 == recorder.everywhere()
    assert [status == "UNKNOWN"] == [outcome.error is not None for outcome in recorder.outcomes]
    assert 0 == recorder.total("grpc_server_in_flight") == recorder.total("grpc_server_handlers_running")


def cut_soon() -> None:
    """Have this task cancelled as soon as it waits, as a server that stops may do with a call that it has answered."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)


class Cut(AioAbstract):  # type: ignore[misc,valid-type]  # made of grpc's
    """One whose call is cancelled while the status of its abort is being sent."""

    async def abort(self, *status: Any, **more: Any) -> Any:
        """Abort."""
        cut_soon()
        await self.inner.abort(*status, **more)


class AioCutting(AioGiving):
    """Gives such a context, and has the call cancelled while the status of its handler's end is being sent, too."""

    def __init__(self) -> None:
        super().__init__(Cut)

    def ended(self) -> None:
        """Have it cancelled."""
        cut_soon()


@pytest.mark.expects_errors("ValueError: no bread")
@pytest.mark.parametrize("status", ["OK", "NOT_FOUND", "UNKNOWN"])
@EACH_ARITY
@KINDS
def test_answered_behind_such_a_context_then_cancelled(arity: str, kind: str, status: str) -> None:
    """It does not show that a call is answered: one that is cancelled while its answer is sent is reported as that."""
    recorder = Recorder()
    code = code_of("aio", arity, aio_behaviors(status)[arity], AioCutting(), *ours("aio", kind, recorder))
    recorder.wait_for()

    assert status == code
    assert [[status]] * 4 == recorder.everywhere()


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@KINDS
def test_abort_that_is_not_awaited_in_such_a_context(kind: str) -> None:
    """It does nothing on asyncio, and is not reported."""
    recorder = Recorder()

    async def forget(request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "not awaited")
        return request

    assert "OK" == code_of("aio", "unary", forget, AioGiving(AioAbstract), *ours("aio", kind, recorder))
    recorder.wait_for()
    assert [[("OK", "")]] == [[(outcome.code.name, outcome.details) for outcome in recorder.outcomes]]


@pytest.mark.parametrize(("stack", "giving"), GIVING)
@KINDS
def test_code_set_in_such_a_context(stack: str, giving: Callable[[], Any], kind: str) -> None:
    """A code that a handler sets in such a context is the call's; the handler's context is still a ServicerContext."""
    recorder, seen = Recorder(), []

    def behavior(request: bytes, context: Any) -> bytes:
        seen.append((isinstance(context, grpc.ServicerContext | grpc.aio.ServicerContext), current_call()))
        context.set_code(grpc.StatusCode.DATA_LOSS)
        context.set_details("as asked")
        context.set_trailing_metadata((("key", "value"),))
        return request

    async def aio_behavior(request: bytes, context: Any) -> bytes:
        return behavior(request, context)

    interceptors = [giving(), *ours(stack, kind, recorder)]
    assert "DATA_LOSS" == code_of(stack, "unary", behavior if stack == "sync" else aio_behavior, *interceptors)
    recorder.wait_for()
    assert [(True, recorder.calls[0])] == seen
    assert [("DATA_LOSS", "as asked")] == [(outcome.code.name, outcome.details) for outcome in recorder.outcomes]


@pytest.mark.parametrize("stack", ["sync", "aio"])
@EACH_ARITY
def test_context_that_knows_no_identity(stack: str, arity: str) -> None:
    """A context that knows the caller's address and nothing of certificates still shows the address."""
    recorder = Recorder()
    giving: Any = Giving(Unidentified) if stack == "sync" else AioGiving(AioUnidentified)
    code = code_of(stack, arity, None, giving, *ours(stack, "observing", recorder))
    recorder.wait_for()

    assert "OK" == code
    assert [(True, None)] == [((call.peer or "").startswith("ipv4:"), call.peer_identity) for call in recorder.calls]


@pytest.mark.parametrize(("stack", "giving"), GIVING[:1] + GIVING[3:4])
@EACH_ARITY
def test_deadline_behind_such_a_context(stack: str, giving: Callable[[], Any], arity: str) -> None:
    """A missed deadline is reported there as well, under its name where the context knows the deadline."""
    recorder, begun, leave = Recorder(), threading.Event(), threading.Event()

    def ask() -> str:
        made = behaviors("cancelled", leave, begun)
        with connected(giving(), ServerInterceptor(*recorder.observers), **{arity: made[arity]}) as channel:
            start = method(channel, arity)
            call = (start if arity in STREAMS else start.future)(requests(arity), timeout=0.3)
            with contextlib.suppress(grpc.RpcError):
                _ = list(call) if arity in STREAMS else call.result()
            recorder.wait_for()
            leave.set()
        return "DEADLINE_EXCEEDED"

    async def ask_aio() -> str:
        made = aio_behaviors("cancelled")
        interceptors = [giving(), AioServerInterceptor(*recorder.observers)]
        async with aio_connected(*interceptors, **{arity: made[arity]}) as channel:
            call = method(channel, arity)(requests(arity), timeout=0.3)
            with contextlib.suppress(grpc.RpcError):
                _ = [response async for response in call] if arity in STREAMS else await call
            await asyncio.to_thread(recorder.wait_for)
        return "CANCELLED"  # time_remaining() is not abstract there

    expected = ask() if stack == "sync" else asyncio.run(ask_aio())

    assert [[expected]] * 4 == recorder.everywhere()


class Details:
    """A call's details, with its method's name alone unless more is given."""

    def __init__(self, method: Any, **more: Any) -> None:
        self.method = method
        self.__dict__.update(more)


class Detailing(grpc.ServerInterceptor):
    """Asks for the handler with its own call details."""

    def __init__(self, **more: Any) -> None:
        self._more = more

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Ask."""
        return continuation(Details(handler_call_details.method, **self._more))


class AioDetailing(grpc.aio.ServerInterceptor):
    """The same for asyncio."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Ask."""
        return await continuation(Details(handler_call_details.method))


METADATA = [
    pytest.param({}, [], id="none"),
    pytest.param({"invocation_metadata": None}, [], id="None"),
    pytest.param({"invocation_metadata": 5}, [], id="a number"),
    pytest.param({"invocation_metadata": {"key": "value"}}, [], id="a dict"),
    pytest.param({"invocation_metadata": [("key", "value")]}, [("key", "value")], id="a list"),
]


@pytest.mark.parametrize(("more", "metadata"), METADATA)
@EACH_ARITY
def test_call_details_with_little_in_them(arity: str, more: dict[str, Any], metadata: list[Any]) -> None:
    """grpc.server asks call details for the method alone, and so do we; what they have besides is used."""
    recorder = Recorder()
    interceptors = [Detailing(**more), ServerInterceptor(*recorder.observers)]

    assert RESPONSES[arity] == talk("sync", arity, server=interceptors)
    recorder.wait_for()
    assert [["OK"]] * 4 == recorder.everywhere()
    assert [metadata] == [list(call.metadata) for call in recorder.calls]


@pytest.mark.expects_errors("TypeError: Argument 'handler_call_details'")
def test_call_details_that_asyncio_does_not_take() -> None:
    """grpc.aio takes its own call details alone, as older versions do not; where it raises, so it does with us."""
    recorder = Recorder()
    got: list[tuple[grpc.StatusCode, Any, type]] = []
    for interceptors in ([AioDetailing()], [AioDetailing(), AioServerInterceptor(*recorder.observers)]):
        try:
            got.append((grpc.StatusCode.OK, talk("aio", "unary", server=interceptors), type(None)))
        except grpc.aio.AioRpcError as error:
            got.append((error.code(), error.details(), TypeError))
    recorder.wait_for()
    code, _, type_ = got[0]

    assert got[0] == got[1]
    assert [(code, type_)] == [(outcome.code, type(outcome.error)) for outcome in recorder.outcomes]


class AioAnswering(grpc.aio.ServerInterceptor):
    """Answers every call with its own handler."""

    async def intercept_service(self, *_call: Any) -> Any:
        """Return it."""
        return grpc.unary_unary_rpc_method_handler(AIO_ECHOES["unary"])


def test_call_details_with_little_in_them_on_asyncio() -> None:
    """An interceptor after ours may make do with them, and so do we."""
    recorder = Recorder()
    interceptors = [AioDetailing(), AioServerInterceptor(*recorder.observers), AioAnswering()]

    assert [b"a"] == talk("aio", "unary", server=interceptors)
    recorder.wait_for()
    assert [["OK"]] * 4 == recorder.everywhere()


@contextlib.contextmanager
def echo_of(servicer: Any, *interceptors: Any) -> Iterator[Any]:
    """Serve this EchoService on grpc.server, and give a stub for it."""
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, interceptors=list(interceptors))
        echo_pb2_grpc.add_EchoServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port(LOCAL)
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = echo_pb2_grpc.EchoServiceStub(channel)
            yield stub
        server.stop(None).wait()


def mocked() -> Any:
    """Return a servicer that is a mock, which has every attribute that one may ask for."""
    servicer = MagicMock(spec=echo_pb2_grpc.EchoServiceServicer)
    servicer.Echo.return_value = echo_pb2.EchoResponse(echo="mocked")
    servicer.EchoJoin.return_value = echo_pb2.EchoResponse(echo="mocked")
    return servicer


def ask_mock(stub: Any) -> list[Any]:
    """Call each of its methods; return what comes of that."""
    found = []
    asked: list[Callable[[], Any]] = [
        lambda: stub.Echo(echo_pb2.EchoRequest(msg="a"), timeout=10),
        lambda: stub.EchoJoin(iter([echo_pb2.EchoRequest(msg="a")]), timeout=10),
        # grpc takes a mock for a handler that sends its responses by itself, which it never does.
        lambda: list(stub.EchoRepeat(echo_pb2.EchoRepeatRequest(msg="a", times=1), timeout=0.2)),
        lambda: list(stub.EchoChat(iter([echo_pb2.EchoRequest(msg="a")]), timeout=0.2)),
    ]
    for ask in asked:
        try:
            found.append(ask().echo)
        except grpc.RpcError as error:
            found.append(error.code().name)
    return found


@KINDS
def test_mocked_servicer(kind: str) -> None:
    """A servicer that is a MagicMock does what it does without us."""
    recorder = Recorder()
    with echo_of(mocked()) as stub:
        alone = ask_mock(stub)
    with echo_of(mocked(), *ours("sync", kind, recorder)) as stub:
        together = ask_mock(stub)
    recorder.wait_for(4)

    assert ["mocked", "mocked", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"] == alone == together
    assert ["DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "OK", "OK"] == sorted(recorder.codes)


async def ask_aio_mock(*interceptors: Any) -> list[str]:
    """Call the unary methods of a mocked asyncio servicer, whose methods are coroutine functions as well."""

    class Servicer:
        async def Echo(self, request: Any, context: Any) -> Any:  # noqa: N802 - the RPC's name
            raise NotImplementedError

        EchoJoin = EchoRepeat = EchoChat = Echo

    servicer = MagicMock(spec=Servicer)
    servicer.Echo.return_value = servicer.EchoJoin.return_value = echo_pb2.EchoResponse(echo="mocked")
    server = grpc.aio.server(interceptors=interceptors)
    add: Any = echo_pb2_grpc.add_EchoServiceServicer_to_server
    add(servicer, server)
    port = server.add_insecure_port(LOCAL)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = echo_pb2_grpc.EchoServiceStub(channel)
        answers = [
            await stub.Echo(echo_pb2.EchoRequest(msg="a"), timeout=10),
            await stub.EchoJoin(iter([echo_pb2.EchoRequest(msg="a")]), timeout=10),
        ]
    await server.stop(None)
    return [answer.echo for answer in answers]


@KINDS
def test_mocked_servicer_on_asyncio(kind: str) -> None:
    """On asyncio a servicer that is a mock does what it does without us, too."""
    recorder = Recorder()

    assert ["mocked", "mocked"] == asyncio.run(ask_aio_mock())
    assert ["mocked", "mocked"] == asyncio.run(ask_aio_mock(*ours("aio", kind, recorder)))
    recorder.wait_for(2)
    assert ["OK", "OK"] == recorder.codes


@KINDS
@EACH_ARITY
def test_attributes_that_grpc_does_not_take(arity: str, kind: str) -> None:
    """A thread pool that is none is ignored; a non-blocking handler that answers once is called like any other."""
    recorder, threads = Recorder(), []

    def behavior(request: Any, context: Any) -> Any:
        threads.append(threading.current_thread().name)
        return ECHOES[arity](request, context)

    behavior.experimental_thread_pool = "a pool"  # type: ignore[attr-defined]  # it is none
    behavior.experimental_non_blocking = arity not in STREAMS  # type: ignore[attr-defined]  # grpc's own attribute
    with ThreadPoolExecutor(1, "shared") as pool:
        server = grpc.server(pool, [service(**{arity: behavior})], ours("sync", kind, recorder))
        port = server.add_insecure_port(LOCAL)
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            answer = method(channel, arity)(requests(arity), timeout=10)
            responses = [answer] if arity not in STREAMS else list(answer)
        server.stop(None).wait()
    recorder.wait_for()

    assert (RESPONSES[arity], ["shared_0"], ["OK"]) == (responses, threads, recorder.codes)
