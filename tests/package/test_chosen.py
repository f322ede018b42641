"""Statuses that were chosen before an exception leaves a handler, and exceptions that are aborts."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import grpc
import grpc.aio
import pytest

from observability import AioHideExceptions, AioServerInterceptor, HideExceptions, ServerInterceptor
from protos import echo_pb2, echo_pb2_grpc
from tests.support.recorder import Recorder
from tests.support.rpc import ARITIES, LOCAL, NAMES, STREAMS, aio_connected, connected, method, requests, service

pytestmark = pytest.mark.expects_errors(
    r"\[(LookupError|ValueError|Unlucky|KeyError|\w*ExceptionGroup|NotImplementedError)\b"
)  # the handlers' own

STACKS = pytest.mark.parametrize("stack", ["sync", "aio"])
EACH_ARITY = pytest.mark.parametrize("arity", ARITIES)
ORDERS = pytest.mark.parametrize("order", ["ours", "hiding", "hiding, ours", "ours, hiding"])
HIDING = pytest.mark.parametrize("order", ["hiding", "hiding, ours", "ours, hiding"])
Base: Any = echo_pb2_grpc.EchoServiceServicer  # abstract in the stubs alone
add_echo: Any = echo_pb2_grpc.add_EchoServiceServicer_to_server
LEFT_OUT = "Method not implemented!"
PATIENCE = 10.0


class Status(NamedTuple):
    """What a caller gets."""

    code: str
    details: str


def interceptors(stack: str, order: str, recorder: Recorder) -> list[Any]:
    """Return these interceptors in this order."""
    if stack == "sync":
        made: dict[str, Any] = {"ours": ServerInterceptor(*recorder.observers), "hiding": HideExceptions()}
    else:
        made = {"ours": AioServerInterceptor(*recorder.observers), "hiding": AioHideExceptions()}
    return [made[name] for name in order.split(", ") if name]


def status_of(error: grpc.RpcError) -> Status:
    """Read the status of a call that failed."""
    call: Any = error
    return Status(call.code().name, call.details())


def ask(call: Callable[[], Any]) -> Status:
    """Make a call to its end."""
    try:
        answer = call()
        if hasattr(answer, "__next__"):
            list(answer)
    except grpc.RpcError as error:
        return status_of(error)
    return Status("OK", "")


async def ask_aio(call: Callable[[], Any]) -> Status:
    """Do the same on asyncio."""
    try:
        answer = call()
        _ = [response async for response in answer] if hasattr(answer, "__aiter__") else await answer
    except grpc.aio.AioRpcError as error:
        return status_of(error)
    return Status("OK", "")


def echo_requests(stub: Any) -> list[Callable[[], Any]]:
    """Return a call of each arity."""
    request = echo_pb2.EchoRequest(msg="a")
    return [
        lambda: stub.Echo(request, timeout=PATIENCE),
        lambda: stub.EchoRepeat(echo_pb2.EchoRepeatRequest(msg="a", times=1), timeout=PATIENCE),
        lambda: stub.EchoJoin(iter([]), timeout=PATIENCE),
        lambda: stub.EchoChat(iter([]), timeout=PATIENCE),
    ]


def ask_base(*interceptors_: Any) -> list[Status]:
    """Call every method of a servicer that is the generated base alone, on grpc.server."""
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, interceptors=list(interceptors_))
        add_echo(Base(), server)
        port = server.add_insecure_port(LOCAL)
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            found = [ask(call) for call in echo_requests(echo_pb2_grpc.EchoServiceStub(channel))]
        server.stop(None).wait()
    return found


async def ask_base_aio(*interceptors_: Any) -> list[Status]:
    """Do the same on grpc.aio.server."""
    server = grpc.aio.server(interceptors=interceptors_)
    add_echo(Base(), server)
    port = server.add_insecure_port(LOCAL)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        found = [await ask_aio(call) for call in echo_requests(echo_pb2_grpc.EchoServiceStub(channel))]
    await server.stop(None)
    return found


@STACKS
@HIDING
def test_unimplemented_method(stack: str, order: str) -> None:
    """Where exceptions are hidden, a generated base's status stays, with its text, and is reported as no exception."""
    recorder = Recorder()
    found = (
        ask_base(*interceptors(stack, order, recorder))
        if stack == "sync"
        else asyncio.run(ask_base_aio(*interceptors(stack, order, recorder)))
    )
    count = 4 if "ours" in order else 0
    recorder.wait_for(count)

    assert [Status("UNIMPLEMENTED", LEFT_OUT)] * 4 == found
    assert [("UNIMPLEMENTED", LEFT_OUT, None)] * count == [
        (outcome.code.name, outcome.details, outcome.error) for outcome in recorder.outcomes
    ]
    assert ["warning"] * count == [line["level"] for line in recorder.lines]
    assert not any("stacktrace" in line for line in recorder.lines)
    assert [0] * count == [len(span.events) for span in recorder.spans]


