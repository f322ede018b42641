"""What a call of a sync channel returns: a call of the same kind with its whole interface, whose true end is seen."""

from __future__ import annotations

import contextlib
import types
import weakref
from collections.abc import Collection
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, Self

import grpc

from ..calls.method import RESPONSE_STREAMS
from ..threads.finalizers import finalizers
from .call import DROPPED_DETAILS, raised_end, status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..calls.observation import Observation
    from .call import End

_COLLECTED_DETAILS: Final = "Cancelled upon garbage collection!"
"""What grpc says of a call that it has cancelled because nobody kept it."""
_OK: Final[End] = (grpc.StatusCode.OK, "", None)
_DROPPED: Final[End] = (grpc.StatusCode.CANCELLED, DROPPED_DETAILS, None)


def observe_unary_call(call: Any, observation: Observation) -> Any:
    """Return a call with one response, its end seen; one that is over, or has no result, is returned as it is."""
    if is_over(call) or not hasattr(call, "result"):
        _report(observation, end_of(call))
        return call
    type_: Any = type(call)
    future = _class_of(ObservedFuture, type_)(call, observation)
    _call_at_end(call, partial(_end_future, _reference(call), observation))
    return future


def observe_stream(call: Any, observation: Observation) -> Any:
    """Return a stream of responses, its end seen; a list, or what cannot be iterated, is returned as it is."""
    type_: Any = type(call)
    if _is_complete(type_):
        with contextlib.suppress(Exception):
            observation.received = len(call)
        _report(observation, _OK)
        return call
    return _class_of(ObservedResponses, type_)(call, observation)


def is_over(call: Any) -> bool:
    """Return whether a call says that it is over. Never waits and never raises: a call may have no such method."""
    try:
        return call.done() is True
    except Exception:  # noqa: BLE001 - a grpc.Call alone has none
        try:
            return call.is_active() is False
        except Exception:  # noqa: BLE001 - nor need somebody else's have that, or have it written
            return False


def end_of(call: Any) -> End:
    """Return how a call that is over has ended for its caller: by what its result would raise, if by anything."""
    try:
        error = call.exception()
    except Exception as failure:  # noqa: BLE001 - it is cancelled, or has no such method, or none that is written
        code, details = status_of(call)
        if code is None:
            end = raised_end(failure)
            return end if end[0] is grpc.StatusCode.CANCELLED else _OK
        if code is grpc.StatusCode.OK:
            return _OK
        return code, DROPPED_DETAILS if details == _COLLECTED_DETAILS else details, None
    return raised_end(error) if isinstance(error, BaseException) else _OK


def _report(observation: Observation, end: End, seconds: float | None = None) -> None:
    if end is _OK and observation.type not in RESPONSE_STREAMS:
        observation.received = 1
    observation.end(*end, seconds)


def _end_future(reference: Callable[[], Any], observation: Observation) -> None:
    """End a call when grpc's own does; a caller that drops it before ends it itself."""
    call = reference()
    if call is not None:
        _report(observation, end_of(call))


def _end_if_over(call: Any, observation: Observation, seconds: float, *, over: bool) -> None:
    if over or is_over(call):
        _report(observation, end_of(call), seconds)


def _end_dropped(calls: list[Any], observation: Observation, seconds: float) -> None:
    """End a call that nobody keeps: with the status that it has, if it has one. Takes the last reference to it."""
    call = calls.pop()
    end = end_of(call) if is_over(call) else _DROPPED
    del call  # which cancels it on the wire: grpc's own calls are, when nobody keeps them
    _report(observation, end, seconds)


