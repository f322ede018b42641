"""The server's side: from what grpc shows of a call to its Observation, sync and asyncio."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
import grpc.aio

from .call import (
    CUT_OFF_DETAILS,
    Call,
    Observation,
    Observer,
    deadline_of,
    final_code,
    set_current_call,
    status_code,
    unserved_code,
)
from .handlers import PlainContext, WrappedHandler, each, is_abort
from .method import METHOD_LIMIT, arity, method_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from types import TracebackType

    from .method import Method

_ELSEWHERE_DETAILS: Final = "Ended before its handler started, by another interceptor"
_LIMIT_DETAILS: Final = "Concurrent RPC limit exceeded!"
_PARSE_DETAILS: Final = "Exception deserializing request!"
_SERIALIZE_DETAILS: Final = "Failed to serialize response!"
_UNKNOWN_METHOD_DETAILS: Final = "Method not found!"

_letting_go: Final = threading.Lock()


class _OverContext:
    """Stands for grpc's context once a call is over, for a handler that outlives it."""

    def code(self) -> None:
        """Tell that no code can be chosen any more."""

    def is_active(self) -> bool:
        """Tell that nobody waits."""
        return False

    def done(self) -> bool:
        """Tell that it is over."""
        return True

    def time_remaining(self) -> float:
        """Tell that no time is left."""
        return 0.0


_OVER: Final = _OverContext()


