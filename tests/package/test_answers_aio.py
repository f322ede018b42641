"""Asyncio interceptors after ours that answer by themselves: what they return is passed on, and no call stays open."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Final, Self, TypeAlias

import grpc
import grpc.aio
import pytest

from observability import aio_client_interceptors
from tests.support.aio_interceptors import aio_interceptor
from tests.support.aio_ways import EACH_WAY, aio_observed
from tests.support.recorder import Recorder
from tests.support.rpc import AIO_ECHOES, ARITIES, STREAMS, aio_connected, method, requests
from tests.support.seen import read, seen

Answer: TypeAlias = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""What an interceptor returns; it may go on with the call, by what it is given."""

NOT_FOUND: Final = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), grpc.aio.Metadata(), "no bread")


def answering(arity: str, answer: Answer) -> Any:
    """Return an interceptor that answers so."""
    return aio_interceptor(
        arity, lambda continuation, details, request: answer(partial(continuation, details, request))
    )


class Never:
    """Can be awaited, and answers."""

    def __await__(self) -> Any:
        yield from asyncio.sleep(0).__await__()
        return b"own"


class Own(grpc.aio.UnaryUnaryCall, Never):  # type: ignore[type-arg]  # generic in the stubs alone
    """Another library's call, which can be awaited, and little more."""

    def _unable(self, *_args: Any) -> Any:
        raise NotImplementedError

    add_done_callback: Any = _unable
    cancelled = code = details = initial_metadata = time_remaining = trailing_metadata = wait_for_connection = _unable
    __await__ = Never.__await__

    def cancel(self) -> bool:
        """Go on."""
        return False

    def done(self) -> bool:
        """Go on."""
        return False


class Pages:
    """Responses in another library's iterator, which is no generator."""

    def __init__(self) -> None:
        self.left = 2

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise StopAsyncIteration
        return b"page"


class Answers:
    """What interceptors return."""

    @staticmethod
    async def value(_go_on: Any) -> Any:
        """Answer with a plain value."""
        return b"value"

    @staticmethod
    async def own_call(_go_on: Any) -> Any:
        """Answer with a call that can be awaited, and no more."""
        return Own()

    @staticmethod
    async def coroutine(_go_on: Any) -> Any:
        """Answer with what can be awaited once."""
        return asyncio.sleep(0, b"coroutine")

    @staticmethod
    async def future(_go_on: Any) -> Any:
        """Answer with a future that is over."""
        future = asyncio.get_running_loop().create_future()
        future.set_result(b"future")
        return future

    @staticmethod
    async def task(_go_on: Any) -> Any:
        """Answer with one that is not."""
        return asyncio.ensure_future(asyncio.sleep(0, b"task"))

    @staticmethod
    async def awaitable(_go_on: Any) -> Any:
        """Answer with a plain object."""
        return Never()

    @staticmethod
    async def generator(_go_on: Any) -> Any:
        """Answer with a generator."""

        async def generate() -> AsyncIterator[bytes]:
            yield b"one"
            yield b"two"

        return generate()

    @staticmethod
    async def iterator(_go_on: Any) -> Any:
        """Answer with an iterator."""
        return Pages()

    @staticmethod
    async def a_list(_go_on: Any) -> Any:
        """Answer with what cannot be iterated on asyncio."""
        return [b"one"]

    @staticmethod
    async def failing(_go_on: Any) -> Any:
        """Answer with a generator that fails."""

        async def generate() -> AsyncIterator[bytes]:
            yield b"one"
            raise ValueError("no bread")

        return generate()

    @staticmethod
    async def failing_as_a_call(_go_on: Any) -> Any:
        """Answer with a generator that fails as a call does."""

        async def generate() -> AsyncIterator[bytes]:
            yield b"one"
            raise NOT_FOUND

        return generate()

    @staticmethod
    async def changed(go_on: Any) -> Any:
        """Change what the call answers."""
        call = await go_on()

        async def generate() -> AsyncIterator[bytes]:
            async for response in call:
                yield response.upper()

        return generate()

    @staticmethod
    async def first(go_on: Any) -> Any:
        """Answer with the first response alone."""
        call = await go_on()

        async def generate() -> AsyncIterator[bytes]:
            async for response in call:
                yield response
                break

        return generate()

    @staticmethod
    async def raises(_go_on: Any) -> Any:
        """Raise."""
        raise ValueError("no bread")

    @staticmethod
    async def raises_as_a_call(_go_on: Any) -> Any:
        """Raise what a call does."""
        raise NOT_FOUND

    @staticmethod
    async def raises_late(go_on: Any) -> Any:
        """Raise when the call is made."""
        await go_on()
        raise ValueError("no bread")

    @staticmethod
    async def cancels(_go_on: Any) -> Any:
        """Cancel itself."""
        raise asyncio.CancelledError


