"""Method handlers that stand before others."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

# grpc's own handlers are named tuples, which others unpack, index and _replace.
_Tuple: Final[Any] = type(grpc.unary_unary_rpc_method_handler(cast("Any", None)))
_Wrapped = TypeVar("_Wrapped", bound="HandlerProxy")


class HandlerProxy(grpc.RpcMethodHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """
    A method handler that stands before another one and reads from it only what grpc reads, when grpc reads it.

    grpc looks at nothing of a handler whose call it refuses (maximum_concurrent_rpcs), which is how that is seen. To
    anybody else it is a named tuple, as grpc's own handlers are; see `standing_before` for those that are not.
    """

    __slots__ = ("_handler",)

    _fields = _Tuple._fields

    def __init__(self, handler: grpc.RpcMethodHandler[Any, Any]) -> None:
        self._handler: Any = handler

    def _wrapped(self, behavior: Any) -> Any:
        """Return what grpc shall call instead of this behaviour; never called with None."""
        raise NotImplementedError

    @property
    def request_streaming(self) -> bool:  # type: ignore[override]  # read-only here, and nobody sets it
        """Whether requests are a stream."""
        return cast("bool", self._handler.request_streaming)

    @property
    def response_streaming(self) -> bool:  # type: ignore[override]  # read-only here, and nobody sets it
        """Whether responses are a stream."""
        return cast("bool", self._handler.response_streaming)

    @property
    def request_deserializer(self) -> Any:  # type: ignore[override]  # as above
        """From bytes to a request."""
        return self._handler.request_deserializer

    @property
    def response_serializer(self) -> Any:  # type: ignore[override]  # as above
        """From a response to bytes."""
        return self._handler.response_serializer

    @property
    def unary_unary(self) -> Any:  # type: ignore[override]  # as above
        """The behaviour of a unary method, or None."""
        behavior = self._handler.unary_unary
        return None if behavior is None else self._wrapped(behavior)

    @property
    def unary_stream(self) -> Any:  # type: ignore[override]  # as above
        """The behaviour of a server-streaming method, or None."""
        behavior = self._handler.unary_stream
        return None if behavior is None else self._wrapped(behavior)

    @property
    def stream_unary(self) -> Any:  # type: ignore[override]  # as above
        """The behaviour of a client-streaming method, or None."""
        behavior = self._handler.stream_unary
        return None if behavior is None else self._wrapped(behavior)

    @property
    def stream_stream(self) -> Any:  # type: ignore[override]  # as above
        """The behaviour of a bidirectional method, or None."""
        behavior = self._handler.stream_stream
        return None if behavior is None else self._wrapped(behavior)

    def _replace(self, **changes: Any) -> grpc.RpcMethodHandler[Any, Any]:
        """Return a handler of grpc's own with these parts, and ours for the others; what is replaced is not read."""
        parts = [changes.pop(name) if name in changes else getattr(self, name) for name in self._fields]
        return cast("grpc.RpcMethodHandler[Any, Any]", _Tuple._make(parts)._replace(**changes))

    def _asdict(self) -> dict[str, Any]:
        """Return the parts by their names."""
        return dict(zip(self._fields, self, strict=True))

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, name) for name in self._fields)

    def __getitem__(self, index: Any) -> Any:
        return tuple(self)[index]

    def __len__(self) -> int:
        return len(self._fields)


def standing_before(handler: Any, class_: type[_Wrapped]) -> type[_Wrapped]:
    """Return the class of what stands before this handler: with the attributes of one of somebody's own class, too."""
    if isinstance(handler, _Tuple) or (isinstance(handler, HandlerProxy) and not hasattr(type(handler), "__getattr__")):
        return class_
    return _answering(class_)


@cache
def _answering(class_: type[_Wrapped]) -> type[_Wrapped]:
    """Return such a class with __getattr__, which would make each look at grpc's own handlers dearer."""

    def ask_behind(self: Any, name: str) -> Any:
        if name == "_handler":  # of an object that is being copied
            raise AttributeError(name)
        return getattr(self._handler, name)

    return type(class_.__name__, (class_,), {"__slots__": (), "__getattr__": ask_behind})
