"""What an observer is: called at the start of each call, and with its outcome."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .call import Call, Outcome

    EndedCall: TypeAlias = "tuple[Call, Any, Outcome]"

OnEnd: TypeAlias = "Callable[[Outcome], None]"
"""Called once, at the call's true end, by whichever thread ends it."""
Observer: TypeAlias = "Callable[[Call], OnEnd]"
"""Called at the start of each call; returns what is called at its end."""


class LifecycleObserver:
    """
    An observer of more than a call's start and end; derive from it, and override what you need.

    One object serves all calls and keeps nothing of them: what `on_start` returns is passed to the other methods as
    `state`. A method that is not overridden costs nothing. What a method raises is counted and logged once, and changes
    nothing for the call.
    """

    def __call__(self, call: Call) -> OnEnd:
        """Be a plain observer."""
        return partial(self.on_end, call, self.on_start(call))

    def on_start(self, call: Call) -> Any:
        """Return the state to keep of a call that starts; on a server this runs in the one thread that serves."""

    def on_handler_start(self, call: Call, state: Any) -> None:
        """Observe that a server's handler starts, in its thread or task and in its context."""

    def on_handler_end(self, call: Call, state: Any) -> None:
        """Observe that the handler has ended, which may be after the call's own end."""

    def on_message_sent(self, call: Call, state: Any, message: Any) -> None:
        """
        Observe a message that the application hands to grpc; `call.sent` counts it already.

        This runs where the message is serialised, or a stream's request is taken. It is the application's own object,
        which may be changed afterwards.
        """

    def on_message_received(self, call: Call, state: Any, message: Any) -> None:
        """
        Observe a message that is handed to the application; `call.received` counts it already.

        On grpc.server this runs in the one thread that serves, which parses requests.
        """

    def on_annotate(self, call: Call, state: Any, fields: dict[str, Any]) -> None:
        """Observe the fields that the application has added to the call."""

    def on_end(self, call: Call, state: Any, outcome: Outcome) -> None:
        """Observe the call's true end, once."""

    def on_end_batch(self, ended: Sequence[EndedCall]) -> None:
        """Observe the ends of many calls, in place of on_end for each; every one has its own state."""


class PlainObserver(LifecycleObserver):
    """Somebody's own observer, a plain function, as one of the other kind."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.__qualname__ = getattr(observer, "__qualname__", type(observer).__qualname__)

    def on_start(self, call: Call) -> OnEnd:
        """Return what the function wants to be called with the outcome."""
        return self._observer(call)

    def on_end(self, _call: Call, state: OnEnd, outcome: Outcome) -> None:
        """Call it."""
        state(outcome)
