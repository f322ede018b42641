"""The responses of a sync call with a stream of them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .call_proxy import CallProxy, OptionalMethod, taken_traceback
from .proxy_class import CALLS, class_of
from .status import carried_by

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .call import ClientCall


def observe_responses(call: Any, observation: ClientCall) -> Any:
    """Return a stream of responses, its end seen; a list, or what cannot be iterated, is returned as it is."""
    type_: Any = type(call)
    class_ = _class_of_responses(type_)
    if class_ is None:
        with contextlib.suppress(Exception):
            observation.received = len(call)
            for response in call if observation.reports_messages else ():
                observation.message_received(response)
        observation.stream_ended()
        return call
    return class_(call, observation)


class ObservedResponses(CallProxy):
    """
    The responses of a stream; ends as the reader's iterator does, or with the status that its reader asks for.

    A stream that is dropped before has the status that grpc has by then, or is CANCELLED.
    """

    def __iter__(self) -> Iterator[Any]:
        """Return itself, or where the call is no iterator, and may be iterated again, an iterator of it."""
        iterator = iter(self._observed)
        return self if iterator is self._observed else _Iteration(iterator, self._observation, self)

    def __next__(self) -> Any:
        """Wait for the next response."""
        self._reading = True
        try:
            response = next(self._observed)
        except StopIteration:
            self._observation.stream_ended()
            raise
        except Exception as error:
            self._observation.raised(error, *carried_by(error))
            if error is not self._observed:
                raise
        else:
            self._observation.received += 1
            if self._observation.reports_messages:
                self._observation.message_received(response)
            return response
        finally:
            self._reading = False
        raise self.with_traceback(taken_traceback(self._observed))

    @OptionalMethod
    def next(self) -> Any:
        """Wait for the next response, as in Python 2."""
        return self.__next__()


class ObservedIterator(ObservedResponses):
    """Responses that are a mere iterator, such as a generator: nothing is to be asked of it, and it goes at once."""

    def __del__(self) -> None:
        if self._observation is not None:
            self._observation.dropped_deferred()


class _Iteration(ObservedResponses):
    """One iteration of responses that can be iterated, but are no iterator; the call is dropped when they are."""

    def __init__(self, iterator: Iterator[Any], observation: ClientCall, responses: ObservedResponses) -> None:
        super().__init__(iterator, observation)
        self._responses = responses

    def __del__(self) -> None:
        """Leave it to the responses, which go with the last iteration, or later."""


@lru_cache(maxsize=256)
def _class_of_responses(type_: Any) -> type[CallProxy] | None:
    """Return the class of what stands for a stream of this class, or None where nothing is to."""
    if issubclass(type_, CALLS):
        return class_of(ObservedResponses, type_)
    if not hasattr(type_, "__next__") and (issubclass(type_, Collection) or not hasattr(type_, "__iter__")):
        return None  # there as a whole, or none at all: not for a `for` to wait for
    is_asked = any(hasattr(type_, name) for name in ("done", "is_active", "__getattr__"))
    return class_of(ObservedResponses if is_asked else ObservedIterator, type_)
