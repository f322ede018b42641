"""What people assemble by hand where they do not have us, each part set up as its own documentation shows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from opentelemetry import trace

if TYPE_CHECKING:
    from collections.abc import Callable


class CallLogger(grpc.ServerInterceptor):
    """A log line per unary call: such as people write around structlog."""

    def __init__(self, service: str) -> None:
        self._logger = _configured().bind(service=service)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Log what the handler makes of each call."""
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        method, behavior = handler_call_details.method, handler.unary_unary

        def logged(request: Any, context: grpc.ServicerContext) -> Any:
            started = time.perf_counter()
            code = grpc.StatusCode.OK
            try:
                return behavior(request, context)
            except Exception:
                code = context.code() or grpc.StatusCode.UNKNOWN  # type: ignore[attr-defined]  # typed too narrowly
                raise
            finally:
                self._log(method, code, context, time.perf_counter() - started)

        return grpc.unary_unary_rpc_method_handler(
            logged,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _log(self, method: str, code: grpc.StatusCode, context: grpc.ServicerContext, seconds: float) -> None:
        span = trace.get_current_span().get_span_context()
        log = self._logger.info if code is grpc.StatusCode.OK else self._logger.error
        log(
            "call",
            method=method,
            code=code.name,
            latency_ms=round(seconds * 1000, 3),
            peer=context.peer(),
            trace_id=trace.format_trace_id(span.trace_id),
            span_id=trace.format_span_id(span.span_id),
        )


def _configured() -> Any:
    structlog.configure(
        cache_logger_on_first_use=True,
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(),
    )
    return structlog.get_logger()
