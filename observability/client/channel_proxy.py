"""What observed channels of both stacks share: what makes the callable of a method, and what every callable has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from .start import ClientObserving

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..calls.method import Method, Type
    from .call import ClientCall


class ObservedCallable:
    """What calls one method, around a channel's own callable, and has what that one has."""

    def __init__(
        self, observed: Any, method: Method, enabled: Callable[[], bool], start: Callable[..., tuple[ClientCall, Any]]
    ) -> None:
        self._observed = observed
        self._descriptor = method
        self._enabled = enabled
        self._start = start

    def __getattr__(self, name: str) -> Any:
        return getattr(self._observed, name)


class ChannelProxy(ClientObserving):
    """Stands around another channel, and has what that one has; its callables are of these `_callables`."""

    _observed: Any
    _callables: ClassVar[Mapping[Type, type[ObservedCallable]]]
    makes_way: ClassVar[bool] = False
    """Whether it is nobody's own choice: one that is put around it stands around the channel inside."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._observed, name)

    def unary_unary(
        self,
        method: str | bytes,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - grpc's own signature
    ) -> Any:
        """Return the callable of a unary method."""
        made = self._observed.unary_unary(
            method, request_serializer, response_deserializer, *_if_registered(_registered_method)
        )
        return self._callable(made, method, "unary")

    def unary_stream(
        self,
        method: str | bytes,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - grpc's own signature
    ) -> Any:
        """Return the callable of a server-streaming method."""
        made = self._observed.unary_stream(
            method, request_serializer, response_deserializer, *_if_registered(_registered_method)
        )
        return self._callable(made, method, "server_stream")

    def stream_unary(
        self,
        method: str | bytes,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - grpc's own signature
    ) -> Any:
        """Return the callable of a client-streaming method."""
        made = self._observed.stream_unary(
            method, request_serializer, response_deserializer, *_if_registered(_registered_method)
        )
        return self._callable(made, method, "client_stream")

    def stream_stream(
        self,
        method: str | bytes,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - grpc's own signature
    ) -> Any:
        """Return the callable of a bidirectional method."""
        made = self._observed.stream_stream(
            method, request_serializer, response_deserializer, *_if_registered(_registered_method)
        )
        return self._callable(made, method, "bidi_stream")

    def _callable(self, observed: Any, method: str | bytes, type_: Type) -> ObservedCallable:
        """Return what calls a method of this arity, around what the channel inside has made."""
        return self._callables[type_](observed, self._method(method, type_), self._enabled, self._start)


def chosen_channel(channel: Any) -> Any:
    """Return this channel, or the one inside of it where it makes way."""
    return channel._observed if isinstance(channel, ChannelProxy) and channel.makes_way else channel  # noqa: SLF001 - ours


def _if_registered(registered: bool | None) -> tuple[bool, ...]:  # noqa: FBT001 - as grpc passes it
    """Return the last argument where it is given: other people's channels may not know it."""
    return (True,) if registered else ()
