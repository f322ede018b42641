"""What a call of a sync channel returns: grpc's own call with its whole interface, whose true end is seen."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import grpc

from .results import DROPPED_DETAILS, end_cancelled, end_raised, pass_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from .call import Observation


def end_with(observation: Observation, call: Any) -> None:
    """End a unary call of a sync channel with the status that it has got."""
    code = call.code()
    if code is grpc.StatusCode.OK:
        observation.received = 1
        observation.end(code)
    elif code is grpc.StatusCode.INTERNAL and not isinstance(call.exception(), grpc.RpcError):
        end_raised(observation, call.exception())  # what an interceptor after us raised
    else:
        observation.end(code, call.details() or "")


class _Observed(grpc.Call, grpc.Future):  # type: ignore[type-arg]  # generic in the stubs alone
    """A call of a sync channel, known to grpc's own by nothing, so that dropping it is seen."""

    def __init__(self, call: Any, observation: Observation) -> None:
        self._call = call
        self._observation = observation

    add_callback = pass_on("add_callback")
    cancel = pass_on("cancel")
    cancelled = pass_on("cancelled")
    code = pass_on("code")
    details = pass_on("details")
    done = pass_on("done")
    exception = pass_on("exception")
    initial_metadata = pass_on("initial_metadata")
    is_active = pass_on("is_active")
    result = pass_on("result")
    running = pass_on("running")
    time_remaining = pass_on("time_remaining")
    traceback = pass_on("traceback")
    trailing_metadata = pass_on("trailing_metadata")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Call this with the call when it has ended."""
        self._call.add_done_callback(lambda _call: fn(self))


class Future(_Observed):
    """The future of a unary call; ends when grpc's own does."""

    def __init__(self, call: Any, observation: Observation) -> None:
        super().__init__(call, observation)
        ended = partial(end_with, observation, call)
        if not call.add_callback(ended):
            ended()

    def __del__(self) -> None:
        """Be dropped, and cancel the call if it is still going on, as grpc does."""
        if not self._call.done():
            self._call.cancel()


def future_of(call: Any, observation: Observation) -> Any:
    """Return a unary call of a sync channel with its end seen; one that is over is returned as it is."""
    if call.done():
        end_with(observation, call)
        return call
    return Future(call, observation)


class Responses(_Observed):
    """
    The responses of a stream; ends as the reader's iterator does.

    A stream that is not read to its end is CANCELLED: when it is cancelled, or dropped.
    """

    def __iter__(self) -> Self:
        """Return itself: a stream is read once."""
        return self

    def __next__(self) -> Any:
        """Wait for the next response."""
        try:
            response = next(self._call)
        except StopIteration:
            self._observation.end(grpc.StatusCode.OK)
            raise
        except Exception as error:
            end_raised(self._observation, error)
            raise
        self._observation.received += 1
        return response

    next = __next__

    def cancel(self) -> bool:
        """Cancel the call."""
        result: bool = self._call.cancel()
        if self._call.cancelled():
            end_cancelled(self._observation)
        return result

    def __del__(self) -> None:
        """Be dropped, and cancel the call if it is still going on, as grpc does."""
        with contextlib.suppress(AttributeError):  # others' interceptors make a mere iterator of it
            self._call.cancel()
        end_cancelled(self._observation, DROPPED_DETAILS)
