"""
What a call of an asyncio channel returns: grpc's own call with its whole interface, whose true end is seen.

grpc's own finalizers cancel calls, and run their done-callbacks, inside garbage collections. So an end by CANCELLED is
deferred (see `finalizers`), and reported at the latest where it is raised to the caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Self

import grpc
import grpc.aio

from ..calls.method import RESPONSE_STREAMS
from ..threads.finalizers import finalizers
from .call import CANCELLED_DETAILS, DROPPED_DETAILS, end_raised

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator

    from ..calls.observation import Observation

_NOT_THERE: Final = (AttributeError, NotImplementedError)
"""What somebody's own call raises for what it has not."""
_GOES_ON: Final = (*_NOT_THERE, grpc.aio.UsageError, asyncio.InvalidStateError, GeneratorExit)
"""What a call raises, or its waiter, that is not its end."""


class _Status(NamedTuple):
    """How a call has ended."""

    code: grpc.StatusCode
    details: str

    def end(self, observation: Observation) -> None:
        """End an observation with it."""
        if self.code is grpc.StatusCode.CANCELLED:
            observation.end_deferred(self.code, self.details)
            return
        if self.code is grpc.StatusCode.OK and observation.type not in RESPONSE_STREAMS:
            observation.received = 1
        observation.end(self.code, self.details)


class _PendingError(Exception):
    """A call has no answer yet."""


def _now(answer: Coroutine[Any, Any, Any]) -> Any:
    """Return what a call that is over answers at once."""
    try:
        answer.send(None)
    except StopIteration as settled:
        return settled.value
    answer.close()
    raise _PendingError


def _status(call: Any) -> _Status | None:
    """
    Return the status that a call has got, or None where it has none, or shows none: it may be anybody's.

    Raises what an interceptor raised, if the call has ended so.
    """
    try:
        if not call.done():
            return None
        code, details = _now(call.code()), _now(call.details())
    except (*_NOT_THERE, _PendingError):
        return None
    return _Status(code, details or "") if isinstance(code, grpc.StatusCode) else None


def _end(observation: Observation, call: Any) -> None:
    """End an observation as its call has ended, if it shows that. Never raises: grpc's callbacks must not."""
    try:
        status = _status(call)
    except Exception as error:  # noqa: BLE001 - it is how the call has ended
        end_raised(observation, error)
        return
    if status is not None:
        status.end(observation)


def _end_at_last(observation: Observation, call: Any) -> None:
    """End an observation as its call has ended, or as dropped."""
    _end(observation, call)
    _end_dropped(observation)


def _in_loop(loop: asyncio.AbstractEventLoop | None, action: Callable[[], object]) -> bool:
    """Let an event loop run this soon; return False if it is closed, or there is none."""
    try:
        if loop is not None:
            loop.call_soon_threadsafe(action)
    except RuntimeError:
        return False
    return loop is not None


def _cancel(call: Any) -> None:
    with contextlib.suppress(Exception):  # it may be anybody's, and the event loop closed
        call.cancel()


def _is_bookkeeping(callback: Any) -> bool:
    """Distinguish a caller's done-callback from grpc.aio.Channel's own, which comes through an interceptor's call."""
    inner = callback.args[0] if isinstance(callback, partial) and callback.args else callback
    return isinstance(getattr(inner, "__self__", None), weakref.WeakSet)


def _end_dropped(observation: Observation) -> None:
    """End a call that its caller has dropped, or that shows no other end."""
    observation.end(grpc.StatusCode.CANCELLED, DROPPED_DETAILS)


