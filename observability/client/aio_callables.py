"""
What calls a method through an observed asyncio channel, made once for each method.

The call is made with exactly what the caller gave: other people's callables may not know all of grpc's options, and
what does not fit grpc's signature is for grpc to refuse.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar, Final

import grpc.aio

from .aio_responses import StreamStreamCall, UnaryStreamCall
from .aio_single_response import StreamUnaryCall, UnaryUnaryCall
from .channel_proxy import ObservedCallable
from .details import aio_metadata
from .status import carried_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..calls.method import Type
    from .aio_call_proxy import AioCallProxy


class _MultiCallable(ObservedCallable):
    """What calls one method of an asyncio channel, with the arguments of grpc's own class beside it."""

    __signature__: ClassVar[inspect.Signature]
    """That of grpc's own, which inspect reads."""
    _result: ClassVar[type[AioCallProxy]]
    """What stands for the call."""
    _request: ClassVar[str]
    """The name of the first argument: a request, or what iterates requests."""
    _request_is_optional: ClassVar[bool]
    _by_place: ClassVar[tuple[str, ...]]
    """The names of the arguments that may be given by place."""

    def __init_subclass__(cls, result: type[AioCallProxy]) -> None:
        # Read from grpc, not written: which arguments there are, and which go by place, differs from arity to arity.
        own = inspect.signature(super().__call__)  # type: ignore[misc]  # of grpc's class, which comes next
        arguments = list(own.parameters.values())[1:]
        cls.__signature__ = own.replace(parameters=arguments)
        cls._result = result
        cls._request = arguments[0].name
        cls._request_is_optional = arguments[0].default is None
        cls._by_place = tuple(one.name for one in arguments if one.kind is one.POSITIONAL_OR_KEYWORD)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Make the call."""
        first = self._request
        given = {**named, **dict(zip(self._by_place, arguments, strict=False))}
        wrong = len(given) < len(named) + len(arguments) or not (self._request_is_optional or first in given)
        if wrong or not self._enabled():
            return self._observed(*arguments, **named)  # which says what is wrong with them
        metadata = given.get("metadata")
        call, request = self._start(self._descriptor, given.pop(first, None), metadata, given.get("timeout"))
        if call.metadata or metadata is not None:
            given["metadata"] = aio_metadata(call, metadata)
        try:
            result = self._observed(request, **given)
        except BaseException as error:
            call.raised(error, *carried_by(error))
            raise
        return self._result.of(result, call)


class UnaryUnaryMultiCallable(_MultiCallable, grpc.aio.UnaryUnaryMultiCallable, result=UnaryUnaryCall):  # type: ignore[type-arg]
    """What calls a unary method."""


class UnaryStreamMultiCallable(_MultiCallable, grpc.aio.UnaryStreamMultiCallable, result=UnaryStreamCall):  # type: ignore[type-arg]
    """What calls a server-streaming method."""


class StreamUnaryMultiCallable(_MultiCallable, grpc.aio.StreamUnaryMultiCallable, result=StreamUnaryCall):  # type: ignore[type-arg]
    """What calls a client-streaming method."""


class StreamStreamMultiCallable(_MultiCallable, grpc.aio.StreamStreamMultiCallable, result=StreamStreamCall):  # type: ignore[type-arg]
    """What calls a bidirectional method."""


CALLABLES: Final[Mapping[Type, type[ObservedCallable]]] = {
    "unary": UnaryUnaryMultiCallable,
    "server_stream": UnaryStreamMultiCallable,
    "client_stream": StreamUnaryMultiCallable,
    "bidi_stream": StreamStreamMultiCallable,
}
"""What calls a method, by its arity."""