@STACKS
def test_unimplemented_method_unhidden(stack: str) -> None:
    """Where nothing hides exceptions its exception is reported; what the caller gets is as without us."""
    recorder = Recorder()
    alone = ask_base() if stack == "sync" else asyncio.run(ask_base_aio())
    ours = interceptors(stack, "ours", recorder)
    together = ask_base(*ours) if stack == "sync" else asyncio.run(ask_base_aio(*ours))
    recorder.wait_for(4)

    assert alone == together
    assert [("UNIMPLEMENTED", None)] * 4 == [(outcome.code.name, outcome.error) for outcome in recorder.outcomes]


class Act(NamedTuple):
    """What a handler does before it raises, what it raises then, and what comes of it where exceptions are hidden."""

    code: grpc.StatusCode | None
    details: str | None
    error: BaseException
    hidden: Status
    reported: str | None
    """The name of the exception that is reported, if any."""


ACTS = {
    "text of the exception": Act(
        grpc.StatusCode.NOT_FOUND, "no bread", LookupError("no bread"), Status("NOT_FOUND", "no bread"), None
    ),
    "another text": Act(
        grpc.StatusCode.NOT_FOUND, "no bread", LookupError("secret"), Status("NOT_FOUND", "no bread"), "LookupError"
    ),
    "code alone": Act(
        grpc.StatusCode.NOT_FOUND, None, LookupError("secret"), Status("UNKNOWN", "internal error"), "LookupError"
    ),
    "text alone": Act(None, "no bread", LookupError("secret"), Status("UNKNOWN", "internal error"), "LookupError"),
    "OK": Act(
        grpc.StatusCode.OK, "no bread", LookupError("secret"), Status("UNKNOWN", "internal error"), "LookupError"
    ),
    "nothing": Act(
        None, None, NotImplementedError(LEFT_OUT), Status("UNKNOWN", "internal error"), "NotImplementedError"
    ),
}


def of_arity(arity: str, once: Callable[[Any, Any], bytes]) -> Any:
    """Return a blocking handler of this arity that answers once, by this function."""

    def stream(request: Any, context: Any) -> Iterator[bytes]:
        yield once(request, context)

    return stream if arity in STREAMS else once


def of_arity_aio(arity: str, once: Callable[[Any, Any], Awaitable[bytes]]) -> Any:
    """Return an async handler of this arity that answers once, by this function."""

    async def stream(request: Any, context: Any) -> Any:
        yield await once(request, context)

    return stream if arity in STREAMS else once


def raising(act: Act, arity: str) -> Any:
    """Return a blocking handler that does this."""

    def once(request: Any, context: Any) -> bytes:
        _ = request if isinstance(request, bytes) else list(request)
        if act.code is not None:
            context.set_code(act.code)
        if act.details is not None:
            context.set_details(act.details)
        raise act.error

    return of_arity(arity, once)


def raising_aio(act: Act, arity: str) -> Any:
    """Return an async handler that does this."""

    async def once(request: Any, context: Any) -> bytes:
        _ = request if isinstance(request, bytes) else [message async for message in request]
        answer: bytes = raising(act, "unary")(b"", context)
        return answer

    return of_arity_aio(arity, once)


def status_with(style: str, arity: str, behavior: Any, *interceptors_: Any) -> Status:
    """Call this behaviour, on grpc.server or grpc.aio.server."""
    if style == "sync":
        with connected(*interceptors_, **{arity: behavior}) as channel:
            return ask(lambda: method(channel, arity)(requests(arity), timeout=PATIENCE))

    async def on_asyncio() -> Status:
        async with aio_connected(*interceptors_, **{arity: behavior}) as channel:
            return await ask_aio(lambda: method(channel, arity)(requests(arity), timeout=PATIENCE))

    return asyncio.run(on_asyncio())


def of_each_arity(make: Callable[[str], Any]) -> dict[str, Any]:
    """Return what is made of each arity."""
    return {arity: make(arity) for arity in ARITIES}


