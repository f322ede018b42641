"""Reports every gRPC call once, truthfully, in logs, metrics and traces."""

from .settings import TRACING, SettingError, standard_settings

# OpenTelemetry reads some of its variables when it is imported, and may raise. Telemetry.start warns.
with standard_settings(TRACING, warn=False):
    from .address import ListenError
    from .calls.call import Call, Outcome, current_call
    from .calls.observer import LifecycleObserver, Observer, OnEnd
    from .certificates import CertificateError, Certificates
    from .client.aio_channel import AioObservedChannel
    from .client.aio_interceptors import aio_client_interceptors
    from .client.channel import ObservedChannel
    from .client.interceptors import ClientInterceptor
    from .logs.observer import log_calls
    from .metrics.observer import measure_calls
    from .server.hide_exceptions import AioHideExceptions, HideExceptions
    from .server.interceptors import AioServerInterceptor, ServerInterceptor
    from .serving.run import serve, serve_aio
    from .telemetry import Telemetry
    from .traces.observer import trace_calls

__version__ = "1.0.0"

__all__ = [
    "AioHideExceptions",
    "AioObservedChannel",
    "AioServerInterceptor",
    "Call",
    "CertificateError",
    "Certificates",
    "ClientInterceptor",
    "HideExceptions",
    "LifecycleObserver",
    "ListenError",
    "ObservedChannel",
    "Observer",
    "OnEnd",
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
