"""What asyncio interceptors after ours are given: unchanged requests, and call details of the same type."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio
import pytest

from observability import aio_client_interceptors
from tests.support.aio_interceptors import aio_interceptor
from tests.support.aio_ways import EACH_WAY, aio_observed
from tests.support.recorder import Recorder
from tests.support.rpc import AIO_ECHOES, ARITIES, aio_connected, method, requests
from tests.support.seen import read, seen


class Again:
    """Requests that can be iterated again."""

    total = 2

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"a", b"b"])


class AioAgain:
    """The same for asyncio."""

    total = 2

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"


class Both(Again, AioAgain):
    """Both; grpc.aio takes it for the latter."""


async def generate() -> AsyncIterator[bytes]:
    """Yield requests once."""
    yield b"a"
    yield b"b"


REQUESTS: Final[dict[str, Callable[[], Any]]] = {
    "list": lambda: [b"a", b"b"],
    "tuple": lambda: (b"a", b"b"),
    "iterable": Again,
    "asyncio iterable": AioAgain,
    "both": Both,
    "iterator": lambda: iter([b"a", b"b"]),
    "generator": lambda: (one for one in (b"a", b"b")),
    "asyncio generator": generate,
    "nothing to iterate": lambda: 5,
}


class Retries:
    """Makes each call twice, and looks at its requests."""

    def __init__(self, arity: str) -> None:
        self.interceptor = aio_interceptor(arity, self._make_twice)
        self.seen: list[Any] = []
        self._arity = arity

    async def _make_twice(self, continuation: Any, details: Any, request_iterator: Any) -> Any:
        self.seen += [getattr(request_iterator, "total", None), hasattr(request_iterator, "__anext__")]
        first = await continuation(details, request_iterator)
        self.seen.append(await seen(lambda: read(first, self._arity)))
        return await continuation(details, request_iterator)


@EACH_WAY
@pytest.mark.parametrize("arity", ["client_stream", "bidi_stream"])
@pytest.mark.parametrize("kind", REQUESTS)
def test_requests_of_a_second_try(kind: str, arity: str, way: str) -> None:
    """
    An interceptor after ours that makes a call again sends what it would send without us, and all of it is counted.
    """
    recorder = Recorder()

    async def do(way: str) -> Any:
        retries = Retries(arity)
        async with aio_observed(way, *recorder.observers, client=[retries.interceptor], **AIO_ECHOES) as channel:
            call = method(channel, arity)(REQUESTS[kind]())
            return [await seen(lambda: read(call, arity)), retries.seen]

    bare, observed = asyncio.run(do("bare")), asyncio.run(do(way))
    recorder.wait_for()
    again = 2 if kind in ("list", "tuple", "iterable", "asyncio iterable", "both") else 1

    assert bare == observed
    assert [0 if kind == "nothing to iterate" else 2 * again] == [outcome.sent for outcome in recorder.outcomes]


class Marked(grpc.aio.ClientCallDetails):
    """grpc's own, with something more."""

    mark: Any


class Fields(NamedTuple):
    """grpc's fields, and one more."""

    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    mark: Any


class MoreFields(Fields, grpc.ClientCallDetails):
    """Details with a field more."""


class SlottedFields(Fields, grpc.ClientCallDetails):
    """Details with a field more, and with nothing else."""

    __slots__ = ()


@dataclass(frozen=True)
class Frozen(grpc.ClientCallDetails):
    """Details that cannot be changed."""

    method: Any
    timeout: Any
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    mark: Any


class Plain(grpc.ClientCallDetails):
    """Details of another library's class."""

    def __init__(self, *fields: Any) -> None:
        self.method, self.timeout, self.metadata, self.credentials, self.wait_for_ready, self.mark = fields


class Slotted:
    """Details in slots."""

    __slots__ = ("credentials", "mark", "metadata", "method", "timeout", "wait_for_ready")

    def __init__(self, *fields: Any) -> None:
        self.method, self.timeout, self.metadata, self.credentials, self.wait_for_ready, self.mark = fields