def _delegate(name: str) -> Any:
    """Return a method that passes this one on to grpc's own call."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._call, name)(*args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"Pass {name} on to grpc's own call."
    return method


class AioCallProxy:
    """
    A call of an asyncio channel, whose end is seen, and whose being dropped.

    grpc's own call does not know it, but by a caller's done-callback, which keeps it until it has been called.
    """

    _used_by: ClassVar[str]
    _bookkeeping: tuple[Callable[[Any], None], ...] = ()

    @classmethod
    def of(cls, result: Any, observation: Observation) -> Any:
        """Return what a call returned with its end seen; what is no call, but somebody's answer, as it is."""
        if hasattr(result, cls._used_by):
            return cls(result, observation)
        _Status(grpc.StatusCode.OK, "").end(observation)
        return result

    def __init__(self, call: Any, observation: Observation) -> None:
        self._call = call
        self._observation = observation
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:  # made before the loop runs
            self._loop = getattr(call, "_loop", None)

    cancelled = _delegate("cancelled")
    code = _delegate("code")
    debug_error_string = _delegate("debug_error_string")
    details = _delegate("details")
    done = _delegate("done")
    initial_metadata = _delegate("initial_metadata")
    time_remaining = _delegate("time_remaining")
    trailing_metadata = _delegate("trailing_metadata")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)  # grpc itself reads _done_writing_flag

    def __repr__(self) -> str:
        return repr(self._call)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """
        Call this with the call when it has ended, and do not take it for dropped until then.

        The channel keeps its own such callback for as long as it lives; a call that it alone waits for is dropped.
        """
        if _is_bookkeeping(callback):
            self._bookkeeping += (callback,)
            self._call.add_done_callback(partial(_done, weakref.ref(self)))
        else:
            self._call.add_done_callback(lambda _call: callback(self))

    def keep_books(self) -> None:
        """Let the channel forget the call."""
        callbacks, self._bookkeeping = self._bookkeeping, ()
        for callback in callbacks:
            callback(self)

    def cancel(self) -> bool:
        """Cancel the call."""
        result: bool = self._call.cancel()
        if result:
            self._observation.end_deferred(grpc.StatusCode.CANCELLED, CANCELLED_DETAILS)
        return result

    def wait_for_connection(self) -> Coroutine[Any, Any, None]:
        """Wait until the request is sent."""
        return self._observed(self._call.wait_for_connection())

    def done_writing(self) -> Coroutine[Any, Any, None]:
        """End the requests."""
        return self._observed(self._call.done_writing())

    async def write(self, request: Any) -> None:
        """Send a request."""
        self._observation.sent += 1
        try:
            await self._call.write(request)
        except BaseException as error:
            self._observation.sent -= 1
            self._raised(error)
            raise

    async def _observed(self, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except BaseException as error:
            self._raised(error)
            raise

    def _raised(self, error: BaseException) -> None:
        """End the call with what its caller is about to see raised, unless it goes on after that."""
        if isinstance(error, asyncio.CancelledError):
            _end(self._observation, self._call)
        elif not isinstance(error, _GOES_ON):
            end_raised(self._observation, error)

    def __del__(self) -> None:
        """Be dropped."""
        if not self._observation.ended:
            finalizers.defer(partial(self._drop, self._call, self._observation, self._loop))

    @staticmethod
    def _drop(call: Any, observation: Observation, loop: asyncio.AbstractEventLoop | None) -> None:
        """End a call that nobody has any more; in the finalizers' thread, which grpc's calls do not know."""
        raise NotImplementedError


def _done(reference: weakref.ref[AioCallProxy], _call: Any) -> None:
    call = reference()
    if call is not None:
        call.keep_books()


class _SingleResponseCall(AioCallProxy):
    """A call with a single response; ends as awaiting it does. One that is dropped goes on, as grpc's own does."""

    _used_by = "__await__"

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the response."""
        try:
            response = yield from self._call.__await__()
        except GeneratorExit:  # its waiter goes away; the call goes on
            raise
        except BaseException as error:
            end_raised(self._observation, error)
            raise
        if not self._observation.ended:
            self._observation.received = 1
            self._observation.end(grpc.StatusCode.OK)
        return response

    @staticmethod
    def _drop(call: Any, observation: Observation, loop: asyncio.AbstractEventLoop | None) -> None:
        _end(observation, call)
        if not observation.ended and not _in_loop(loop, partial(_follow, observation, call)):
            _end_dropped(observation)


def _follow(observation: Observation, call: Any) -> None:
    """End an observation when its call ends."""
    try:
        call.add_done_callback(partial(_end_at_last, observation))
    except Exception:  # noqa: BLE001 - it is somebody's own, and shows no end
        _end_dropped(observation)


def _drop_and_cancel(call: Any, observation: Observation, loop: asyncio.AbstractEventLoop | None) -> None:
    """End a call that nobody has any more, and cancel it on the wire if it is not over."""
    _end(observation, call)
    if not observation.ended:
        _end_dropped(observation)
        if not _in_loop(loop, partial(_cancel, call)):
            _cancel(call)


class UnaryUnaryCall(_SingleResponseCall, grpc.aio.UnaryUnaryCall):  # type: ignore[type-arg]  # generic in the stubs alone
    """A unary call; ends when grpc's own does."""

    def __init__(self, call: Any, observation: Observation) -> None:
        super().__init__(call, observation)
        ended = partial(_end, observation)
        try:
            call.add_done_callback(ended)
        except Exception:  # noqa: BLE001 - that of an interceptor's own response has no callbacks, and is over
            ended(call)


class StreamUnaryCall(_SingleResponseCall, grpc.aio.StreamUnaryCall):  # type: ignore[type-arg]  # as above
    """
    A client-streaming call; ends as awaiting it does, or by its status once it is dropped.

    Not before: as long as requests are still being written grpc may call any end INTERNAL, for a moment or for good.
    """


class InterceptedStreamUnaryCall(StreamUnaryCall):
    """
    The same for interceptors, whose call is cancelled when it is dropped, as grpc's own of that kind is.

    One before ours that waits for the code, as the official one does, leaves nobody to cancel it when its caller does.
    """

    _drop = staticmethod(_drop_and_cancel)


InterceptedStreamUnaryCall.__name__ = StreamUnaryCall.__name__  # as grpc's own is called


class _ResponsesCall(AioCallProxy):
    """
    The responses of a stream; ends as reading it does, or by its status once it is dropped.

    One that is dropped before its end is cancelled, unless somebody's callback waits for that.
    """

    _used_by = "__aiter__"
    is_closed = False  # whether grpc's generator ends without the call

    def __aiter__(self) -> AsyncIterator[Any]:
        """Return what gives the responses."""
        try:
            return _Reader(self, aiter(self._call), self._observation)
        except grpc.aio.UsageError:
            raise
        except BaseException as error:
            end_raised(self._observation, error)
            raise

    async def read(self) -> Any:
        """Wait for the next response, or grpc.aio.EOF."""
        reading = self._call.read()
        try:
            response = await reading
        except (grpc.aio.UsageError, NotImplementedError, GeneratorExit):  # the call goes on
            raise
        except BaseException as error:
            end_raised(self._observation, error)
            raise
        if response is grpc.aio.EOF:
            self._observation.end(grpc.StatusCode.OK)
        else:
            self._observation.received += 1
        return response

    _drop = staticmethod(_drop_and_cancel)


class _Reader:
    """What gives the responses of a stream: grpc's own generator, whose end is seen; it keeps the call."""

    def __init__(self, call: _ResponsesCall, responses: Any, observation: Observation) -> None:
        self._call = call
        self._responses = responses
        self._observation = observation

    def __getattr__(self, name: str) -> Any:
        return getattr(self._responses, name)

    def __aiter__(self) -> Self:
        return self

    def aclose(self) -> Any:
        """Read no more; the call goes on."""
        self._call.is_closed = True
        return self._responses.aclose()

    async def __anext__(self) -> Any:
        try:
            response = await self._responses.__anext__()
        except StopAsyncIteration:
            if not self._call.is_closed:
                self._observation.end(grpc.StatusCode.OK)
            raise
        except GeneratorExit:  # its waiter goes away, and grpc's generator is closed
            self._call.is_closed = True
            raise
        except BaseException as error:
            end_raised(self._observation, error)
            raise
        self._observation.received += 1
        return response


class UnaryStreamCall(_ResponsesCall, grpc.aio.UnaryStreamCall):  # type: ignore[type-arg]  # as above
    """A server-streaming call."""


class StreamStreamCall(_ResponsesCall, grpc.aio.StreamStreamCall):  # type: ignore[type-arg]  # as above
    """A bidirectional call."""
