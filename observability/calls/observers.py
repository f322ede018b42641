"""The observers of one interceptor, called in order at each moment of a call, their failures isolated."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..threads.finalizers import finalizers
from .errors import record_error
from .observer import LifecycleObserver, PlainObserver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .call import Call, Outcome
    from .observer import Observer

_FAILED: Final = object()
"""The state of an observer whose on_start has failed: it is not called again for that call."""

Hooks: TypeAlias = "tuple[tuple[int, Callable[..., Any]], ...]"
"""One method of each observer that overrides it, with the observer's place."""


def _isolate(source: Any, error: BaseException) -> None:
    """
    Record what an observer raised, whatever it is: grpc's callbacks must not raise, on pain of callers that wait.

    An interrupt in the main thread goes on: a signal's handler has raised it, and the process is to end.
    """
    interrupt = isinstance(error, KeyboardInterrupt | SystemExit)
    if interrupt and threading.current_thread() is threading.main_thread():
        raise error
    record_error(source)


class Observers(LifecycleObserver):
    """
    Observers as one, each called in the order given.

    What one of them raises is recorded, and changes nothing for the call or the others.
    """

    def __init__(self, *observers: Observer) -> None:
        finalizers.start()
        self._all = tuple(one if isinstance(one, LifecycleObserver) else PlainObserver(one) for one in observers)
        self._start_hooks = self._hooks("on_start")
        self.handler_start_hooks = self._hooks("on_handler_start")
        self.handler_end_hooks = self._hooks("on_handler_end")
        self.sent_hooks = self._hooks("on_message_sent")
        self.received_hooks = self._hooks("on_message_received")
        self._annotate_hooks = self._hooks("on_annotate")
        self._end_hooks = self._hooks("on_end")
        self._end_batch_hooks = dict(self._hooks("on_end_batch"))

    @classmethod
    def of(cls, observers: Sequence[Observer]) -> Observers:
        """Return these observers as one: the one that they are already, or a new one."""
        first = observers[0] if len(observers) == 1 else None
        return first if isinstance(first, Observers) else cls(*observers)

    @property
    def see_messages(self) -> bool:
        """Whether any of them observes messages."""
        return bool(self.sent_hooks or self.received_hooks)

    def _hooks(self, name: str) -> Hooks:
        """Return this method of each observer that overrides it."""
        return tuple(
            (place, getattr(one, name))
            for place, one in enumerate(self._all)
            if getattr(type(one), name) is not getattr(LifecycleObserver, name)
        )

    def new_states(self) -> list[Any]:
        """Return the states of a call of which no observer has seen the start."""
        return [None] * len(self._all)

    def on_start(self, call: Call) -> list[Any]:
        """Call each observer's on_start; return the states."""
        states = self.new_states()
        self.start(call, states)
        return states

    def start(self, call: Call, states: list[Any]) -> None:
        """Call each observer's on_start, and fill in the states: an observer may annotate the call there already."""
        for place, on_start in self._start_hooks:
            try:
                states[place] = on_start(call)
            except BaseException as error:  # noqa: BLE001 - telemetry never changes a call
                states[place] = _FAILED
                _isolate(self._all[place], error)

    def on_handler_start(self, call: Call, state: list[Any]) -> None:
        """Call each observer's on_handler_start."""
        self.call_hooks(self.handler_start_hooks, state, call)

    def on_handler_end(self, call: Call, state: list[Any]) -> None:
        """Call each observer's on_handler_end."""
        self.call_hooks(self.handler_end_hooks, state, call)

    def on_message_sent(self, call: Call, state: list[Any], message: Any) -> None:
        """Call each observer's on_message_sent."""
        self.call_hooks(self.sent_hooks, state, call, message)

    def on_message_received(self, call: Call, state: list[Any], message: Any) -> None:
        """Call each observer's on_message_received."""
        self.call_hooks(self.received_hooks, state, call, message)

    def on_annotate(self, call: Call, state: list[Any], fields: dict[str, Any]) -> None:
        """Call each observer's on_annotate."""
        self.call_hooks(self._annotate_hooks, state, call, fields)

    def on_end(self, call: Call, state: list[Any], outcome: Outcome) -> None:
        """Call each observer's on_end."""
        self.call_hooks(self._end_hooks, state, call, outcome)

    def on_end_batch(self, ended: Sequence[tuple[Call, list[Any], Outcome]]) -> None:
        """Report many ends, all to one observer before the next: the processor's caches hold one."""
        for place, on_end in self._end_hooks:
            seen = [(call, states[place], outcome) for call, states, outcome in ended if states[place] is not _FAILED]
            on_end_batch = self._end_batch_hooks.get(place)
            if on_end_batch is not None:
                self._call(place, on_end_batch, seen)
            else:
                for one in seen:
                    self._call(place, on_end, *one)

    def call_hooks(self, hooks: Hooks, states: list[Any], call: Call, *arguments: Any) -> None:
        """Call these methods of the observers, each with its state."""
        for place, hook in hooks:
            state = states[place]
            if state is not _FAILED:
                try:  # here: a method for it would cost as much as most hooks do
                    hook(call, state, *arguments)
                except BaseException as error:  # noqa: BLE001 - as in start
                    _isolate(self._all[place], error)

    def _call(self, place: int, hook: Callable[..., Any], *arguments: Any) -> None:
        try:
            hook(*arguments)
        except BaseException as error:  # noqa: BLE001 - as in start
            _isolate(self._all[place], error)