Services = dict[str, dict[str, Any]]
"""Behaviours by the service's name, then by their arity."""
Found = dict[tuple[str, str], Status]
"""What came of the calls, by the service's name and the arity."""


def ask_each(style: str, services: Services, *interceptors_: Any, recorder: Recorder | None = None) -> Found:
    """Call these services' methods, on grpc.server or grpc.aio.server, each when the call before is reported."""
    handlers = [service(name.replace(" ", "_"), **behaviors) for name, behaviors in services.items()]
    cases = [(name, arity) for name, behaviors in services.items() for arity in behaviors]
    found: Found = {}

    def start(channel: Any, name: str, arity: str) -> Any:
        path = f"/{name.replace(' ', '_')}/{NAMES[arity]}"
        return method(channel, arity, path)(requests(arity), timeout=PATIENCE)

    if style == "sync":
        with connected(*interceptors_, handlers=handlers) as channel:
            for case in cases:
                found[case] = ask(partial(start, channel, *case))
                if recorder:
                    recorder.wait_for(len(found))
        return found

    async def on_asyncio() -> None:
        async with aio_connected(*interceptors_, handlers=handlers) as channel:
            for case in cases:
                found[case] = await ask_aio(partial(start, channel, *case))
                if recorder:
                    await asyncio.to_thread(recorder.wait_for, len(found))

    asyncio.run(on_asyncio())
    return found


def errors_of(recorder: Recorder) -> list[str | None]:
    """Return the names of the exceptions that are reported."""
    return [type(outcome.error).__name__ if outcome.error else None for outcome in recorder.outcomes]


@pytest.mark.parametrize("style", ["sync", "aio", "plain"])
@ORDERS
def test_what_is_chosen(style: str, order: str) -> None:
    """A handler that sets a status before it raises has chosen it only with both a code and a text."""
    recorder = Recorder()
    raises = raising_aio if style == "aio" else raising
    services = {name: of_each_arity(partial(raises, act)) for name, act in ACTS.items()}
    alone = ask_each(style, services)
    ours = interceptors(style, order, recorder)
    found = ask_each(style, services, *ours, recorder=recorder if "ours" in order else None)
    hidden = {(name, arity): ACTS[name].hidden for name, arity in alone}

    assert (hidden if "hiding" in order else alone) == found
    if order == "hiding, ours":
        assert [ACTS[name].reported for name, _ in found] == errors_of(recorder)
    if order in ("ours", "ours, hiding"):
        assert [status.code for status in found.values()] == recorder.codes


class Wrapped(NamedTuple):
    """How an abort leaves a handler, and the exception that is reported."""

    leave: Callable[[Exception], Any]
    reported: str | None = None


class Unlucky(Exception):  # noqa: N818 - not an error of ours
    """What a handler raises in place of an abort."""


def again(abort: Exception) -> Any:
    """Raise it again."""
    raise abort


def from_it(abort: Exception) -> Any:
    """Raise another one from it."""
    raise Unlucky("from it") from abort


def from_what_is_from_it(abort: Exception) -> Any:
    """Raise a third one from that."""
    try:
        from_it(abort)
    except Unlucky as error:
        raise KeyError("from that") from error


def in_a_group(abort: Exception) -> Any:
    """Raise a group of it alone."""
    raise ExceptionGroup("tasks", [abort])


def in_groups(abort: Exception) -> Any:
    """Raise a group of groups of it, and of what is raised from it."""
    chained = Unlucky("from it")
    chained.__cause__ = abort
    raise ExceptionGroup("tasks", [ExceptionGroup("more", [abort]), chained])


def from_a_group(abort: Exception) -> Any:
    """Raise another one from such a group."""
    raise Unlucky("from it") from ExceptionGroup("tasks", [abort])


def beside_another(abort: Exception) -> Any:
    """Raise a group of it and of what nobody caught."""
    raise ExceptionGroup("tasks", [abort, ValueError("no bread")])


def after_it(abort: Exception) -> Any:
    """Fail while it is being handled."""
    try:
        again(abort)
    finally:
        raise ValueError("no bread")


def swallowed(_abort: Exception) -> Any:
    """Go on as if there were no abort."""
    return b"done"


WAYS = {
    "again": Wrapped(again),
    "from it": Wrapped(from_it),
    "from what is from it": Wrapped(from_what_is_from_it),
    "in a group": Wrapped(in_a_group),
    "in groups": Wrapped(in_groups),
    "from a group": Wrapped(from_a_group),
    "beside another": Wrapped(beside_another, "ExceptionGroup"),
    "after it": Wrapped(after_it, "ValueError"),
    "swallowed": Wrapped(swallowed),
}


