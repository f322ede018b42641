"""What grpc runs in place of a handler's function, of each kind and on both stacks, with a guard around each run."""

from __future__ import annotations

import contextvars
import inspect
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc

from .context import RecordingContext

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

_logger = logging.getLogger("observability")


class Guard:
    """What stands around one run of a handler, and sees how it ends. This one does nothing."""

    __slots__ = ()

    def run(self, behavior: Callable[..., Any], *args: Any) -> Any:
        """Run a blocking handler with one response, in the thread that it has."""
        return behavior(*args)

    def begin(self) -> None:
        """Report that the handler's responses are about to be iterated."""

    def completed(self) -> None:
        """
        Report that grpc takes what the handler has given for its end.

        Raises Closed where grpc has ended the call.
        """

    def settled(self) -> None:
        """Report that grpc has taken the call's status: whatever is set from now on comes too late."""

    def ended(self) -> None:
        """Report that the handler runs no more."""

    def returned(self) -> None:
        """Report that the handler has returned, which is both."""

    def raised(self, error: BaseException) -> bool:
        """Report that the handler has raised this, or was closed; return whether the guard is to answer it."""
        del error
        return False

    def answer(self) -> Any:
        """
        Answer in place of what was raised.

        Raises, where something has to be raised, or returns; on asyncio, something to await that raises.
        """


class Closed(GeneratorExit):
    """
    Ends the run of a handler whose call grpc.server has ended before, as others close a generator.

    For a handler that returns or raises an Exception, grpc.server would end the call again, and then keep it for ever.
    """


def log_late(error: BaseException) -> None:
    """Log what a handler has raised whose call was over, as grpc does: not an abort, nor that its caller has left."""
    if error.args or not (type(error) is Exception or isinstance(error, grpc.RpcError)):
        _logger.error("a handler has raised after the end of its call", exc_info=error)


UNGUARDED: Final = Guard()
REFUSED: Final = Guard()
"""In place of a run on asyncio: the call has been given the status with which it ends."""
Start: TypeAlias = "Callable[[Any, Any], tuple[Guard, Any]]"
"""Starts a run with this request, or these requests, and this context; returns its guard and the context to hand on."""


def guarded(behavior: Any, start: Start, *, response_streaming: bool) -> Any:
    """Return what a grpc.server runs in place of this behaviour."""
    if not response_streaming:
        return _standing_for(behavior, _once, start)
    # grpc asks this of handlers with a stream of responses alone.
    if not getattr(behavior, "experimental_non_blocking", False):
        return _standing_for(behavior, _stream, start)
    wrapped = _standing_for(behavior, _non_blocking, start)
    wrapped.experimental_non_blocking = True
    return wrapped


def is_blocking(behavior: Any) -> bool:
    """Whether a grpc.aio.server runs this behaviour in a thread."""
    return not (inspect.iscoroutinefunction(behavior) or inspect.isasyncgenfunction(behavior))


def aio_guarded(behavior: Any, start: Start, *, response_streaming: bool) -> Any:
    """Return what a grpc.aio.server runs in place of this behaviour."""
    if inspect.isasyncgenfunction(behavior):
        return _Behavior(_generate, start, behavior)
    if inspect.iscoroutinefunction(behavior):
        return _Behavior(_await, start, behavior)
    return _Behavior(_blocking_stream if response_streaming else _blocking_once, start, behavior)


def _once(start: Start, behavior: Any, request: Any, context: Any) -> Any:
    guard, context = start(request, context)
    try:
        response = behavior(request, context)
    except BaseException as error:
        if not guard.raised(error):
            raise
        return guard.answer()
    guard.returned()
    return response


def _stream(start: Start, behavior: Any, request: Any, context: Any) -> Iterable[Any]:
    guard, context = start(request, context)
    try:
        responses = behavior(request, context)
    except BaseException as error:
        if not guard.raised(error):
            raise
        guard.answer()
        return ()
    return _iterate(guard, responses)


