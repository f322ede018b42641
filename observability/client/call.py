"""
What becomes of a client's call, decided from what is seen of it.

All that affects it is in this file, which reads and writes nothing and asks no call of grpc's: the adapters (`sync.py`,
`aio.py`, and what they give the caller) read those of grpc and of other people, and pass plain values.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import CancelledError as FutureCancelledError
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import grpc

from ..calls.method import RESPONSE_STREAMS
from ..calls.observation import Observation
from ..calls.status import CANCELLED, CUT_OFF_DETAILS, OK, UNKNOWN

CANCELLED_DETAILS: Final = "Locally cancelled by application!"
_COLLECTED_DETAILS: Final = "Cancelled upon garbage collection!"
"""What grpc says of a call that it has cancelled because nobody kept it."""
DROPPED_DETAILS: Final = "Dropped before its end"

_CANCELLATIONS: Final = (grpc.FutureCancelledError, FutureCancelledError)


@dataclass(frozen=True)
class Rules:
    """What differs between grpc's sync channels and its asyncio channels."""

    refuses_metadata: bool
    """Whether what is no metadata is raised at the call, rather than by what the call returns."""
    defers_cancelled: bool
    """Whether CANCELLED is reported later: grpc.aio's own finalizers cancel calls inside garbage collections."""


SYNC: Final = Rules(refuses_metadata=True, defers_cancelled=False)
AIO: Final = Rules(refuses_metadata=False, defers_cancelled=True)


class ClientCall(Observation):
    """
    A client's call, from its start to the one end that follows from what its caller sees of it.

    Each event may come at any time and more than once: the first that is an end decides. `sent` and `received` are
    counted in place, by what passes a stream's messages on. `seconds` is when an event was, if not now. Only events
    whose names end in `_deferred`, and `cancelled_by_caller`, are safe inside a garbage collection; on asyncio so is
    `status_received` with CANCELLED.
    """

    __slots__ = ()

    rules: ClassVar[Rules] = SYNC
    reports_messages: ClassVar[bool] = False
    """Whether observers want to see its messages."""

    def answered(self, response: Any = None, seconds: float | None = None) -> None:  # noqa: ARG002 - see ReportingCall
        """Record that the caller has got the only response, which ends the call."""
        if self._end_token:
            self.received = 1
            self.end(OK, "", None, seconds)

    def stream_ended(self) -> None:
        """Record that the caller has read the responses to their end."""
        self.end(OK)

    def status_received(self, code: grpc.StatusCode, details: str = "", seconds: float | None = None) -> None:
        """Record the status that grpc has for the call, whether or not the caller has seen it."""
        if code is CANCELLED and self.rules.defers_cancelled:
            self.end_deferred(code, details, None, seconds)
            return
        if code is OK and self.type not in RESPONSE_STREAMS:
            self.received = 1
        elif details == _COLLECTED_DETAILS:
            details = DROPPED_DETAILS
        self.end(code, details, None, seconds)

    def raised(
        self,
        error: BaseException,
        code: grpc.StatusCode | None = None,
        details: str = "",
        seconds: float | None = None,
    ) -> None:
        """Record what is about to be raised to the caller, with the status that it carries, if it carries one."""
        if not isinstance(error, Exception):
            # KeyboardInterrupt, CancelledError: the caller goes away, and the call with it.
            self.end(CANCELLED, CUT_OFF_DETAILS[CANCELLED], None, seconds)
        elif isinstance(error, _CANCELLATIONS):
            self.end(CANCELLED, CANCELLED_DETAILS, None, seconds)
        elif code is None or code is OK:
            self.end(UNKNOWN, "", error, seconds)
        else:
            self.end(code, details, None, seconds)

    def over_without_status(
        self,
        failure: Exception,
        code: grpc.StatusCode | None = None,
        details: str = "",
        seconds: float | None = None,
    ) -> None:
        """
        Record that the call is over and shows no status, nor what its result raises: asking for that raised `failure`.

        Such a call was answered, unless the failure, or the status that it carries, is that of a cancelled one.
        """
        if isinstance(failure, _CANCELLATIONS) or code is CANCELLED:
            self.raised(failure, code, details, seconds)
        else:
            self.status_received(OK, "", seconds)

    def metadata_refused(self, error: Exception, code: grpc.StatusCode | None = None, details: str = "") -> bool:
        """Record what reading the caller's metadata raised; return whether the caller is to see that at the call."""
        if self.rules.refuses_metadata:
            self.raised(error, code, details)
        return self.rules.refuses_metadata

    def cancelled_by_caller(self) -> None:
        """Record that the caller, or somebody's finalizer, has cancelled the call."""
        self.end_deferred(CANCELLED, CANCELLED_DETAILS)

    def dropped(self, seconds: float | None = None) -> None:
        """Record that nobody keeps the call, or that nothing more will be seen of it."""
        self.end(CANCELLED, DROPPED_DETAILS, None, seconds)

    def dropped_deferred(self) -> None:
        """Record the same where that may be inside a garbage collection."""
        self.end_deferred(CANCELLED, DROPPED_DETAILS)


class AioClientCall(ClientCall):
    """A client's call on an asyncio channel."""

    __slots__ = ()

    rules = AIO


class ReportingCall(ClientCall):
    """A client's call whose messages are reported: an only response before the call's end, where it can be had then."""

    __slots__ = ("_response_token",)

    reports_messages = True

    def __init__(self, *arguments: Any) -> None:
        self._response_token = [True]
        super().__init__(*arguments)

    def answered(self, response: Any = None, seconds: float | None = None) -> None:
        """Report the only response, once, and record that the caller has got it."""
        with contextlib.suppress(IndexError):
            self._response_token.pop()  # atomic, as with an end
            self.received = 1
            self.message_received(response)
        super().answered(response, seconds)


class AioReportingCall(ReportingCall, AioClientCall):
    """The same on an asyncio channel."""

    __slots__ = ()
