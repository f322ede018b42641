"""Observes an application's servers and channels without a line in its code, as OpenTelemetry's instrumentors do."""

from .instrumentor import GrpcObservability, take_over

__all__ = ["GrpcObservability", "take_over"]
