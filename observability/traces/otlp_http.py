"""The exporter of OTLP/HTTP, which keeps what the collector answered."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import requests
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it has no stubs
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from requests.utils import get_environ_proxies, select_proxy

from ..threads.process import at_fork
from .answers import Answer
from .encodable import encodable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult

    from .answers import Answers

_PROVIDERS: Final = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
)


class HttpExporter(OTLPSpanExporter):
    """
    OpenTelemetry's own exporter; `answers` gets what each attempt comes to.

    With `direct` it goes past every proxy. Where the environment names a credential provider, the session is that
    provider's: then nothing is known of the answers, and the proxies are the provider's business.
    """

    def __init__(self, answers: Answers, *, direct: bool) -> None:
        provided = any(os.environ.get(name) for name in _PROVIDERS)
        session = None if provided else _AnsweringSession(answers, direct=direct)
        if session is not None:
            # Its connections are the parent's; it makes others when it needs them.
            at_fork(after_in_child=session.close)
        super().__init__(session=session)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; OpenTelemetry's encoder would drop what it cannot encode."""
        return super().export([encodable(span) for span in spans])


class _AnsweringSession(requests.Session):
    """A session that keeps what it was answered."""

    def __init__(self, answers: Answers, *, direct: bool) -> None:
        super().__init__()
        self._answers = answers
        self._direct = direct

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send it."""
        if self._direct:
            options["proxies"] = {}
        try:
            response = super().send(request, **options)
        except Exception as error:
            self._answers.fail(Answer.of_error(error))
            raise
        if response.status_code in _SUCCESS:
            self._answers.last = _success(response)
        else:
            self._answers.fail(_failure(response))
        return response


_SUCCESS: Final = range(200, 300)
_PROTOBUF: Final = "application/x-protobuf"


def _content_type(response: requests.Response) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _success(response: requests.Response) -> Answer | None:
    answer = ExportTraceServiceResponse()
    if _content_type(response) == _PROTOBUF:
        try:
            answer.ParseFromString(response.content)
        except DecodeError:
            return None
    partial = answer.partial_success
    if partial.rejected_spans or partial.error_message:
        return Answer(str(response.status_code), partial.error_message, partial.rejected_spans, failed=False)
    return None


def _failure(response: requests.Response) -> Answer:
    """Return an answer with the reason phrase, and the message where there is one in a form that can be read."""
    kind = _content_type(response)
    message = ""
    if kind == _PROTOBUF:
        try:
            message = Status.FromString(response.content).message
        except DecodeError:
            message = ""
    elif kind.startswith("text/plain") or kind.endswith("json"):
        message = response.text
    reason = response.reason or ""
    return Answer(str(response.status_code), ": ".join(part for part in (reason, message.strip()) if part))


def http_proxy(url: str) -> str:
    """Return the URL of the proxy through which a URL is reached that is not inner; empty where none is asked."""
    return select_proxy(url, get_environ_proxies(url)) or ""
