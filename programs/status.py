"""Statuses with details: what a service says of a call that it refuses, and what its caller reads of that."""

import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it has no stubs
from grpc_status import rpc_status

Detail = TypeVar("Detail", bound=Message)


def refuse(context: grpc.ServicerContext, code: grpc.StatusCode, text: str, *details: Message) -> NoReturn:
    """End a call with a `google.rpc.Status`: a code, its text, and what programs should know of it."""
    status = Status(code=code.value[0], message=text)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    context.abort_with_status(rpc_status.to_status(status))


def details_of(error: grpc.RpcError, kind: type[Detail]) -> Iterator[Detail]:
    """Yield the details of this kind; none where they cannot be parsed, or contradict the status."""
    with contextlib.suppress(ValueError, DecodeError):
        status: Any = rpc_status.from_call(cast("grpc.Call", error))
        for packed in status.details if status else ():
            detail = kind()
            if packed.Unpack(detail):
                yield detail
