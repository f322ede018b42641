"""The client's side: from what a call's result shows to its Observation; the interceptor for grpc's channels."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import grpc

from ..calls.method import METHOD_LIMIT, REQUEST_STREAMS, RESPONSE_STREAMS, method_at
from ..calls.observation import Observation, skip_when_context_empty
from ..calls.observers import Observers
from .call import end_raised
from .sync import observe_stream, observe_unary_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..calls.method import Method, Type
    from ..calls.observer import Observer


class Observing:
    """What the client interceptors of both stacks and the observed channel share."""

    def __init__(self, *observers: Observer, target: str | None = None) -> None:
        # Imported here: it reads OTEL_PROPAGATORS, and raises for a bad one that Telemetry.start leaves out.
        from opentelemetry.instrumentation.utils import is_instrumentation_enabled  # noqa: PLC0415

        self._enabled = skip_when_context_empty(is_instrumentation_enabled)
        self._observers = Observers.of(observers)
        self._target = target
        self._methods: dict[Any, Method] = {}

    def _begin(self, method: Method, metadata: Any, timeout: float | None) -> Observation:
        """Start the observation of a call; what is no metadata is raised as grpc raises it, and reported."""
        started, started_ns = time.perf_counter(), time.time_ns()
        try:
            metadata = list(metadata or ())
        except Exception as error:
            call = Observation(method, "client", [], self._observers, started, started_ns, timeout, self._target)
            end_raised(call, error)
            raise
        return Observation(method, "client", metadata, self._observers, started, started_ns, timeout, self._target)

    def _known(self, path: str | bytes, type_: Type) -> Method:
        return self._methods.get(path) or self._register(path, type_)

    def _register(self, path: str | bytes, type_: Type) -> Method:
        method = method_at(path.decode() if isinstance(path, bytes) else path, type_)
        if len(self._methods) < METHOD_LIMIT:
            self._methods[path] = method
        return method


def makes(name: str, class_: type, type_: Type) -> Any:
    """Make what makes the callables of one arity, of this class, for a channel around another one."""

    def method(
        self: Any,
        method: str | bytes,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - grpc's own signature
    ) -> Any:
        registered = (True,) if _registered_method else ()  # which other people's channels may not know
        observed = getattr(self._observed, name)(method, request_serializer, response_deserializer, *registered)
        return self._callable(class_, observed, self._known(method, type_), type_)

    method.__name__ = name
    method.__doc__ = f"Return the callable of a {name} method."
    return method


def _details_with(details: Any, metadata: Any) -> Any:
    """Return such details with this metadata; of an interceptor's own kind they stay, with what they have and lack."""
    try:
        if isinstance(details, tuple):
            return details._replace(metadata=metadata)  # type: ignore[attr-defined]  # grpc's own are named
        changed = copy.copy(details)
        _ = changed.metadata  # what they lack, grpc takes from those that the caller made
        object.__setattr__(changed, "metadata", metadata)
    except Exception:  # noqa: BLE001 - then the call goes through, without what is ours
        return details
    return changed


class SentRequests:
    """The requests of a stream, counted as they are handed on; iterated as often as they can be, and as they are."""

    def __init__(self, requests: Any, call: Observation) -> None:
        self._requests = requests
        self._call = call

    def __iter__(self) -> Iterator[Any]:
        iterator = iter(self._requests)
        return self if iterator is self._requests else SentRequests(iterator, self._call)

    def __next__(self) -> Any:
        request = next(self._requests)  # grpc asks for no more than this
        self._call.sent += 1
        return request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._requests, name)


class _SentSequence(SentRequests, Sequence[Any]):
    """Requests that are a list, of which an interceptor after ours may ask more than to be iterated."""

    def __len__(self) -> int:
        return len(self._requests)

    def __getitem__(self, index: Any) -> Any:
        return self._requests[index]


def count_sent(call: Observation, requests: Any) -> SentRequests:
    """Return these requests, counted as they are handed on."""
    return (_SentSequence if isinstance(requests, Sequence) else SentRequests)(requests, call)


class ClientInterceptor(
    Observing,
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """
    Reports to these observers every call made through a channel of grpc.intercept_channel.

    `target` is the channel's address, which grpc does not show to interceptors.
    """

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Observe a unary call."""
        return self._call(continuation, client_call_details, request, "unary")

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Observe a client-streaming call."""
        return self._call(continuation, client_call_details, request_iterator, "client_stream")

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Observe a server-streaming call."""
        return self._call(continuation, client_call_details, request, "server_stream")

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Observe a bidirectional call."""
        return self._call(continuation, client_call_details, request_iterator, "bidi_stream")

    def _call(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any, type_: Type) -> Any:
        if not self._enabled():
            return continuation(details, request)
        metadata = getattr(details, "metadata", None)
        call = self._begin(self._known(details.method, type_), metadata, getattr(details, "timeout", None))
        if type_ in REQUEST_STREAMS:
            request = count_sent(call, request)
        else:
            call.sent = 1
        try:
            result = continuation(_details_with(details, call.metadata), request)
        except BaseException as error:
            end_raised(call, error)
            raise
        if isinstance(result, grpc.RpcError) and not hasattr(result, "result"):
            end_raised(call, result)
            raise result  # an interceptor after us has raised it: grpc returns it, and would ask it for its result
        return (observe_stream if type_ in RESPONSE_STREAMS else observe_unary_call)(result, call)
