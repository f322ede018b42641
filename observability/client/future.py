"""The future of a sync call with one response."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from .call_proxy import CallProxy
from .proxy_class import class_of
from .status import carried_by
from .sync import call_at_end, is_over, reference, report_end, report_end_if_kept

if TYPE_CHECKING:
    from .call import ClientCall


def observe_future(call: Any, observation: ClientCall) -> Any:
    """Return a call with one response, its end seen; one that is over, or has no result, is returned as it is."""
    if is_over(call) or not hasattr(call, "result"):
        report_end(call, observation)
        return call
    type_: Any = type(call)
    future = class_of(ObservedFuture, type_)(call, observation)
    call_at_end(call, partial(report_end_if_kept, reference(call), observation))
    return future


class ObservedFuture(CallProxy):
    """Stands for the future of a call with one response; ends when grpc's own does, or with its result."""

    def _returned(self, response: Any) -> None:
        self._observation.answered(response)

    def _raised(self, error: Exception) -> None:
        waited_in_vain = isinstance(error, grpc.FutureTimeoutError | TimeoutError) and not is_over(self._observed)
        if not waited_in_vain and not self._observation.ended:
            self._observation.raised(error, *carried_by(error))