def _reference(call: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(call)
    except TypeError:
        return lambda: call


def _call_at_end(call: Any, ended: Callable[[], None]) -> None:
    """Have this called when a call ends, if it can be had; grpc's own add_callback keeps nothing of the call alive."""
    try:
        if not call.add_callback(ended) and is_over(call):
            ended()
    except Exception:  # noqa: BLE001 - somebody else's call has no such method, or none that is written
        with contextlib.suppress(Exception):
            call.add_done_callback(lambda _call: ended())


class _Watched:
    """A method of the call's that is watched, which it has where the call itself has one, and only there."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, proxy: Any, owner: type) -> Any:
        if proxy is None:
            return self
        getattr(proxy._observed, self._name)  # noqa: SLF001 - its own; raises AttributeError where there is none
        return types.MethodType(self._function, proxy)


def _then_looked_at(name: str) -> _Watched:
    """Make a method that asks this of the call, after which the call may be over."""

    def method(self: CallProxy, *args: Any, **kwargs: Any) -> Any:
        try:
            return getattr(self._observed, name)(*args, **kwargs)
        finally:
            self._look()

    method.__name__ = name
    method.__doc__ = f"Pass {name} on to the call."
    return _Watched(method)


class CallProxy:
    """
    Stands for a call, is one of the same class, and passes on what it does not watch, attributes of any name included.

    The call knows it by nothing, so that dropping it is seen; a done-callback keeps it, as it keeps grpc's own.
    """

    _observed: Any = None
    _observation: Any = None
    _reading = False

    __setattr__ = object.__setattr__  # the call's class may forbid it

    def __new__(cls, *_args: object) -> Self:
        """Make one without a word to the call's class; an exception would keep the arguments."""
        made: Any = BaseException if issubclass(cls, BaseException) else object
        return made.__new__(cls)  # type: ignore[no-any-return]  # it is one of cls

    def __init__(self, call: Any, observation: Observation) -> None:
        self._observed = call
        self._observation = observation

    def __getattr__(self, name: str) -> Any:
        return getattr(self._observed, name)

    def __repr__(self) -> str:
        return repr(self._observed)

    def __str__(self) -> str:
        return str(self._observed)

    def __del__(self) -> None:
        # Maybe inside a collection: see finalizers. What is deferred knows nothing of this object.
        observation = self._observation
        if observation is not None and not observation.ended:
            finalizers.defer(partial(_end_dropped, [self._observed], observation, observation.seconds))

    @_Watched
    def add_done_callback(self, fn: Callable[[Any], None]) -> Any:
        """Have this called with the call, which is this one for its caller, when it has ended."""
        return self._observed.add_done_callback(_DoneCallback(fn, self))

    @_Watched
    def exception(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the call's end; return what its result raises, which is the call itself where it is grpc's."""
        try:
            error = self._observed.exception(*args, **kwargs)
        finally:
            self._look()
        return self if error is self._observed else error

    @_Watched
    def result(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the call's end; return its response, or raise: grpc's own call raises itself."""
        try:
            response = self._observed.result(*args, **kwargs)
        except Exception as error:
            self._raised(error)
            if error is not self._observed:
                raise
        else:
            self._returned()
            return response
        raise self.with_traceback(_taken_traceback(self._observed))

    @_Watched
    def code(self) -> Any:
        """Wait for the call's end, and return its status code."""
        code = self._observed.code()
        self._look(over=isinstance(code, grpc.StatusCode))
        return code

    cancel = _then_looked_at("cancel")
    debug_error_string = _then_looked_at("debug_error_string")
    details = _then_looked_at("details")
    traceback = _then_looked_at("traceback")
    trailing_metadata = _then_looked_at("trailing_metadata")

    def _returned(self) -> None:
        self._look()

    def _raised(self, error: Exception) -> None:
        del error
        self._look()

    def _look(self, *, over: bool = False) -> None:
        """
        Let the observation end if the call is `over`, or says so, soon: a finalizer of somebody's may ask, or cancel.

        Who waits for a message meanwhile will see the end himself.
        """
        observation = self._observation
        if not self._reading and not observation.ended:
            finalizers.defer(partial(_end_if_over, self._observed, observation, observation.seconds, over=over))


class _DoneCallback:
    """Calls back with what stands for a call, where grpc calls back with its own."""

    def __init__(self, fn: Callable[[Any], None], call: CallProxy) -> None:
        self._fn = fn
        self._call = call

    def __call__(self, _call: Any) -> None:
        self._call._look()  # noqa: SLF001 - its own; who is called back sees the end
        self._fn(self._call)

    def __repr__(self) -> str:
        return repr(self._fn)  # which grpc logs when it raises


def _taken_traceback(error: BaseException) -> types.TracebackType | None:
    """Take its traceback from an exception that another one is raised in place of: no cycle is to keep it."""
    traceback, error.__traceback__ = error.__traceback__, None
    return traceback


class ObservedFuture(CallProxy):
    """The future of a call with one response; ends when grpc's own does, or with its result."""

    def _returned(self) -> None:
        if not self._observation.ended:
            _report(self._observation, _OK)

    def _raised(self, error: Exception) -> None:
        waited_in_vain = isinstance(error, grpc.FutureTimeoutError | TimeoutError) and not is_over(self._observed)
        if not waited_in_vain and not self._observation.ended:
            _report(self._observation, raised_end(error))


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
            self._observation.end(grpc.StatusCode.OK)
            raise
        except Exception as error:
            self._observation.end(*raised_end(error))
            if error is not self._observed:
                raise
        else:
            self._observation.received += 1
            return response
        finally:
            self._reading = False
        raise self.with_traceback(_taken_traceback(self._observed))

    @_Watched
    def next(self) -> Any:
        """Wait for the next response, as in Python 2."""
        return self.__next__()


class ObservedIterator(ObservedResponses):
    """Responses that are a mere iterator, such as a generator: nothing is to be asked of it, and it goes at once."""

    def __del__(self) -> None:
        if self._observation is not None:
            self._observation.end_deferred(grpc.StatusCode.CANCELLED, DROPPED_DETAILS)


class _Iteration(ObservedResponses):
    """One iteration of responses that can be iterated, but are no iterator; the call is dropped when they are."""

    def __init__(self, iterator: Iterator[Any], observation: Observation, responses: ObservedResponses) -> None:
        super().__init__(iterator, observation)
        self._responses = responses

    def __del__(self) -> None:
        """Leave it to the responses, which go with the last iteration, or later."""


_CALLS: Final = (grpc.RpcError, grpc.RpcContext, grpc.Future)


@lru_cache(maxsize=256)
def _is_complete(type_: type) -> bool:
    """Return whether a stream of this class is there as a whole, or none at all: not for a `for` to wait for."""
    if issubclass(type_, _CALLS) or hasattr(type_, "__next__"):
        return False
    return issubclass(type_, Collection) or not hasattr(type_, "__iter__")


@lru_cache(maxsize=256)
def _class_of(kind: type[CallProxy], type_: type) -> type[CallProxy]:
    """
    Return the class of what stands for calls of a class: one of its subclasses, under its name.

    People catch grpc's private classes, log their names and look at how others' differ. All that the class has, the
    call itself does. What is no call is stood for by the mere `kind`.
    """
    if issubclass(type_, kind):
        return type_  # ours stands inside ours
    if not issubclass(type_, _CALLS):
        is_asked = any(hasattr(type_, name) for name in ("done", "is_active", "__getattr__"))
        return ObservedIterator if kind is ObservedResponses and not is_asked else kind
    names = [name for name in set(dir(type_)).difference(dir(kind), dir(BaseException)) if not name.startswith("__")]
    members = {
        "__module__": type_.__module__,
        "__qualname__": type_.__qualname__,
        "__doc__": type_.__doc__,
        **{name: _passed_on(name, is_method=callable(getattr(type_, name, None))) for name in names},
    }
    try:
        made = types.new_class(type_.__name__, (kind, type_), exec_body=lambda namespace: namespace.update(members))
        made(None, None)
    except Exception:  # noqa: BLE001 - a class may forbid subclasses, or be made of something else than Python
        return kind
    return made


def _passed_on(name: str, *, is_method: bool) -> Any:
    """Make what passes a method, or any other attribute, on to the call."""

    def get(self: CallProxy) -> Any:
        return getattr(self._observed, name)

    def put(self: CallProxy, value: Any) -> None:
        setattr(self._observed, name, value)

    def method(self: CallProxy, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._observed, name)(*args, **kwargs)

    method.__name__ = name
    return method if is_method else property(get, put)
