"""The instrumentor, which `opentelemetry-instrument` finds by its entry point, grpc_observability_kit."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # no types

from ..settings import SettingError, Settings
from .functions import Functions
from .source import Source

if TYPE_CHECKING:
    from collections.abc import Collection

_logger = logging.getLogger("observability")
_NOT_CONTRIB: Final = "native where nobody starts telemetry: without this, opentelemetry's own instrumentors do that"
_functions: Final = Functions()


class GrpcObservability(BaseInstrumentor):  # type: ignore[misc]  # as above
    """
    Reports the calls of every server and channel that the functions of grpc and grpc.aio make from instrument() on.

    Each call is reported once: a server or channel with interceptors of ours, or observed by hand, is left to them.
    Calls are reported to the process's telemetry, which Telemetry.start has started last. Where there is none it is
    started, with the first server that is made or the first call of a channel, as the environment says: called
    OTEL_SERVICE_NAME, with the calls' lines on stderr, and /metrics where OTEL_EXPORTER_PROMETHEUS_PORT says.
    structlog and `logging` stay as they are.

    instrument(telemetry=…) reports to this telemetry alone. An invalid setting is logged as an error, and nothing is
    observed then: no setting makes it raise. uninstrument() leaves grpc's functions as they were; the servers and
    channels that were made stay observed.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return what it observes."""
        return ("grpcio >= 1.80, < 2",)

    def _instrument(self, **options: Any) -> None:
        telemetry = options.pop("telemetry", None)
        if options:
            raise TypeError(f"instrument() takes telemetry, and not {', '.join(sorted(options))}")
        try:
            if Settings.read().is_contrib:
                raise SettingError("OBSERVABILITY_TRACES", "contrib", _NOT_CONTRIB)  # noqa: TRY301 - said like others
        except SettingError as error:
            _logger.error("calls are not reported: %s", error)  # noqa: TRY400 - the text says all
            return
        _functions.replace(Source(telemetry))

    def _uninstrument(self, **_options: Any) -> None:
        _functions.restore()


def take_over() -> None:
    """
    Turn OpenTelemetry's own gRPC instrumentors off where this one is on: each call is to have one span.

    `opentelemetry-instrument` calls this when it has turned on every instrumentor that is installed.
    """
    if not _functions.are_replaced:
        return
    from opentelemetry.instrumentation import grpc as official  # noqa: PLC0415 - only where it is wanted

    theirs: list[Any] = [
        official.GrpcInstrumentorServer,
        official.GrpcInstrumentorClient,
        official.GrpcAioInstrumentorServer,
        official.GrpcAioInstrumentorClient,
    ]
    with _functions.aside():  # they restore what they have found, which may be ours
        for each in theirs:
            if (instrumentor := each()).is_instrumented_by_opentelemetry:
                instrumentor.uninstrument()
                _logger.info("%s is off: grpc-observability-kit makes the spans of calls", each.__qualname__)
