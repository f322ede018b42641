"""What other libraries' interceptors answer with: less than a call of grpc's, but enough for their callers."""

import concurrent.futures
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc

from tests.support.without_us import Around


class Answering(Around):
    """An interceptor that answers with what a function makes of the call."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        self._change = change

    def answer(self, call: Any) -> Any:
        """Answer so."""
        return self._change(call)


def passes(name: str) -> Any:
    """Make a method that passes this on to the call inside."""
    return lambda self, *arguments: getattr(self._call, name)(*arguments)


def says(answer: Any) -> Any:
    """Make a method that gives this answer, or raises it."""

    def method(_self: Any, *_arguments: Any) -> Any:
        if isinstance(answer, type):
            raise answer
        return answer

    return method


# Streams


class Delegating:
    """A stream that is none of grpc's, but has all that a call has, and is iterated in its own way."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        yield from self._call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


class CallAlone(grpc.Call):
    """A stream that is a grpc.Call and no more."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        return self

    __next__ = passes("__next__")
    add_callback = passes("add_callback")
    cancel = passes("cancel")
    code = passes("code")
    details = passes("details")
    initial_metadata = passes("initial_metadata")
    is_active = passes("is_active")
    time_remaining = passes("time_remaining")
    trailing_metadata = passes("trailing_metadata")


class Kept:
    """A cached stream: it can be iterated again and again."""

    def __init__(self, call: Any) -> None:
        self.kept = list(call)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.kept)


def generate(call: Any) -> Iterator[bytes]:
    """Be a generator of a call's responses."""
    yield from call


ANSWERED_STREAMS: Final[dict[str, Callable[[Any], Any]]] = {
    "list": list,
    "tuple": tuple,
    "list iterator": lambda call: iter(list(call)),
    "map": lambda call: map(bytes, call),
    "generator": generate,
    "iterable": Delegating,
    "cache": Kept,
    "call alone": CallAlone,
}


# Futures


class NoBreadError(Exception):
    """The failure of these futures."""


class WithStatusError(grpc.RpcError):
    """Another library's error: it is no grpc.Call, and has a code."""

    code = says(grpc.StatusCode.NOT_FOUND)


class ResultAlone:
    """A future with nothing but a result."""

    def __init__(self, call: Any) -> None:
        self._call = call

    result = passes("result")


class Pending(ResultAlone, grpc.Future):  # type: ignore[type-arg]  # generic in the stubs alone
    """A future that is not over, and answers no question but for its result."""

    add_done_callback = says(NotImplementedError)
    cancel = passes("cancel")
    cancelled = says(NotImplementedError)
    done = says(answer=False)
    exception = says(NotImplementedError)
    running = says(NotImplementedError)
    traceback = says(NotImplementedError)


class Default(grpc.Future):  # type: ignore[type-arg]  # as above
    """What the classic interceptor with a default value answers with: a future without a status."""

    def __init__(self, _call: Any = None, failure: Exception | None = None) -> None:
        self._failure = failure

    cancel = says(answer=False)
    cancelled = says(answer=False)
    done = says(answer=True)
    running = says(answer=False)
    traceback = says(None)

    def result(self, timeout: float | None = None) -> bytes:
        """Return the default value, or raise the failure."""
        del timeout
        if self._failure:
            raise self._failure
        return b"default"

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Return the failure."""
        del timeout
        return self._failure

    def add_done_callback(self, fn: Any) -> None:
        """Call back at once."""
        fn(self)


def pythons(call: Any) -> concurrent.futures.Future[bytes]:
    """Answer with a future of Python's."""
    future: concurrent.futures.Future[bytes] = concurrent.futures.Future()
    call.add_done_callback(lambda done: future.set_result(done.result()))
    return future


ANSWERED_FUTURES: Final[dict[str, tuple[Callable[[Any], Any], bytes | type[Exception], str]]] = {
    "result alone": (ResultAlone, b"done", "OK"),
    "pending": (Pending, b"done", "OK"),
    "future of Python's": (pythons, b"done", "OK"),
    "default value": (Default, b"default", "OK"),
    "failure": (lambda _call: Default(failure=NoBreadError("no bread")), NoBreadError, "UNKNOWN"),
    "failure with a code": (lambda _call: Default(failure=WithStatusError()), WithStatusError, "NOT_FOUND"),
}
"""Each with what its result is, or raises, and the code that is reported."""
