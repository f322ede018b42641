"""
What becomes of a call on the server: events in, one status out.

Everything that decides a call's status is here, and nothing here reads or writes anything of grpc's: that is what
sync.py and aio.py do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc

from ..calls.method import REQUEST_STREAMS
from ..calls.observation import Observation
from ..calls.status import (
    CANCELLED,
    CUT_OFF_DETAILS,
    OK,
    UNKNOWN,
    normalize_code,
    status_before_handler,
    terminated_status,
)
from .trailers import REFUSED_DETAILS, fault_of
from .uncaught import text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..calls.method import Method
    from ..calls.observers import Observers

_ELSEWHERE_DETAILS: Final = "Ended before its handler started, by another interceptor"
_LIMIT_DETAILS: Final = "Concurrent RPC limit exceeded!"
PARSE_DETAILS: Final = "Exception deserializing request!"
SERIALIZE_DETAILS: Final = "Failed to serialize response!"


class Rules(NamedTuple):
    """What grpc makes of a handler's end, in which its stacks differ."""

    codec_error_code: grpc.StatusCode
    """What it answers when a message cannot be parsed or serialised."""
    survived: frozenset[str]
    """Which of the two a handler sees, and may go on without: what it returns stands then."""
    none_is_error: bool
    """Whether None is such a failure, from a function that parses or serialises."""
    loses_other_than_bytes: bool
    """Whether it forgets the caller of a response that was serialised to no bytes; if not, that is such a failure."""
    accepts_int_codes: bool
    """Whether a number is a status code."""
    ok_stands: bool
    """Whether an OK that was set by a handler that raised is sent."""
    unseen_answer: grpc.StatusCode | None
    """The answer of a call that is over, not cut off, and of whose handler no end was seen; None: it was cut off."""
    refusal_cancels: bool
    """Whether a call seems to be cut off when grpc's core refuses its trailing metadata."""
    ends_unsent: bool
    """Whether the end of a call whose status could not be sent is seen when its caller gives up, and not before."""
    cut_off_keeps_error: bool
    """Whether what a handler raised is still reported when its call is then cut off."""


SYNC: Final = Rules(
    codec_error_code=grpc.StatusCode.INTERNAL,
    survived=frozenset(),
    none_is_error=True,
    loses_other_than_bytes=True,
    accepts_int_codes=False,
    ok_stands=True,
    unseen_answer=None,
    refusal_cancels=True,
    ends_unsent=True,
    cut_off_keeps_error=True,
)
AIO: Final = Rules(
    codec_error_code=UNKNOWN,
    survived=frozenset({PARSE_DETAILS, SERIALIZE_DETAILS}),
    none_is_error=False,
    loses_other_than_bytes=False,
    accepts_int_codes=True,
    ok_stands=False,
    unseen_answer=OK,
    refusal_cancels=False,
    ends_unsent=False,
    cut_off_keeps_error=False,
)
# What a blocking handler yields is serialised elsewhere, perhaps when it has returned.
AIO_BLOCKING: Final = AIO._replace(survived=frozenset({PARSE_DETAILS}))


class _Answering(Observation):
    """
    What grpc answers, by the rules of the stack that serves the call, for what becomes of messages and handler.

    `answer` is the status that grpc sends by itself for how the handler ended, None until it has ended; `_returned`
    is the one for a handler that returns, UNKNOWN as long as an only response is not serialised: an interceptor
    before us may fail in between. `refusal` is grpc's own status for a message that cannot be parsed or serialised.
    """

    __slots__ = (
        "_error",
        "_refusal_details",
        "_returned",
        "_seconds",
        "_unanswered",
        "accepted",
        "answer",
        "is_dropped",
        "refusal",
        "rules",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - as of an Observation
        self,
        rules: Rules,
        descriptor: Method,
        metadata: Sequence[Any],
        observers: Observers,
        started: float,
        started_ns: int,
    ) -> None:
        self.rules = rules
        self.accepted = False  # whether grpc has looked at its handler, as it does unless it refuses the call
        self.is_dropped = False  # whether nobody keeps it any more, perhaps within a garbage collection
        self.answer: grpc.StatusCode | None = None
        self._returned = OK
        self.refusal: grpc.StatusCode | None = None
        self._refusal_details = ""
        self._error: BaseException | None = None
        self._unanswered: tuple[Any, Any] | None = None
        self._seconds: float | None = None
        super().__init__(descriptor, "server", metadata, observers, started, started_ns)

    def message_rejected(self, details: str, error: BaseException | None = None) -> None:
        """Take in that a message could not be parsed or serialised, as these details say."""
        self.refusal, self._refusal_details, self._error = self.rules.codec_error_code, details, error

    def response_lost(self) -> None:
        """Take in that what was made of a response, with a serializer or without, is nothing that grpc sends."""
        if self.rules.loses_other_than_bytes:
            self.answer = None
        else:
            self.message_rejected(SERIALIZE_DETAILS)

    def awaits_only_response(self) -> None:
        """Take in that what the handler returns is still to be serialised."""
        self._returned = UNKNOWN

    def only_response_serialized(self) -> None:
        """Take in that the only response was, even where the handler raised: an interceptor has answered for it."""
        self._error = None
        self.answer, self._seconds = OK, self.seconds

    def handler_returned(self) -> bool:
        """Take in that the handler returned; return whether a response is still to be serialised."""
        # grpc's callback comes later, as soon as its thread has a turn: the call's end is now.
        self.answer, self._seconds = self._returned, self.seconds
        if self.refusal is None or self._refusal_details in self.rules.survived:
            self.refusal, self._refusal_details, self._error = None, "", None
        return self._returned is UNKNOWN

    def handler_raised(self, uncaught: BaseException | None) -> None:
        """Take in that the handler raised, and what nobody caught of that: nothing of an abort."""
        self.answer, self._seconds = UNKNOWN, self.seconds
        self._error = uncaught

    def handler_interrupted(self) -> None:
        """Take in that the handler was cancelled since its call is cut off, as far as is known by now."""
        self.answer, self._seconds = UNKNOWN, self.seconds

    def handler_died(self, error: BaseException, code: Any, details: Any) -> None:
        """Take in that the handler raised what grpc does not answer, an interceptor perhaps; this status was set."""
        self._error, self._unanswered = error, (code, details)