def _iterate(guard: Guard, responses: Iterator[Any]) -> Iterator[Any]:
    """Yield what grpc would get from these responses: it calls next alone, so no __iter__ is asked for."""
    try:
        while True:
            try:
                response = next(responses)
            except StopIteration:
                break
            if response is None:
                guard.completed()  # grpc takes it for the end of the stream
            yield response
    except BaseException as error:
        if not guard.raised(error):
            raise
        guard.answer()
    else:
        guard.returned()


def _non_blocking(start: Start, behavior: Any, request: Any, context: Any, send: Callable[[Any], None]) -> Any:
    completed = False

    def send_response(response: Any) -> None:
        nonlocal completed
        if completed:  # the call is over, and grpc would end it again
            return
        if response is None:
            completed = True
            try:
                guard.completed()
            except Closed:
                return
        send(response)
        if completed:
            guard.settled()

    guard, context = start(request, context)
    try:
        result = behavior(request, context, send_response)
    except BaseException as error:
        answers = guard.raised(error)
        if completed and isinstance(error, Exception):
            log_late(error)
            raise Closed from error
        if not answers:
            raise
        return guard.answer()
    guard.ended()
    return result


async def _await(start: Start, behavior: Any, request: Any, context: Any) -> Any:
    guard, context = start(request, context)
    if guard is REFUSED:
        return None
    try:
        response = await behavior(request, context)
    except BaseException as error:
        if guard.raised(error):
            await guard.answer()
        raise
    guard.returned()
    return response


async def _generate(start: Start, behavior: Any, request: Any, context: Any) -> AsyncIterator[Any]:
    guard, context = start(request, context)
    if guard is REFUSED:
        return
    try:
        async for response in behavior(request, context):
            yield response
    except BaseException as error:
        if guard.raised(error):
            await guard.answer()
        raise
    else:
        guard.returned()


def _blocking_once(start: Start, behavior: Any, request: Any, context: Any) -> Any:
    guard, context = start(request, RecordingContext.of(context))
    if guard is REFUSED:
        return None
    try:
        response = guard.run(behavior, request, context)
    except BaseException as error:
        if not guard.raised(error):
            raise
        return guard.answer()  # which grpc does not look at: the code is not OK
    guard.returned()
    return response


def _blocking_stream(start: Start, behavior: Any, request: Any, context: Any) -> Iterable[Any]:
    """Call the function, as grpc does, in the event loop's thread; what it returns is iterated in another."""
    guard, context = start(request, RecordingContext.of(context))
    if guard is REFUSED:
        return ()
    if not inspect.isgeneratorfunction(behavior):
        guard.begin()  # a generator begins where it is iterated
    try:
        responses = behavior(request, context)
    except BaseException as error:
        if not guard.raised(error):
            raise
        guard.answer()
        return ()
    return _iterate_in(contextvars.copy_context().run, guard, responses)


def _iterate_in(run: Callable[..., Any], guard: Guard, responses: Any) -> Iterator[Any]:
    """Yield these responses; what makes them runs in the context that the function was called in."""
    run(guard.begin)
    try:
        responses = run(iter, responses)
        while True:
            try:
                response = run(next, responses)
            except StopIteration:
                break
            yield response
    except BaseException as error:
        if not guard.raised(error):
            raise
        guard.answer()
    else:
        guard.returned()


_NOT_ASKED_FOR: Final[Any] = None


def _as_behind(name: str) -> Any:
    return property(lambda self: getattr(self.args[-1], name))


class _Behavior(partial[Any]):
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


def _standing_for(behavior: Any, function: Any, start: Start) -> _Behavior:
    """Return what calls this function, with `behavior` as the last of its arguments, and runs where that would run."""
    wrapped = _Behavior(function, start, behavior)
    if (pool := getattr(behavior, "experimental_thread_pool", None)) is not None:
        wrapped.experimental_thread_pool = pool
    return wrapped
