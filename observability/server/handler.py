"""What grpc runs for a call: method handlers that stand before others, and the behaviours and contexts beside them."""

from __future__ import annotations

from functools import cache, partial
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


_NOT_ASKED_FOR: Final[Any] = None


def _as_behind(name: str) -> Any:
    return property(lambda self: getattr(self.args[-1], name))


class Behavior(partial[Any]):
    """What grpc runs in place of somebody's function, the last of its arguments; to look at, it is that function."""

    # What grpc.server asks of every function, and nearly none has: an AttributeError would cost more than the rest.
    experimental_non_blocking = experimental_thread_pool = _NOT_ASKED_FOR

    # What functools.wraps copies, and a partial has itself.
    __dict__ = _as_behind("__dict__")
    __doc__ = _as_behind("__doc__")
    __module__ = _as_behind("__module__")

    @property
    def __wrapped__(self) -> Any:
        return self.args[-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.args[-1], name)


def standing_for(behavior: Any, function: Any, *args: Any) -> Behavior:
    """Return what calls this function, with `behavior` as the last of its arguments, and runs where that would run."""
    wrapped = Behavior(function, *args, behavior)
    if (pool := getattr(behavior, "experimental_thread_pool", None)) is not None:
        wrapped.experimental_thread_pool = pool
    return wrapped


class RecordingContext:
    """
    A context that remembers the status that the handler sets, around one that does not show it.

    Such are grpc's own for a blocking handler on an asyncio server, and other people's with the abstract methods alone.
    One serves all interceptors of a call, so that each knows what another has set.
    """

    __slots__ = ("_code", "_context", "_details", "_metadata")

    @classmethod
    def of(cls, context: Any) -> RecordingContext:
        """Return such a context: this one, if it is one, else one around it."""
        return context if type(context) is cls else cls(context)

    def __init__(self, context: Any) -> None:
        self._context = context
        self._code: Any = None
        self._details = ""
        self._metadata: Any = None

    @property  # type: ignore[misc]  # nobody sets it
    def __class__(self) -> Any:
        """Be an instance of whatever the context is."""
        return type(self._context)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def code(self) -> Any:
        """Return the status code that the handler set, or None."""
        return self._code

    def details(self) -> str:
        """Return the status message that the handler set."""
        return self._details

    def trailing_metadata(self) -> Any:
        """Return the trailing metadata that the handler set, or None."""
        return self._metadata

    def set_code(self, code: Any) -> None:
        """Set the status code."""
        self._code = code
        self._context.set_code(code)

    def set_details(self, details: str) -> None:
        """Set the status message."""
        self._details = details
        self._context.set_details(details)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Set the trailing metadata."""
        self._context.set_trailing_metadata(trailing_metadata)
        self._metadata = trailing_metadata

    def abort(self, code: Any, *status: Any, **more: Any) -> Any:
        """End the call with this status; always raises, on asyncio when it is awaited."""
        self._abort(code, *status, **more)
        return self._context.abort(code, *status, **more)

    def abort_with_status(self, status: Any) -> Any:
        """End the call with this status object; raises as abort does."""
        self._abort(status.code, status.details, status.trailing_metadata)
        return self._context.abort_with_status(status)

    def _abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> None:
        if code == grpc.StatusCode.OK:  # which is not what an abort ends a call with
            code, details = grpc.StatusCode.UNKNOWN, ""
        self._code, self._details = code, details or self._details
        self._metadata = trailing_metadata or self._metadata


def with_status(context: Any) -> Any:
    """Return this context if it shows the status that the handler has set, else one around it that does."""
    try:
        context.code()
    except Exception:  # noqa: BLE001 - as in ask
        return RecordingContext.of(context)
    return context


def ask(context: Any, question: str, *about: Any) -> Any:
    """Return the answer of this context, which may be anybody's, or None where it has none."""
    try:
        return getattr(context, question)(*about)
    except Exception:  # noqa: BLE001 - those that are not abstract raise NotImplementedError
        return None


def status_in(context: Any) -> tuple[Any, Any, Any]:
    """Return the code, the text and the trailing metadata that this context holds, each None where it has none."""
    try:
        return context.code(), context.details(), context.trailing_metadata()
    except Exception:  # noqa: BLE001 - as in ask
        return ask(context, "code"), ask(context, "details"), ask(context, "trailing_metadata")


def is_around(context: Any, inner: Any) -> bool:
    """Whether this is that context, or the one that remembers its status."""
    return context is inner or (type(context) is RecordingContext and context._context is inner)  # noqa: SLF001 - ours


def iterate(responses: Iterator[Any]) -> Iterator[Any]:
    """Yield what grpc would get from these responses: it calls next alone, so no __iter__ is asked for."""
    while True:
        try:
            response = next(responses)
        except StopIteration:
            return
        yield response
