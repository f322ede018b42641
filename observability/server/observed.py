"""What both stacks show of a call through its handler: the context, and how the handler starts and ends."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

from ..calls.status import finite_deadline
from .behaviors import Closed, Guard, log_late
from .context import (
    OVER,
    PastContext,
    SettledContext,
    ask,
    identity_text,
    is_around,
    seconds_left,
    status_in,
    with_status,
)
from .counting import CountingHandler

if TYPE_CHECKING:
    import grpc

    from .call import ServerCall


class ObservedHandler(CountingHandler, Guard):
    """
    One call's handler, which gives its `call` the events that are seen through it; the guard of its one run.

    `_context` is that of the run, None before, and OVER when the call is reported. `_watched` is whether grpc will
    say when the call is over; if not, it is over for us with its handler. `_runs` counts the runs, perhaps in several
    threads at once.
    """

    __slots__ = ("_context", "_runs", "_watched")

    def __init__(self, handler: grpc.RpcMethodHandler[Any, Any], call: ServerCall) -> None:
        super().__init__(handler, call)
        self._context: Any = None
        self._runs = itertools.count()
        self._watched = True

    def _is_kept(self, context: Any) -> bool:
        """Count a run; return whether an interceptor before us has kept this handler, and runs it for another call."""
        return next(self._runs) > 0 and not is_around(self._context, context)

    def _meet(self, context: Any) -> Any:
        """Learn what only the handler's context shows, which may be anybody's; return the context to hand on."""
        call = self.call
        waited = time.perf_counter() - call.started
        try:
            context.code()
            remaining, (peer, identities) = finite_deadline(context.time_remaining()), self._caller(context)
        except Exception:  # noqa: BLE001 - as in ask
            context = with_status(context)
            remaining = seconds_left(context)
            peer, identities = ask(self, "_caller", context) or (None, None)
        self._context = context
        call.deadline = call.descriptor.usual_deadline = None if remaining is None else remaining + waited
        call.peer = peer if isinstance(peer, str) else None
        if identities:  # of nearly no call without TLS
            call.peer_identity = identity_text(identities)
        return context

    def _caller(self, context: Any) -> tuple[Any, Any]:
        """Return who called: its address, and the names in its certificate, or None where it has shown none."""
        peer = context.peer()
        try:
            return peer, context.peer_identities()
        except Exception:  # noqa: BLE001 - somebody's own context
            return peer, None

    def _remaining(self) -> float | None:
        """Return how many seconds are left until the caller's deadline, or None where the context does not say."""
        return seconds_left(self._context)

    def begin(self) -> None:
        """Report that the handler starts."""
        self.call.handler_started()

    def ended(self) -> None:
        """Report that the handler runs no more."""
        self.call.handler_ended()

    def returned(self) -> None:
        """Report that the handler has returned."""
        ends = self._ends_call()
        awaits_serialization = ends and self._is_active() and self.call.handler_returned()
        if not self._watched:
            if awaits_serialization:
                self._context = PastContext(self._context)
            else:
                self._conclude()
        self.call.handler_ended()
        if not ends:
            raise Closed

    def raised(self, error: BaseException) -> bool:
        """Report that the handler has raised this, or is closed, perhaps within a garbage collection."""
        if isinstance(error, GeneratorExit):
            self._ends_call()
            self.call.handler_ended_deferred()
            return False
        ends = not isinstance(error, Exception) or self._ends_call()
        self._raised(error)
        if not self._watched:
            self._conclude()
        self.call.handler_ended()
        if not ends:
            log_late(error)
            raise Closed
        return False

    def completed(self) -> None:
        """Report that grpc takes what the handler has given for its end."""
        if not self._ends_call():
            raise Closed
        if self._is_active():
            self.call.handler_returned()

    def settled(self) -> None:
        """Report that grpc has taken the call's status."""
        context = self._context
        if context is not OVER:
            self._context = SettledContext(context)

    def _ends_call(self) -> bool:
        """Return whether the handler, by what it has just done, ends its call, which nothing has ended before."""
        return True

    def _raised(self, error: BaseException) -> None:
        """Report what has left the handler."""
        raise NotImplementedError

    def _answered(self) -> None:
        if not self._watched:
            self._conclude()

    def _conclude(self) -> None:
        """Take what is known by now for the call's end."""
        if self.call.terminated(status_in(self._context), self._remaining, left=False) is not None:
            self.call.cut_off()  # nobody will say when its caller gives up
        self._context = OVER

    def _was_cut_off(self) -> bool:
        """Whether a call whose handler never started was cut off, as far as anything shows that."""
        return False

    def __del__(self) -> None:
        """Be dropped, perhaps within a garbage collection: at once where the handler never ran."""
        call, context = self.call, self._context
        if context is OVER and not call.running:  # of nearly every call
            return
        call.is_dropped = True
        call.handler_ended_deferred()
        if context is None:
            call.unserved(cut_off=self._was_cut_off())
        elif context is not OVER:  # nobody has said that it is over; asking anybody else's may do anything
            call.dropped(status_in(context if type(context) is PastContext else OVER))