OK: Final = ("OK", None)
ERROR: Final = ("UNKNOWN", ValueError)
EXPECTED: Final[tuple[tuple[Any, tuple[str, ...], tuple[str, Any]], ...]] = (
    (Answers.value, ("unary",), OK),
    (Answers.own_call, ("unary",), OK),
    (Answers.coroutine, ("client_stream",), OK),
    (Answers.future, ("client_stream",), OK),
    (Answers.task, ("client_stream",), OK),
    (Answers.awaitable, ("client_stream",), OK),
    (Answers.generator, STREAMS, OK),
    (Answers.iterator, STREAMS, OK),
    (Answers.a_list, STREAMS, ("UNKNOWN", AttributeError)),
    (Answers.failing, STREAMS, ERROR),
    (Answers.failing_as_a_call, STREAMS, ("NOT_FOUND", None)),
    (Answers.changed, STREAMS, OK),
    (Answers.first, STREAMS, OK),
    (Answers.raises, ARITIES, ERROR),
    (Answers.raises_as_a_call, ARITIES, ("NOT_FOUND", None)),
    (Answers.raises_late, ARITIES, ERROR),
    (Answers.cancels, ARITIES, ("CANCELLED", None)),
)
CASES: Final = [(answer, arity, outcome) for answer, arities, outcome in EXPECTED for arity in arities]
IDS: Final = [f"{answer.__name__}-{arity}" for answer, arity, _ in CASES]


# grpc takes whatever an interceptor returns for one of its calls, and fails where it cancels that: when it is dropped,
# or the channel is closed.
STUMBLES: Final = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@contextlib.asynccontextmanager
async def answered(way: str, recorder: Recorder, answer: Answer, arity: str) -> AsyncIterator[Any]:
    """Give a method whose calls an interceptor after ours answers."""
    with contextlib.suppress(AttributeError):  # as just said
        async with aio_observed(way, *recorder.observers, client=[answering(arity, answer)], **AIO_ECHOES) as channel:
            yield method(channel, arity)


@EACH_WAY
@STUMBLES
@pytest.mark.parametrize(("answer", "arity", "outcome"), CASES, ids=IDS)
def test_answer(answer: Answer, arity: str, outcome: tuple[str, Any], way: str) -> None:
    """
    What an interceptor after ours returns is what its caller gets, as without us, and the call is reported by that.
    """
    recorder, found = Recorder(), []

    async def do(way: str) -> None:
        async with answered(way, recorder, answer, arity) as callable_:
            found.append(await seen(partial(read, callable_(requests(arity)), arity)))

    asyncio.run(do("bare"))
    asyncio.run(do(way))
    recorder.wait_for()

    assert found[0] == found[1]
    assert [outcome] == [(one.code.name, one.error and type(one.error)) for one in recorder.outcomes]
    assert 0 == recorder.total("grpc_client_in_flight")


@EACH_WAY
@STUMBLES
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")  # which nobody awaits, as it is to be
@pytest.mark.parametrize(("answer", "arity"), [case[:2] for case in CASES], ids=IDS)
def test_dropped_answer(answer: Answer, arity: str, way: str) -> None:
    """
    A call that another interceptor has answered, and that nobody reads, does not stay open.
    """
    recorder = Recorder()

    async def main() -> None:
        async with answered(way, recorder, answer, arity) as callable_:
            call = callable_(requests(arity))
            for _ in range(5):
                await asyncio.sleep(0)
            del call
            gc.collect()
            await asyncio.to_thread(recorder.wait_for)

    asyncio.run(main())

    assert 1 == len(recorder.codes)
    assert 0 == recorder.total("grpc_client_in_flight")


@STUMBLES
def test_value_for_an_interceptor_before_ours() -> None:
    """
    An interceptor before ours is given the very value that one after ours has returned.
    """
    recorder, got = Recorder(), []

    async def look(go_on: Any) -> Any:
        got.append(await go_on())
        return asyncio.ensure_future(asyncio.sleep(0, b"own"))

    async def main() -> Any:
        interceptors: list[Any] = [
            answering("client_stream", look),
            *aio_client_interceptors(*recorder.observers),
            answering("client_stream", Answers.value),
        ]
        async with aio_connected(client=interceptors, **AIO_ECHOES) as channel:
            return await method(channel, "client_stream")(requests("client_stream"))

    assert b"own" == asyncio.run(main())
    assert [b"value"] == got
    assert [["OK"]] * 4 == recorder.everywhere("client")


@pytest.mark.parametrize("arity", ARITIES)
def test_call_for_an_interceptor_before_ours(arity: str) -> None:
    """
    A call that an interceptor before ours is given says what grpc's own says, and is what its callbacks are given.
    """

    async def do(*ours: Any) -> Any:
        kept: list[Any] = []
        given: list[Any] = []

        async def keep(go_on: Any) -> Any:
            call = await go_on()
            kept.append(call)
            call.add_done_callback(given.append)
            return call

        async with aio_connected(client=[answering(arity, keep), *ours], **AIO_ECHOES) as channel:
            await seen(partial(read, method(channel, arity)(requests(arity)), arity))
        [call], [again] = kept, given
        return type(call).__name__, str(call), repr(call), call is again

    bare, observed = asyncio.run(do()), asyncio.run(do(*aio_client_interceptors(*Recorder().observers)))

    assert bare == observed
    assert "StatusCode.OK" in observed[1]
