"""The future of a sync call with one response."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from .call import raised_end
from .call_proxy import CallProxy
from .proxy_class import class_of
from .sync import OK, call_at_end, end_future, end_of, is_over, reference, report

if TYPE_CHECKING:
    from ..calls.observation import Observation


def observe_unary_call(call: Any, observation: Observation) -> Any:
    """Return a call with one response, its end seen; one that is over, or has no result, is returned as it is."""
    if is_over(call) or not hasattr(call, "result"):
        report(observation, end_of(call))
        return call
    type_: Any = type(call)
    future = class_of(ObservedFuture, type_)(call, observation)
    call_at_end(call, partial(end_future, reference(call), observation))
    return future


class ObservedFuture(CallProxy):
    """The future of a call with one response; ends when grpc's own does, or with its result."""

    def _returned(self) -> None:
        if not self._observation.ended:
            report(self._observation, OK)

    def _raised(self, error: Exception) -> None:
        waited_in_vain = isinstance(error, grpc.FutureTimeoutError | TimeoutError) and not is_over(self._observed)
        if not waited_in_vain and not self._observation.ended:
            report(self._observation, raised_end(error))
