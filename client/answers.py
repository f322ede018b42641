"""What a call prints: an object of JSON per answer, and one that reports a failure."""

import contextlib
import json
from collections.abc import Generator, Mapping
from typing import Any, TypeVar

import grpc
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]  # it has no stubs

from programs.status import details_of
from programs.tls import Target

T = TypeVar("T")
Answer = Mapping[str, Any]
# With these codes the service did not answer; with every other one it did.
NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
# How Service B says what happened between it and Service A.
DOMAIN = "echo.v1"
REASONS = {"SERVICE_A_UNAVAILABLE": "unavailable", "SERVICE_A_ERROR": "error"}


class NoMessageError(Exception):
    """A service has answered with OK, and without the message that is the answer."""


def report(answers: Generator[Answer], service: str, target: Target) -> int:
    """
    Print answers as they come, and the failure that ends them if one does; return the exit status.

    `service` is the one that is called: `service_a` or `service_b`, and `target` where.
    """
    with contextlib.closing(answers):
        try:
            for answer in answers:
                show(answer)
        except grpc.RpcError as error:
            show(failure(error, service, target))
            return 1
        except NoMessageError:
            show({service: "error", "error": "StatusCode.INTERNAL: the answer has no message"})
            return 1
    return 0


def whole(response: T | None) -> T:
    """Return the response of a call that has one; raise NoMessageError for what grpc gives where there is none."""
    if response is None:
        raise NoMessageError
    return response


def show(answer: Answer) -> None:
    """Print one object on one line, at once."""
    print(json.dumps(answer, ensure_ascii=False), flush=True)  # noqa: T201 - what the program is for


def failure(error: grpc.RpcError, service: str, target: Target) -> Answer:
    """
    Return what failed, where, as the status says it: its text is shown, and never interpreted.

    Where nobody answered, of which grpc's text says too little, it is seen whether the two agree on TLS.
    """
    code = error.code()
    text = (error.details() or "").partition("; last error")[0]
    happened = happened_to_a(error)
    if happened is None and code is grpc.StatusCode.UNAVAILABLE:
        text = target.failure_of_handshake() or text
    happened = happened or {service: "unavailable" if code in NO_ANSWER else "error"}
    return {**happened, "error": f"StatusCode.{code.name}: {text}"}


def happened_to_a(error: grpc.RpcError) -> Answer | None:
    """Return what Service B says of Service A; None if B was not even reached, or says nothing."""
    for info in details_of(error, ErrorInfo):
        if info.domain == DOMAIN and info.reason in REASONS:
            return {"service_b": "ok", "service_a": REASONS[info.reason]}
    return None
