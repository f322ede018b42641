"""Tells every gRPC call once, truthfully, in logs, metrics and traces."""

__version__ = "0.1.0"
