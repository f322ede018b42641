"""What is told of calls: the observers of one interceptor, at every moment that they ask for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..threads.finalizers import finalizers
from .errors import report
from .observer import Plain, Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .call import Call, Outcome
    from .observer import Observer

    Ended: TypeAlias = "tuple[Call, Any, Outcome]"


_FAILED: Final = object()
"""Stands for what a signal returns whose start has failed: it is told no more of that call."""


def _caught(source: Any, error: BaseException) -> None:
    """
    Report what an observer raised, whatever it is: grpc's callbacks must not raise, on pain of callers that wait.

    An interrupt in the main thread goes on: a signal's handler has raised it, and the process is to end.
    """
    interrupt = isinstance(error, KeyboardInterrupt | SystemExit)
    if interrupt and threading.current_thread() is threading.main_thread():
        raise error
    report(source)


_Whom: TypeAlias = "tuple[tuple[int, Callable[..., Any]], ...]"


class Signals(Signal):
    """
    Observers as one, told of each call in their order.

    What one of them raises is reported, and changes nothing for the call or the others.
    """

    def __init__(self, *observers: Observer) -> None:
        finalizers.start()
        self._all = tuple(one if isinstance(one, Signal) else Plain(one) for one in observers)
        self._starting = self._who("started")
        self.entering = self._who("entered")
        self.leaving = self._who("left")
        self._annotating = self._who("annotated")
        self._ending = self._who("ended")
        self._all_ending = dict(self._who("all_ended"))

    @classmethod
    def of(cls, observers: Sequence[Observer]) -> Signals:
        """Take observers that are one already as they are, and make one of any others."""
        first = observers[0] if len(observers) == 1 else None
        return first if isinstance(first, Signals) else cls(*observers)

    def _who(self, moment: str) -> _Whom:
        """Find the methods of those who want to be told of a moment, and their places."""
        return tuple(
            (place, getattr(one, moment))
            for place, one in enumerate(self._all)
            if getattr(type(one), moment) is not getattr(Signal, moment)
        )

    def started(self, call: Call) -> list[Any]:
        """Tell of a call's start; return what each observer keeps of it."""
        states = self.nothing()
        self.start(call, states)
        return states

    def nothing(self) -> list[Any]:
        """Make what is kept of a call whose start nobody has been told of."""
        return [None] * len(self._all)

    def start(self, call: Call, states: list[Any]) -> None:
        """Tell of a call's start, and fill what is kept of it."""
        for place, started in self._starting:
            try:
                states[place] = started(call)
            except BaseException as error:  # noqa: BLE001 - telemetry never changes a call
                states[place] = _FAILED
                _caught(self._all[place], error)

    def entered(self, call: Call, state: list[Any]) -> None:
        """Tell that the handler starts."""
        self.tell(self.entering, state, call)

    def left(self, call: Call, state: list[Any]) -> None:
        """Tell that the handler has ended."""
        self.tell(self.leaving, state, call)

    def annotated(self, call: Call, state: list[Any], fields: dict[str, Any]) -> None:
        """Tell of fields that the application has added."""
        self.tell(self._annotating, state, call, fields)

    def ended(self, call: Call, state: list[Any], outcome: Outcome) -> None:
        """Tell of the end."""
        self.tell(self._ending, state, call, outcome)

    def all_ended(self, ended: Sequence[tuple[Call, list[Any], Outcome]]) -> None:
        """Tell of the ends of many calls, all to one observer before the next: the processor's caches hold one."""
        for place, tell in self._ending:
            known = [(call, states[place], outcome) for call, states, outcome in ended if states[place] is not _FAILED]
            tell_all = self._all_ending.get(place)
            if tell_all is not None:
                self._told(place, tell_all, known)
            else:
                for one in known:
                    self._told(place, tell, *one)

    def tell(self, whom: _Whom, states: list[Any], call: Call, *what: Any) -> None:
        """Tell some of the observers."""
        for place, tell in whom:
            state = states[place]
            if state is not _FAILED:
                self._told(place, tell, call, state, *what)

    def _told(self, place: int, tell: Callable[..., Any], *what: Any) -> None:
        try:
            tell(*what)
        except BaseException as error:  # noqa: BLE001 - as in started
            _caught(self._all[place], error)
