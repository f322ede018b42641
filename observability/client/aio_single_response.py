"""Asyncio calls with a single response."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from .aio import drop_and_cancel, follow, report_end, report_response_and_end
from .aio_call_proxy import AioCallProxy
from .status import carried_by

if TYPE_CHECKING:
    from collections.abc import Generator

    from .call import ClientCall


class _SingleResponseCall(AioCallProxy):
    """A call with a single response; ends as awaiting it does. One that is dropped goes on, as grpc's own does."""

    _used_by = "__await__"
    _drop = staticmethod(follow)

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the response."""
        try:
            response = yield from self._observed.__await__()
        except GeneratorExit:  # its waiter goes away; the call goes on
            raise
        except BaseException as error:
            self._observation.raised(error, *carried_by(error))
            raise
        self._observation.answered(response)
        return response


class UnaryUnaryCall(_SingleResponseCall, grpc.aio.UnaryUnaryCall):  # type: ignore[type-arg]  # generic in the stubs alone
    """A unary call; ends when grpc's own does."""

    def __init__(self, call: Any, observation: ClientCall) -> None:
        super().__init__(call, observation)
        ended = partial(report_response_and_end if observation.reports_messages else report_end, observation)
        try:
            call.add_done_callback(ended)
        except Exception:  # noqa: BLE001 - that of an interceptor's own response has no callbacks, and is over
            ended(call)


class StreamUnaryCall(_SingleResponseCall, grpc.aio.StreamUnaryCall):  # type: ignore[type-arg]  # as above
    """
    A client-streaming call; ends as awaiting it does, or by its status once it is dropped.

    Not before: as long as requests are still being written grpc may call any end INTERNAL, for a moment or for good.
    """


class InterceptedStreamUnaryCall(StreamUnaryCall):
    """
    The same for interceptors, whose call is cancelled when it is dropped, as grpc's own of that kind is.

    One before ours that waits for the code, as the official one does, leaves nobody to cancel it when its caller does.
    """

    _drop = staticmethod(drop_and_cancel)


InterceptedStreamUnaryCall.__name__ = StreamUnaryCall.__name__  # as grpc's own is called
