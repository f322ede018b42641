"""Tells every gRPC call once, truthfully, in logs, metrics and traces."""

from .settings import TRACING, SettingError, standard_settings

# OpenTelemetry reads some of its variables when it is imported, and may raise. Telemetry.start warns.
with standard_settings(TRACING, warn=False):
    from .call import Call, Observer, Outcome, current_call
    from .channel import ObservedChannel
    from .channel_aio import AioObservedChannel
    from .client import ClientInterceptor
    from .client_aio import aio_client_interceptors
    from .hiding import AioHideExceptions, HideExceptions
    from .listening import ListenError
    from .logs import log_calls
    from .metrics import measure_calls
    from .server import AioServerInterceptor, ServerInterceptor
    from .serving import serve, serve_aio
    from .telemetry import Telemetry
    from .traces import trace_calls

__version__ = "0.1.0"

__all__ = [
    "AioHideExceptions",
    "AioObservedChannel",
    "AioServerInterceptor",
    "Call",
    "ClientInterceptor",
    "HideExceptions",
    "ListenError",
    "ObservedChannel",
    "Observer",
    "Outcome",
    "ServerInterceptor",
    "SettingError",
    "Telemetry",
    "aio_client_interceptors",
    "current_call",
    "log_calls",
    "measure_calls",
    "serve",
    "serve_aio",
    "trace_calls",
]