def aborting(way: Wrapped, arity: str) -> Any:
    """Return a blocking handler whose abort leaves it in this way."""

    def once(request: Any, context: Any) -> bytes:
        _ = request if isinstance(request, bytes) else list(request)
        try:
            context.abort(grpc.StatusCode.NOT_FOUND, "as asked")
        except Exception as abort:  # noqa: BLE001 - that is what an abort is
            answer: bytes = way.leave(abort)
        return answer

    return of_arity(arity, once)


def aborting_aio(way: Wrapped, arity: str) -> Any:
    """Return an async handler whose abort leaves it in this way."""

    async def once(request: Any, context: Any) -> bytes:
        _ = request if isinstance(request, bytes) else [message async for message in request]
        try:
            await context.abort(grpc.StatusCode.NOT_FOUND, "as asked")
        except grpc.aio.AbortError as abort:
            answer: bytes = way.leave(abort)
        return answer

    return of_arity_aio(arity, once)


@STACKS
@ORDERS
def test_wrapped_abort(stack: str, order: str) -> None:
    """An abort is the call's status however it leaves the handler, hidden or not; other exceptions are reported."""
    recorder = Recorder()
    aborts = aborting if stack == "sync" else aborting_aio
    services = {name: of_each_arity(partial(aborts, way)) for name, way in WAYS.items()}
    ours = interceptors(stack, order, recorder)
    found = ask_each(stack, services, *ours, recorder=recorder if "ours" in order else None)
    cases = list(itertools.product(WAYS, ARITIES))
    reported = cases if "ours" in order else []

    assert dict.fromkeys(cases, Status("NOT_FOUND", "as asked")) == found
    assert [("NOT_FOUND", "as asked")] * len(reported) == [
        (outcome.code.name, outcome.details) for outcome in recorder.outcomes
    ]
    if order != "ours, hiding":  # where an abort in its place may reach ours
        assert [WAYS[name].reported for name, _ in reported] == errors_of(recorder)


@EACH_ARITY
@ORDERS
def test_cut_off_while_its_abort_is_sent(arity: str, order: str) -> None:
    """A call whose caller leaves while its abort is being sent was aborted; its task's cancellation is no exception."""
    recorder = Recorder()

    async def once(request: Any, context: Any) -> bytes:
        _ = request if isinstance(request, bytes) else [message async for message in request]
        task = asyncio.current_task()
        assert task is not None
        task.cancel()  # as grpc does, which the next await raises
        answer: bytes = await context.abort(grpc.StatusCode.NOT_FOUND, "as asked")
        return answer

    behavior = of_arity_aio(arity, once)
    found = status_with("aio", arity, behavior, *interceptors("aio", order, recorder))
    count = 1 if "ours" in order else 0
    recorder.wait_for(count)

    assert Status("NOT_FOUND", "as asked") == found
    assert [("NOT_FOUND", None)] * count == [(outcome.code.name, outcome.error) for outcome in recorder.outcomes]


@EACH_ARITY
@ORDERS
@pytest.mark.parametrize("beside", [False, True])
def test_abort_in_a_task_group(arity: str, order: str, beside: bool) -> None:  # noqa: FBT001 - a parameter
    """An abort in a task group is the call's status too; of its exceptions the other failures alone are reported."""
    recorder = Recorder()

    async def once(_request: Any, context: Any) -> bytes:
        async def abort() -> None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "as asked")

        async def fail() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(PATIENCE)
            raise ValueError("no bread")

        async with asyncio.TaskGroup() as group:
            if beside:
                group.create_task(fail())
            group.create_task(abort())
        return b""

    behavior = of_arity_aio(arity, once)
    found = status_with("aio", arity, behavior, *interceptors("aio", order, recorder))
    count = 1 if "ours" in order else 0
    recorder.wait_for(count)

    racy = arity in ("client_stream", "bidi_stream") and found.code == "INTERNAL"  # while requests are being written
    assert racy or Status("NOT_FOUND", "as asked") == found
    assert ["NOT_FOUND"] * count == recorder.codes
    errors = [outcome.error for outcome in recorder.outcomes]
    assert [beside] * count == [error is not None for error in errors]
    assert all(isinstance(error, ExceptionGroup) and len(error.exceptions) == 1 for error in errors if error)