class ServerCall(_Answering):
    """A call on the server, and its one end."""

    __slots__ = ()

    def terminated(
        self,
        status: tuple[Any, Any, Any],
        remaining: Callable[[], float | None],
        *,
        left: bool | None = None,
        failure: BaseException | None = None,
    ) -> float | None:
        """
        Decide the status of a call that is over, and report it.

        `status` is what was set: code, details and trailing metadata, each None where there is none. `remaining`
        gives the seconds until the deadline. `left` is whether the call was cut off, None if that is not known, and
        `failure` what kept grpc from sending its status. Returns None, or the seconds until the caller of a status
        that cannot be sent gives up: `cut_off` is to be called then.
        """
        code, details, metadata = status
        fault = fault_of(details, metadata) if details or metadata else None  # nearly every call has neither
        answer = self.refusal or self.answer or self.rules.unseen_answer
        if left is None:
            left = self._is_overdue(remaining)
        if left and not (answer is not None and fault == "refused" and self.rules.refusal_cancels):
            answer = None
            if not self.rules.cut_off_keeps_error and not isinstance(self._error, SystemExit):
                self._error = None  # but of a SystemExit, with which the event loop ends, and every call
        if answer is None and self._unanswered is not None and self._unanswered != (code, details):
            answer = normalize_code(code, accepts_int_codes=self.rules.accepts_int_codes)
        if answer is not None and isinstance(failure, Exception):
            self._error, fault = self._error or failure, "unsendable"
        return self._conclude(answer, code, details, fault, remaining)

    def dropped(self, status: tuple[Any, Any, Any]) -> None:
        """Decide the status of a call of which nobody has said that it is over, and whose handler nobody keeps."""
        code, details, metadata = status
        fault = fault_of(details, metadata) if details or metadata else None
        self._conclude(self.refusal or self.answer, code, details, fault, None)

    def cut_off(self, remaining: Callable[[], float | None] | None = None) -> None:
        """Report a call that was cut off, about now."""
        self._seconds = None
        left = remaining() if remaining is not None else None
        if left is None and self.deadline is not None:
            left = self.deadline - self.seconds
        code = terminated_status(self.deadline, left)
        self._finish(code, CUT_OFF_DETAILS[code])

    def unserved(self, *, cut_off: bool) -> None:
        """
        Report a call whose handler never started.

        Where a request was parsed, or requests are a stream, a handler has been called anyway: that of an
        interceptor before us, of whose answer nothing is seen but an only response.
        """
        if self.answer is not None:
            self._finish(self.answer, "")
        elif self.refusal is not None:
            self._finish(self.refusal, self._refusal_details)
        elif not cut_off and self.accepted and (self.received or self.type in REQUEST_STREAMS):
            self._finish(CANCELLED, _ELSEWHERE_DETAILS)
        elif cut_off or self.accepted:
            code = status_before_handler(self.descriptor.usual_deadline, self.seconds)
            self._finish(code, CUT_OFF_DETAILS[code])
        else:
            self._finish(grpc.StatusCode.RESOURCE_EXHAUSTED, _LIMIT_DETAILS)

    def _is_overdue(self, remaining: Callable[[], float | None]) -> bool:
        """
        Return whether the answer was never sent: the call ended at its deadline, long after its handler.

        So it is where grpc fails at what it would send, as with a compression that there is none of. At half of the
        time that the caller gave, no serving thread is so far behind.
        """
        deadline = self.deadline
        if deadline is None or self._seconds is None or self.seconds - self._seconds < deadline / 2:
            return False
        return terminated_status(deadline, remaining()) is grpc.StatusCode.DEADLINE_EXCEEDED

    def _conclude(
        self,
        answer: grpc.StatusCode | None,
        code: Any,
        details: Any,
        fault: str | None,
        remaining: Callable[[], float | None] | None,
    ) -> float | None:
        """End the call with this answer and what was set, or cut off where there is no answer."""
        if answer is None or (fault == "unsendable" and self.rules.ends_unsent):
            self.cut_off(remaining)
        elif fault == "unsendable":
            return self._wait_unsent()
        elif fault == "refused":
            self._finish(grpc.StatusCode.INTERNAL, REFUSED_DETAILS)
        else:
            code = normalize_code(code, accepts_int_codes=self.rules.accepts_int_codes)
            if code is None or (code is OK and not self.rules.ok_stands):
                code = answer
            self._finish(code, text(details) or self._refusal_details)
        return None

    def _wait_unsent(self) -> float | None:
        """Return the seconds until the caller gives up; without a deadline nobody will say when it does."""
        self.refusal = self.answer = None
        if self.deadline is None or self.is_dropped:
            self._finish(UNKNOWN, "")
            return None
        return max(0.0, self.deadline - self.seconds)

    def _finish(self, code: grpc.StatusCode, details: str) -> None:
        error, self._error = self._error, None
        end = self.end_deferred if self.is_dropped else self.end
        end(code, details, error, self._seconds)
