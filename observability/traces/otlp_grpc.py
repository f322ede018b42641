"""The exporter of OTLP/gRPC, which keeps what the collector answered."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc

from .answers import Answer
from .encoding import CachingExporter

if TYPE_CHECKING:
    from .answers import Answers


class GrpcExporter(CachingExporter):
    """
    OpenTelemetry's own exporter, with our encoder; `answers` gets what each attempt comes to.

    With `direct` it goes past every proxy.
    """

    def __init__(self, answers: Answers, *, direct: bool) -> None:
        self._answers = answers
        self._stub_of_answers: Any = None
        options: Any = (("grpc.enable_http_proxy", 0),) if direct else None
        super().__init__(channel_options=options)

    # Not public: where it keeps its stub, whenever it makes a new one. Where a later version keeps it elsewhere,
    # nothing is known of its answers, and spans are sent anyway.
    @property
    def _client(self) -> Any:
        return self._stub_of_answers

    @_client.setter
    def _client(self, stub: Any) -> None:
        self._stub_of_answers = stub and _AnsweringStub(stub, self._answers)


class _AnsweringStub:
    """A stub of the trace service that keeps what it was answered."""

    def __init__(self, stub: Any, answers: Answers) -> None:
        self._export = stub.Export
        self._answers = answers

    def _call(self, request: Any, **options: Any) -> Any:
        if not threading.main_thread().is_alive():
            return self._export(request, **options)  # the process ends: Python 3.12 starts no thread for a future then
        # A thread that waits in gRPC's core, as for a plain call, makes the children hang that are forked then.
        future = self._export.future(request, **options)
        try:
            return future.result()
        except grpc.FutureCancelledError:
            raise future from None  # which is the RpcError that a plain call raises

    def Export(self, request: Any, **options: Any) -> Any:  # noqa: N802 - the RPC's name
        """Call it."""
        try:
            response = self._call(request, **options)
        except grpc.RpcError as error:
            self._answers.fail(_failure(error))
            raise
        partial = response.partial_success
        self._answers.last = None
        if partial.rejected_spans or partial.error_message:
            self._answers.last = Answer("OK", partial.error_message, partial.rejected_spans, failed=False)
        return response


def _failure(error: grpc.RpcError) -> Answer:
    if isinstance(error, grpc.Call):
        return Answer(error.code().name, error.details() or "")
    return Answer.of_error(error)
