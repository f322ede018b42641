"""The words in which a case is described: who calls and how, what the handler does, what is sent, what surrounds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from grpc import StatusCode

from .acts import succeed
from .messages import FIRST, LAST

if TYPE_CHECKING:
    from collections.abc import Callable

Arity: TypeAlias = Literal["unary", "client_stream", "server_stream", "bidi_stream"]
End: TypeAlias = Literal[
    "finish",
    "cancel",
    "cancel_task",
    "cancel_late",
    "cancel_at_last",
    "drop",
    "drop_unread",
    "drop_late",
    "stop_server",
    "close_channel",
]
"""What a caller does about its call: `late`, when the server has finished; `at_last`, just before the deadline."""
Obstacle: TypeAlias = Literal["absent", "limited", "pool_busy", "delayed"]
"""Why a handler never starts: the server has no port, no place, no thread, or an interceptor that waits."""
Options: TypeAlias = tuple[tuple[str, int], ...]

ARITIES: Final[tuple[Arity, ...]] = ("unary", "client_stream", "server_stream", "bidi_stream")
ONE_REQUEST: Final[tuple[Arity, ...]] = ("unary", "server_stream")
REQUEST_STREAMS: Final[tuple[Arity, ...]] = ("client_stream", "bidi_stream")
ONE_RESPONSE: Final[tuple[Arity, ...]] = ("unary", "client_stream")
RESPONSE_STREAMS: Final[tuple[Arity, ...]] = ("server_stream", "bidi_stream")


def requests_stream(arity: Arity) -> bool:
    """Return whether requests are a stream."""
    return arity in REQUEST_STREAMS


def responses_stream(arity: Arity) -> bool:
    """Return whether responses are a stream."""
    return arity in RESPONSE_STREAMS


class Way(NamedTuple):
    """How a call is made and served."""

    arity: Arity
    server: str
    client: str


Filter: TypeAlias = "Callable[[Way], bool]"
"""Returns whether a way is left out."""


@dataclass(frozen=True)
class Caller:
    """
    Who calls which method, and how the call ends on this side.

    `end` is what the caller does about its call, `timeout` the seconds until its deadline. `still_writing` is whether
    the call ends while it may still be writing its requests.
    """

    end: End = "finish"
    timeout: float | None = None
    method: str = "Method"
    still_writing: bool = False

    @property
    def interrupts(self) -> bool:
        """Whether it does something in the middle of its call, rather than read it to its end."""
        return self.cancels or self.drops

    @property
    def cancels(self) -> bool:
        """Whether it cancels its call by the call itself."""
        return self.end in ("cancel", "cancel_late", "cancel_at_last")

    @property
    def drops(self) -> bool:
        """Whether it lets go of its call."""
        return self.end in ("drop", "drop_unread", "drop_late")


@dataclass(frozen=True)
class Handler:
    """What a handler does between its first message and its last; `serialises` is whether it has a serialiser."""

    act: Callable[[Any, Any], Any] = succeed
    serialises: bool = True


@dataclass(frozen=True)
class Messages:
    """
    What is sent: a `request`, or a stream of it and a `second` one; a `last` response, after a `first` in a stream.

    An `endless` stream goes on until the call is over, and its handler reads one of its requests.
    """

    request: Any = FIRST
    second: Any = FIRST
    endless: bool = False
    first: Any = FIRST
    last: Any = LAST


@dataclass(frozen=True)
class Environment:
    """What surrounds the call: what keeps its handler from starting, what hides exceptions, and limits of size."""

    obstacle: Obstacle | None = None
    hides_exceptions: bool = False
    server_options: Options = ()
    channel_options: Options = ()

    @property
    def waits_unserved(self) -> bool:
        """Whether a call waits for a handler that never starts, so that there is no first message to wait for."""
        return self.obstacle in ("delayed", "pool_busy")


@dataclass(frozen=True)
class Case:
    """
    One outcome, and how it comes to pass.

    `client` and `server` are the codes that each side reports, None where it never sees the call; `error` is whether
    the server reports an exception. It comes to pass on each of its arities, on every way but those that a filter of
    `without` leaves out.
    """

    name: str
    says: str
    client: StatusCode | None
    server: StatusCode | None
    error: bool = False
    caller: Caller = field(default_factory=Caller)
    handler: Handler = field(default_factory=Handler)
    messages: Messages = field(default_factory=Messages)
    environment: Environment = field(default_factory=Environment)
    arities: tuple[Arity, ...] = ARITIES
    without: tuple[Filter, ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def codes(self) -> dict[str, StatusCode | None]:
        """The codes that the two sides report."""
        return {"client": self.client, "server": self.server}

    @property
    def delivers_all(self) -> bool:
        """Whether all of its plain messages arrive: nothing goes wrong."""
        return {*self.codes.values()} == {StatusCode.OK} and self.messages == Messages()


def agreed(name: str, says: str, code: StatusCode, **how: Any) -> Case:
    """Describe an outcome that both sides report with the same code."""
    return Case(name, says, client=code, server=code, **how)
