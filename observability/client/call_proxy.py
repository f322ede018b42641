"""What stands for a sync call: one of the same kind with its whole interface, whose end is seen."""

from __future__ import annotations

import types
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import grpc

from ..threads.finalizers import finalizers
from .sync import report_dropped, report_end_if_over

if TYPE_CHECKING:
    from collections.abc import Callable

    from .call import ClientCall


class OptionalMethod:
    """
    A method of a proxy's that is there where the call itself has it, and only there.

    Others ask `hasattr` to know what kind of call they have, so it cannot be a mere method.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, proxy: Any, owner: type) -> Any:
        if proxy is None:
            return self
        getattr(proxy._observed, self._name)  # noqa: SLF001 - its own; raises AttributeError where there is none
        return types.MethodType(self._function, proxy)


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

    def __init__(self, call: Any, observation: ClientCall) -> None:
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
            finalizers.defer(partial(report_dropped, [self._observed], observation, observation.seconds))

    @OptionalMethod
    def add_done_callback(self, fn: Callable[[Any], None]) -> Any:
        """Have this called with the call, which is this one for its caller, when it has ended."""
        return self._observed.add_done_callback(_DoneCallback(fn, self))

    @OptionalMethod
    def exception(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the call's end; return what its result raises, which is the call itself where it is grpc's."""
        try:
            error = self._observed.exception(*args, **kwargs)
        finally:
            self._check_end()
        return self if error is self._observed else error

    @OptionalMethod
    def result(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the call's end; return its response, or raise: grpc's own call raises itself."""
        try:
            response = self._observed.result(*args, **kwargs)
        except Exception as error:
            self._raised(error)
            if error is not self._observed:
                raise
        else:
            self._returned(response)
            return response
        raise self.with_traceback(taken_traceback(self._observed))

    @OptionalMethod
    def code(self) -> Any:
        """Wait for the call's end, and return its status code."""
        code = self._observed.code()
        self._check_end(over=isinstance(code, grpc.StatusCode))
        return code

    @OptionalMethod
    def cancel(self, *args: Any, **kwargs: Any) -> Any:
        """Cancel the call."""
        return self._pass_on(self._observed.cancel, *args, **kwargs)

    @OptionalMethod
    def debug_error_string(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the call's end, and return what grpc's core says of it."""
        return self._pass_on(self._observed.debug_error_string, *args, **kwargs)

    @OptionalMethod
    def details(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the call's end, and return its details."""
        return self._pass_on(self._observed.details, *args, **kwargs)

    @OptionalMethod
    def traceback(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the call's end, and return the traceback of what its result raises."""
        return self._pass_on(self._observed.traceback, *args, **kwargs)

    @OptionalMethod
    def trailing_metadata(self, *args: Any, **kwargs: Any) -> Any:
        """Wait for the call's end, and return its trailing metadata."""
        return self._pass_on(self._observed.trailing_metadata, *args, **kwargs)

    def _pass_on(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what a method of the call's returns, after which the call may be over."""
        try:
            return method(*args, **kwargs)
        finally:
            self._check_end()

    def _returned(self, response: Any) -> None:
        del response
        self._check_end()

    def _raised(self, error: Exception) -> None:
        del error
        self._check_end()

    def _check_end(self, *, over: bool = False) -> None:
        """
        Let the observation end if the call is `over`, or says so, soon: a finalizer of somebody's may ask, or cancel.

        Who waits for a message meanwhile will see the end himself.
        """
        observation = self._observation
        if not self._reading and not observation.ended:
            finalizers.defer(partial(report_end_if_over, self._observed, observation, observation.seconds, over=over))


class _DoneCallback:
    """Calls back with what stands for a call, where grpc calls back with its own."""

    def __init__(self, fn: Callable[[Any], None], call: CallProxy) -> None:
        self._fn = fn
        self._call = call

    def __call__(self, _call: Any) -> None:
        self._call._check_end()  # noqa: SLF001 - its own; who is called back sees the end
        self._fn(self._call)

    def __repr__(self) -> str:
        return repr(self._fn)  # which grpc logs when it raises


def taken_traceback(error: BaseException) -> types.TracebackType | None:
    """Take its traceback from an exception that another one is raised in place of: no cycle is to keep it."""
    traceback, error.__traceback__ = error.__traceback__, None
    return traceback
