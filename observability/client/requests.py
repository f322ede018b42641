"""The requests of a stream, counted as they are sent, and otherwise as their owner made them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .call import ClientCall


class SentRequests:
    """The requests of a stream, counted as they are handed on; iterated as often as they can be, and as they are."""

    def __init__(self, requests: Any, call: ClientCall) -> None:
        self._requests = requests
        self._call = call

    def __iter__(self) -> Iterator[Any]:
        iterator = iter(self._requests)
        return self if iterator is self._requests else SentRequests(iterator, self._call)

    def __next__(self) -> Any:
        request = next(self._requests)  # grpc asks for no more than this
        self._call.sent += 1
        if self._call.reports_messages:
            self._call.message_sent(request)
        return request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._requests, name)


class _SentSequence(SentRequests, Sequence[Any]):
    """Requests that are a list, of which an interceptor after ours may ask more than to be iterated."""

    def __len__(self) -> int:
        return len(self._requests)

    def __getitem__(self, index: Any) -> Any:
        return self._requests[index]


def count_sent(call: ClientCall, requests: Any) -> SentRequests:
    """Return these requests, counted as they are handed on."""
    return _SentSequence(requests, call) if isinstance(requests, Sequence) else SentRequests(requests, call)


def aio_count_sent(call: ClientCall, requests: Any) -> Any:
    """Return these requests, counted as sent; they can be iterated as often as before."""
    if isinstance(requests, AsyncIterator):
        return _aio_counted(call, requests)
    if isinstance(requests, AsyncIterable):
        return AioSentRequests(call, requests)
    if isinstance(requests, Iterable):
        return count_sent(call, requests)
    return requests  # None is written by hand; grpc says what is wrong with others


async def _aio_counted(call: ClientCall, requests: AsyncIterable[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        call.sent += 1
        if call.reports_messages:
            call.message_sent(request)
        yield request


class AioSentRequests:
    """Requests that can be iterated again; what is not about iterating is as their owner made it."""

    def __init__(self, call: ClientCall, requests: Any) -> None:
        self._call = call
        self._requests = requests

    def __getattr__(self, name: str) -> Any:
        return getattr(self._requests, name)

    def __aiter__(self) -> AsyncIterator[Any]:
        return _aio_counted(self._call, self._requests)
