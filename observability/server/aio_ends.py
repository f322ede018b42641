"""How the end of a call on grpc.aio.server is seen: by that of the RPC's own task, or by its context."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Final

from .call import AIO_BLOCKING
from .context import OVER, PastContext, RecordingContext, ask, status_in
from .observed import ObservedHandler

if TYPE_CHECKING:
    import grpc

    from .call import ServerCall

releasing: Final = threading.Lock()
"""Held where grpc may release a call that a thread asks for something."""
_RPC_TASK: Final = "HandleExceptions["
"""How grpc begins the name of an RPC's own task."""


class AioEnding(ObservedHandler):
    """
    A handler whose call ends with a task.

    `_task` is the one whose end is the call's: the RPC's own, as far as anything shows it. Interceptors before us may
    await the chain, or run the handler, in tasks of their own. `_ended_itself` is whether the handler has ended the
    call, whatever its task and its context show: a server that stops cancels the task of a call that is answered, too.
    `_interrupted` is whether the handler was cancelled, and `_remaining_then` what was left of the caller's time then.
    """

    __slots__ = ("_ended_itself", "_interrupted", "_over", "_remaining_then", "_task")

    def __init__(self, handler: grpc.RpcMethodHandler[Any, Any], call: ServerCall) -> None:
        super().__init__(handler, call)
        self._ended_itself = False
        self._interrupted = False
        self._over = False
        self._remaining_then: float | None = None
        self._task: asyncio.Task[Any] | None = None

    def follow_task(self) -> None:
        """Take the current task for the RPC's own, until another one is seen to be."""
        task = current_task()
        if task is not None and task is not self._task:
            self._task = task
            task.add_done_callback(self._task_over)

    def _is_active(self) -> bool:
        return True  # what the call's task says of its end decides

    def _task_over(self, task: asyncio.Task[Any]) -> None:
        """Be called when a task is done; where it is the RPC's own, the call is over, and grpc releases it next."""
        if task is not self._task:
            return
        cancelling = task.cancelling() > 0
        if self._context is None and not cancelling and not task.get_name().startswith(_RPC_TASK):
            # An interceptor's: the call goes on, or is refused, and then this is dropped, which is the task's result.
            self._task = None
            return
        with releasing:
            self._over = True
        if self._context is None:
            self.call.unserved(cut_off=cancelling)
            self._context = OVER
        else:
            self._terminated(None if task.cancelled() else task.exception(), cancelling=cancelling)

    def _context_over(self, _context: Any) -> None:
        """Be called by grpc at the call's true end, where its own task is not known."""
        self._terminated(None, cancelling=False)

    def _terminated(self, failure: BaseException | None, *, cancelling: bool) -> None:
        """Report that the call is over; `failure` is what has ended the RPC's own task."""
        left = self._is_left(cancelling=cancelling)
        wait = self.call.terminated(status_in(self._context), self._remaining, left=left, failure=failure)
        if wait is None:
            self._context = OVER
        else:
            self._context = PastContext()
            asyncio.get_running_loop().call_later(wait, self._caller_gave_up)

    def _is_left(self, *, cancelling: bool) -> bool | None:
        """Return whether the call was cut off before it had a status; None where its end's time has to show that."""
        context = self._context
        if self._ended_itself:
            return False
        done = ask(context, "done")  # which a blocking handler's context has not, nor have abstract ones
        if done is not None:
            return not done
        if not cancelling or (type(context) is RecordingContext and context.is_aborted):
            return False
        # grpc sends the status as soon as the handler has ended, and a server that stops cancels the task meanwhile.
        ended = self.call.answer is not None and not self._interrupted and self.call.rules is not AIO_BLOCKING
        return None if ended else True

    def _caller_gave_up(self) -> None:
        self._context = OVER
        self.call.cut_off()

    def _remaining(self) -> float | None:
        return super()._remaining() if self._remaining_then is None else self._remaining_then

    def _was_cut_off(self) -> bool:
        return self._task is not None and self._task.cancelling() > 0


def current_task() -> asyncio.Task[Any] | None:
    """Return the current task, or None where there is none: anybody may read a handler anywhere."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def is_being_cancelled() -> bool:
    """Return whether the current task is."""
    task = current_task()
    return task is not None and task.cancelling() > 0
