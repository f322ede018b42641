"""Asyncio calls with a stream of responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from .aio import drop_and_cancel
from .aio_call_proxy import AioCallProxy
from .status import carried_by

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .call import ClientCall


class _ResponsesCall(AioCallProxy):
    """
    The responses of a stream; ends as reading it does, or by its status once it is dropped.

    One that is dropped before its end is cancelled, unless somebody's callback waits for that.
    """

    _used_by = "__aiter__"
    _drop = staticmethod(drop_and_cancel)
    is_closed = False  # whether grpc's generator ends without the call

    def __aiter__(self) -> AsyncIterator[Any]:
        """Return what gives the responses."""
        try:
            return _Reader(self, aiter(self._observed), self._observation)
        except grpc.aio.UsageError:
            raise
        except BaseException as error:
            self._observation.raised(error, *carried_by(error))
            raise

    async def read(self) -> Any:
        """Wait for the next response, or grpc.aio.EOF."""
        reading = self._observed.read()
        try:
            response = await reading
        except (grpc.aio.UsageError, NotImplementedError, GeneratorExit):  # the call goes on
            raise
        except BaseException as error:
            self._observation.raised(error, *carried_by(error))
            raise
        if response is grpc.aio.EOF:
            self._observation.stream_ended()
        else:
            self._observation.received += 1
            if self._observation.reports_messages:
                self._observation.message_received(response)
        return response


class _Reader:
    """What gives the responses of a stream: grpc's own generator, whose end is seen; it keeps the call."""

    def __init__(self, call: _ResponsesCall, responses: Any, observation: ClientCall) -> None:
        self._call = call
        self._responses = responses
        self._observation = observation

    def __getattr__(self, name: str) -> Any:
        return getattr(self._responses, name)

    def __aiter__(self) -> Self:
        return self

    def aclose(self) -> Any:
        """Read no more; the call goes on."""
        self._call.is_closed = True
        return self._responses.aclose()

    async def __anext__(self) -> Any:
        try:
            response = await self._responses.__anext__()
        except StopAsyncIteration:
            if not self._call.is_closed:
                self._observation.stream_ended()
            raise
        except GeneratorExit:  # its waiter goes away, and grpc's generator is closed
            self._call.is_closed = True
            raise
        except BaseException as error:
            self._observation.raised(error, *carried_by(error))
            raise
        self._observation.received += 1
        if self._observation.reports_messages:
            self._observation.message_received(response)
        return response


class UnaryStreamCall(_ResponsesCall, grpc.aio.UnaryStreamCall):  # type: ignore[type-arg]  # as above
    """A server-streaming call."""


class StreamStreamCall(_ResponsesCall, grpc.aio.StreamStreamCall):  # type: ignore[type-arg]  # as above
    """A bidirectional call."""