class _ServedCall(WrappedHandler):
    """
    One call on the server: the handler that grpc runs, and what it learns of the call's end while it does.

    `_answer` is the status that grpc sends by itself for how the handler ended, None until it has ended; `_returned`
    is the one for a handler that returns, UNKNOWN as long as an only response is not serialised: an interceptor
    before us may fail in between. `_refusal` is grpc's own status for a message that cannot be parsed or serialised.
    """

    __slots__ = (
        "_accepted",
        "_answer",
        "_behavior",
        "_context",
        "_deserializer",
        "_error",
        "_observation",
        "_refusal",
        "_refusal_details",
        "_remaining",
        "_returned",
        "_running",
        "_seconds",
        "_serializer",
        "call",
    )

    message_failure: grpc.StatusCode
    """What grpc answers when a message cannot be parsed or serialised."""
    none_fails: bool
    """Whether grpc takes None for such a failure, from a function that parses or serialises."""
    numbers: bool
    """Whether grpc takes a number for a status code."""

    def __init__(self, handler: grpc.RpcMethodHandler[Any, Any], observation: Observation) -> None:
        super().__init__(handler)
        self.call = observation.call
        self._observation = observation
        self._accepted = False
        self._context: Any = None
        self._answer: grpc.StatusCode | None = None
        self._returned = grpc.StatusCode.OK
        self._refusal: grpc.StatusCode | None = None
        self._refusal_details = ""
        self._error: BaseException | None = None
        self._remaining: float | None = None
        self._running = False
        self._seconds: float | None = None

    @property
    def request_streaming(self) -> bool:  # type: ignore[override]  # as in WrappedHandler
        """Whether requests are a stream; the first thing that grpc asks of a call that it does not refuse."""
        self._accepted = True
        return cast("bool", self._handler.request_streaming)

    @property
    def response_streaming(self) -> bool:  # type: ignore[override]  # as in WrappedHandler
        """Whether responses are a stream."""
        self._accepted = True
        return cast("bool", self._handler.response_streaming)

    @property
    def request_deserializer(self) -> Any:  # type: ignore[override]  # as in WrappedHandler
        """From bytes to a request, counted."""
        self._deserializer = self._handler.request_deserializer
        return self._deserialize

    @property
    def response_serializer(self) -> Any:  # type: ignore[override]  # as in WrappedHandler
        """From a response to bytes, counted."""
        self._serializer = self._handler.response_serializer
        if self._handler.response_streaming:
            return self._serialize
        self._returned = grpc.StatusCode.UNKNOWN
        return self._serialize_only

    def _deserialize(self, data: bytes) -> Any:
        try:
            request = self._deserializer(data) if self._deserializer else data
        except BaseException:
            self._refuse_request()
            raise
        if request is None and self.none_fails:
            self._refuse_request()
        else:
            self.call.received += 1
        return request

    def _serialize(self, response: Any) -> Any:
        try:
            data = self._serializer(response) if self._serializer else response
        except BaseException as error:
            self._refuse(_SERIALIZE_DETAILS, error)
            raise
        if data is None and self.none_fails:
            self._refuse(_SERIALIZE_DETAILS)
        else:
            self.call.sent += 1
        return data

    def _serialize_only(self, response: Any) -> Any:
        """Serialise a call's only response, with which it ends."""
        data = self._serialize(response)
        if self._refusal is None and (self._answer is not None or self._alive()):
            # Even where the handler raised: an interceptor before us has turned that into a response.
            self._error = None
            self._decide(grpc.StatusCode.OK)
        return data

    def _decide(self, answer: grpc.StatusCode) -> None:
        """Note how grpc answers, and when: its callback comes later, as soon as its thread has a turn."""
        self._answer, self._seconds = answer, self._observation.seconds

    def _refuse_request(self) -> None:
        self._refuse(_PARSE_DETAILS)

    def _refuse(self, details: str, error: BaseException | None = None) -> None:
        if self._alive():
            self._refusal, self._refusal_details, self._error = self.message_failure, details, error

    def _enter(self, context: Any) -> None:
        """Learn what only the handler's context tells, and tell that the handler starts."""
        call = self.call
        self._context = context
        waited = self._observation.seconds
        remaining = deadline_of(context.time_remaining())
        call.peer = self._peer(context)
        call.deadline = None if remaining is None else remaining + waited
        call.queue_seconds = waited
        self._running = True
        call.entered()

    def _peer(self, context: Any) -> str | None:
        """Tell who called."""
        return cast("str", context.peer())

    def _leave(self) -> None:
        if self._running:
            self._running = False
            self.call.left()

    def __enter__(self) -> None:
        """Start what runs in the handler; __exit__ sees how it ends, in every kind of function."""

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Note how the handler ended."""
        if error is None:
            self._completed()
        elif not isinstance(error, GeneratorExit):
            self._failed(error)
        self._leave()

    def _completed(self) -> None:
        if self._alive():
            self._decide(self._returned)

    def _failed(self, error: BaseException) -> None:
        raise NotImplementedError

    def _alive(self) -> bool:
        """Whether a status can still be sent."""
        raise NotImplementedError

    def _end(self, answer: grpc.StatusCode | None, remaining: float | None) -> None:
        """End the observation, now that grpc has ended the call."""
        context, call = self._context, self.call
        chosen = status_code(context.code(), numbers=self.numbers)
        code = final_code(answer, chosen, call.deadline, remaining)
        details = CUT_OFF_DETAILS[code] if answer is None else _text(context.details()) or self._refusal_details
        error, self._error = self._error, None
        # grpc's context holds our deserialiser, and so this object: a cycle, which would keep the call open.
        self._context = _OVER
        self._observation.end(code, details, error, None if answer is None else self._seconds)

    def _end_unserved(self, *, cut_off: bool) -> None:
        """
        End the observation of a call whose handler never started.

        Where a request was parsed, or requests are a stream, a handler has been called all the same: that of an
        interceptor before us, of whose answer nothing is seen but an only response.
        """
        if self._refusal is not None:
            self._observation.end(self._refusal, self._refusal_details)
        elif self._answer is not None:
            self._observation.end(self._answer, seconds=self._seconds)
        elif not cut_off and self._accepted and (self.call.received or self._handler.request_streaming):
            self._observation.end(grpc.StatusCode.CANCELLED, _ELSEWHERE_DETAILS)
        elif cut_off or self._accepted:
            code = unserved_code(self._observation.seconds)
            self._observation.end(code, CUT_OFF_DETAILS[code])
        else:
            self._observation.end(grpc.StatusCode.RESOURCE_EXHAUSTED, _LIMIT_DETAILS)


def _text(details: bytes | str | None) -> str:
    """Read a status message, which a sync server keeps as bytes."""
    return details.decode("utf-8", "replace") if isinstance(details, bytes) else details or ""


class _SyncCall(_ServedCall):
    """A call on grpc.server."""

    __slots__ = ("_requests", "_unsent")

    message_failure = grpc.StatusCode.INTERNAL
    none_fails = True
    numbers = False

    def _wrapped(self, behavior: Any) -> Any:
        self._accepted, self._behavior = True, behavior
        wrapped: Any = self._stream if self._handler.response_streaming else self._unary
        if getattr(behavior, "experimental_non_blocking", False):
            wrapped = partial(self._non_blocking)
            wrapped.experimental_non_blocking = True
        pool = getattr(behavior, "experimental_thread_pool", None)
        if pool is not None:
            wrapped = wrapped if isinstance(wrapped, partial) else partial(wrapped)
            wrapped.experimental_thread_pool = pool
        return wrapped

    def _start(self, request: Any, context: Any) -> None:
        """Start the handler; its requests are kept where they are grpc's own stream."""
        self._requests = request if type(request).__module__ == "grpc._server" else None
        self._unsent: tuple[Any, Any] | None = None
        self._enter(context)
        if not context.add_callback(self._terminated):
            self._terminated()

    def _unary(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._start(request, context)
        with self:
            return self._behavior(request, context)

    def _stream(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self._start(request, context)
        try:
            responses = self._behavior(request, context)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self._iterate(responses)

    def _iterate(self, responses: Iterator[Any]) -> Iterator[Any]:
        with self:
            for response in each(responses):
                if response is None:
                    self._completed()  # grpc takes it for the end of the stream
                yield response

    def _non_blocking(self, request: Any, context: grpc.ServicerContext, send: Callable[[Any], None]) -> Any:
        def send_response(response: Any) -> None:
            if response is None:
                self._completed()
            send(response)

        self._start(request, context)
        try:
            return self._behavior(request, context, send_response)
        except BaseException as error:
            self._failed(error)
            raise
        finally:
            self._leave()

    def _failed(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            # grpc answers an Exception only; whoever hides exceptions answers this as well, with a status of its own.
            self._error, self._unsent = error, self._status()
        elif self._alive():
            self._decide(grpc.StatusCode.UNKNOWN)
            self._error = None if is_abort(error, self._context) else error

    def _refuse_request(self) -> None:
        """End at once: where a handler answers all the same, grpc never tells of the call's end."""
        super()._refuse_request()
        if self._refusal is None:
            return
        if self._context is None:
            self._end_unserved(cut_off=False)
        else:
            self._end(self._refusal, None)

    def _alive(self) -> bool:
        return self._context is None or cast("bool", self._context.is_active())

    def _terminated(self) -> None:
        """Be called by grpc at the call's true end, on its serving thread."""
        answer = None if self._caller_left() else self._refusal or self._answer
        if answer is None and self._unsent is not None and self._unsent != self._status():
            answer = status_code(self._context.code(), numbers=self.numbers)
        self._end(answer, deadline_of(self._context.time_remaining()))

    def _status(self) -> tuple[Any, Any]:
        """Tell the status that was set, whether it was sent or not."""
        return self._context.code(), self._context.details()

    def _caller_left(self) -> bool:
        """
        Tell whether the caller cancelled before it had the answer, which only its request stream knows.

        For the handler the stream of such a caller may end like any other. Once the call is over, grpc's own
        iterator raises at once for a caller that left, and stops at once for any other.
        """
        requests, self._requests = self._requests, None
        if requests is None:
            return False
        try:
            next(requests, None)
        except grpc.RpcError as error:
            error.__traceback__ = None  # grpc keeps the error, which with its frames would keep the call
            return True
        return False

    def __del__(self) -> None:
        """Be dropped: at once where the handler never ran."""
        self._leave()
        if self._context is None:
            self._end_unserved(cut_off=False)


class _AioCall(_ServedCall):
    """A call on grpc.aio.server."""

    __slots__ = ("_over",)

    message_failure = grpc.StatusCode.UNKNOWN
    none_fails = False
    numbers = True

    def __init__(self, handler: grpc.RpcMethodHandler[Any, Any], observation: Observation) -> None:
        super().__init__(handler, observation)
        self._over = False

    def _wrapped(self, behavior: Any) -> Any:
        self._accepted, self._behavior = True, behavior
        if inspect.isasyncgenfunction(behavior):
            return self._generate
        if inspect.iscoroutinefunction(behavior):
            return self._await
        # A plain function runs in a thread, which the task's context does not reach.
        run = contextvars.copy_context().run
        return partial(self._plain_stream if self._handler.response_streaming else self._plain, run)

    async def _await(self, request: Any, context: Any) -> Any:
        self._enter(context)
        with self:
            return await self._behavior(request, context)

    async def _generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._enter(context)
        with self:
            async for response in self._behavior(request, context):
                yield response

    def _plain(self, run: Callable[..., Any], request: Any, context: Any) -> Any:
        context = PlainContext.of(context)
        run(self._enter, context)
        with self:
            return run(self._behavior, request, context)

    def _plain_stream(self, run: Callable[..., Any], request: Any, context: Any) -> Iterator[Any]:
        context = PlainContext.of(context)
        run(self._enter, context)
        with self:
            responses = run(iter, run(self._behavior, request, context))
            while True:
                try:
                    response = run(next, responses)
                except StopIteration:
                    return
                yield response

    def _peer(self, context: Any) -> str | None:
        # A plain handler's thread may start when its call is over, and asking for the peer then ends the process.
        with _letting_go:
            return None if self._over else super()._peer(context)

    def _completed(self) -> None:
        super()._completed()
        # Here the handler itself reads and writes: a message that failed is no matter where it has gone on without.
        self._refusal, self._refusal_details, self._error = None, "", None

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._remaining = deadline_of(self._context.time_remaining())
        self._decide(grpc.StatusCode.UNKNOWN)
        self._error = None if is_abort(error, self._context) else error

    def _alive(self) -> bool:
        return True  # what the call's task says of its end decides

    def terminated(self, task: asyncio.Task[Any]) -> None:
        """Be called when the RPC's own task is done, which is the call's true end; then grpc lets go of it."""
        with _letting_go:
            self._over = True
        if self._context is None:
            self._end_unserved(cut_off=task.cancelling() > 0)
        elif self._answered(task):
            self._end(self._refusal or self._answer or grpc.StatusCode.OK, None)
        else:
            if not isinstance(self._error, SystemExit):  # with which the event loop ends, and every call
                self._error = None
            remaining = self._remaining
            if remaining is None:
                remaining = deadline_of(self._context.time_remaining())
            self._end(None, remaining)

    def _answered(self, task: asyncio.Task[Any]) -> bool:
        """Tell whether the call has a status, other than being cut off."""
        if isinstance(self._context, PlainContext):
            return not task.cancelling()
        if isinstance(self._error, asyncio.CancelledError) and not task.cancelling():
            return True  # of the handler's own, and never answered
        return cast("bool", self._context.done())

    def __del__(self) -> None:
        """Be dropped, perhaps with a generator that was never run to its end."""
        self._leave()


class _Observing:
    """What both server interceptors share."""

    def __init__(self, *observers: Observer) -> None:
        # Imported here: it reads OTEL_PROPAGATORS, and raises for a bad one that Telemetry.start leaves out.
        from opentelemetry.instrumentation.utils import is_instrumentation_enabled  # noqa: PLC0415

        self._enabled = is_instrumentation_enabled
        self._observers = observers
        self._methods: dict[str, Method] = {}

    def _observe(
        self,
        details: grpc.HandlerCallDetails,
        handler: grpc.RpcMethodHandler[Any, Any] | None,
        started: float,
        started_ns: int,
    ) -> Observation:
        """Start a call's observation; of an unknown method, end it too."""
        method = self._methods.get(details.method) or self._learn(details.method, handler)
        call = Call(method, "server", details.invocation_metadata, started_ns)
        set_current_call(call)
        observation = Observation(call, self._observers, started)
        if handler is None:
            observation.end(grpc.StatusCode.UNIMPLEMENTED, _UNKNOWN_METHOD_DETAILS)
        return observation

    def _observe_failure(
        self, details: grpc.HandlerCallDetails, error: BaseException, started: float, started_ns: int
    ) -> None:
        """
        Tell of a call that has failed, or was cut off, in an interceptor after us, before there was a handler.

        Whether there is one is not known but from an earlier call: any caller can make up a name.
        """
        if not self._enabled():
            return
        method = self._methods.get(details.method) or method_at(details.method, "unary", known=False)
        call = Call(method, "server", details.invocation_metadata, started_ns)
        observation = Observation(call, self._observers, started)
        if isinstance(error, asyncio.CancelledError):
            code = unserved_code(observation.seconds)
            observation.end(code, CUT_OFF_DETAILS[code])
        else:
            observation.end(grpc.StatusCode.UNKNOWN, "", error)

    def _learn(self, path: str, handler: grpc.RpcMethodHandler[Any, Any] | None) -> Method:
        """Take in a method at its first call; of too many, or unknown ones, nothing is kept."""
        if handler is None:
            return method_at(path, "unary", known=False)
        type_ = arity(request_streaming=handler.request_streaming, response_streaming=handler.response_streaming)
        method = method_at(path, type_)
        if len(self._methods) < METHOD_LIMIT:
            self._methods[path] = method
        return method


class ServerInterceptor(_Observing, grpc.ServerInterceptor):
    """
    Tells these observers of every call that a grpc.server serves, refuses or does not know.

    Observers are started in the order given: trace_calls first, so that the others see its ids. Put it before
    other people's interceptors: how one that stands before it answers by itself cannot be seen.
    """

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Observe one call; grpc calls this on its serving thread."""
        started, started_ns = time.perf_counter(), time.time_ns()
        try:
            handler = continuation(handler_call_details)
        except Exception as error:
            self._observe_failure(handler_call_details, error, started, started_ns)
            raise
        if not self._enabled():
            return handler
        observation = self._observe(handler_call_details, handler, started, started_ns)
        return handler and _SyncCall(handler, observation)


class AioServerInterceptor(_Observing, grpc.aio.ServerInterceptor):
    """Tells these observers of every call that a grpc.aio.server serves, refuses or does not know."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Observe one call; grpc awaits this in the call's own task."""
        started, started_ns = time.perf_counter(), time.time_ns()
        try:
            handler = await continuation(handler_call_details)
        except (Exception, asyncio.CancelledError) as error:
            self._observe_failure(handler_call_details, error, started, started_ns)
            raise
        if not self._enabled():
            return handler
        observation = self._observe(handler_call_details, handler, started, started_ns)
        if handler is None:
            return None
        served = _AioCall(handler, observation)
        cast("asyncio.Task[Any]", asyncio.current_task()).add_done_callback(served.terminated)
        return served