class Computed:
    """Details that are computed, and so cannot be had with other metadata."""

    def __init__(self, *fields: Any) -> None:
        self._fields = fields
        self.mark = fields[-1]

    method = property(lambda self: self._fields[0])
    timeout = property(lambda self: self._fields[1])
    metadata = property(lambda self: self._fields[2])
    credentials = property(lambda self: self._fields[3])
    wait_for_ready = property(lambda self: self._fields[4])


class Single:
    """Details of which there are no copies."""

    def __init__(self, *fields: Any) -> None:
        self.method, self.timeout, self.metadata, self.credentials, self.wait_for_ready, self.mark = fields

    def __copy__(self) -> "Single":
        return self


def marked(class_: Any) -> Callable[..., Any]:
    """Return what makes details of grpc's fields, with an attribute more."""

    def make(*fields: Any) -> Any:
        details = class_(*fields[:-1])
        details.mark = fields[-1]
        return details

    return make


DETAILS: Final[dict[str, tuple[Callable[..., Any], Any]]] = {
    "grpc's own": (marked(grpc.aio.ClientCallDetails), grpc.aio.ClientCallDetails),
    "subclass": (marked(Marked), Marked),
    "more fields": (MoreFields, MoreFields),
    "slotted fields": (SlottedFields, SlottedFields),
    "frozen": (Frozen, Frozen),
    "plain": (Plain, Plain),
    "slotted": (Slotted, Slotted),
    "computed": (Computed, grpc.aio.ClientCallDetails),
    "single": (Single, grpc.aio.ClientCallDetails),
}
"""What an interceptor before ours hands on, and what one after ours is given: where it cannot be so, grpc's own."""


class Looks:
    """Changes the details of a call to those of this kind, or looks at what it is given."""

    def __init__(self, arity: str, make: Callable[..., Any] | None = None) -> None:
        self.interceptor = aio_interceptor(arity, self._look)
        self._make = make
        self.given: list[Any] = []
        self.made: list[Any] = []

    async def _look(self, continuation: Any, details: Any, request: Any) -> Any:
        self.given.append(details)
        if self._make is None:
            return await continuation(details, request)
        fields = (details.method, details.timeout, (("key", "value"),), details.credentials, details.wait_for_ready)
        self.made.append(self._make(*fields, "mark"))
        return await continuation(self.made[-1], request)


@pytest.mark.parametrize("arity", ARITIES)
@pytest.mark.parametrize("kind", DETAILS)
def test_details(kind: str, arity: str) -> None:
    """
    Details of another library's type reach an interceptor after ours as that type, with all their attributes.

    Only the metadata is more; those that were handed on are as they were.
    """
    make, type_ = DETAILS[kind]
    recorder, before, after = Recorder(), Looks(arity, make), Looks(arity)

    async def main() -> None:
        interceptors = [before.interceptor, *aio_client_interceptors(*recorder.observers), after.interceptor]
        async with aio_connected(client=interceptors, **AIO_ECHOES) as channel:
            await seen(lambda: read(method(channel, arity)(requests(arity), timeout=60), arity))

    asyncio.run(main())
    [given], [made] = after.given, before.made

    assert type(given) is type_
    assert made.method == given.method
    assert (60, "mark" if type_ is not grpc.aio.ClientCallDetails or kind == "grpc's own" else None) == (
        given.timeout,
        getattr(given, "mark", None),
    )
    assert (("key", "value"),) == made.metadata
    assert ["key", "traceparent"] == [key for key, _value in given.metadata]
    assert ["OK"] == recorder.codes


@pytest.mark.parametrize("arity", ARITIES)
def test_details_of_grpc(arity: str) -> None:
    """Where nobody has changed them, the details are grpc's own, with grpc's metadata."""
    recorder, after = Recorder(), Looks(arity)

    async def main() -> None:
        interceptors = [*aio_client_interceptors(*recorder.observers), after.interceptor]
        async with aio_connected(client=interceptors, **AIO_ECHOES) as channel:
            metadata = (("key", "one"), ("key", "two"))
            await seen(lambda: read(method(channel, arity)(requests(arity), metadata=metadata), arity))

    asyncio.run(main())
    [given] = after.given

    assert type(given) is grpc.aio.ClientCallDetails
    assert type(given.metadata) is grpc.aio.Metadata
    assert ["one", "two"] == given.metadata.get_all("key")
