"""What an observer is: whoever is told of each call."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .call import Call, Outcome

    Ended: TypeAlias = "tuple[Call, Any, Outcome]"

Finish: TypeAlias = "Callable[[Outcome], None]"
Observer: TypeAlias = "Callable[[Call], Finish]"


class Signal:
    """
    An observer that is told of more than a call's start and end.

    One serves all calls and keeps nothing of them: what `started` returns is handed to the other methods. What a
    signal does not override costs nothing.
    """

    def __call__(self, call: Call) -> Finish:
        """Be a plain observer."""
        return partial(self.ended, call, self.started(call))

    def started(self, call: Call) -> Any:
        """Be told that a call starts: on a server, on the one thread that serves."""

    def entered(self, call: Call, state: Any) -> None:
        """Be told that a server's handler starts, where it runs and in its context."""

    def left(self, call: Call, state: Any) -> None:
        """Be told that the handler has ended, which may be after the call's own end."""

    def annotated(self, call: Call, state: Any, fields: dict[str, Any]) -> None:
        """Be told of fields that the application has added."""

    def ended(self, call: Call, state: Any, outcome: Outcome) -> None:
        """Be told of the call's true end."""

    def all_ended(self, ended: Sequence[Ended]) -> None:
        """Be told of the ends of many calls, instead; each has a state that `started` has returned."""


class Plain(Signal):
    """Somebody's own observer, a plain function."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.__qualname__ = getattr(observer, "__qualname__", type(observer).__qualname__)

    def started(self, call: Call) -> Finish:
        """Return what the function wants to be called with at the end."""
        return self._observer(call)

    def ended(self, _call: Call, state: Finish, outcome: Outcome) -> None:
        """Call it."""
        state(outcome)
