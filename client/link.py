"""Where to look at the trace of a call."""

import sys
from collections.abc import Callable

import click

from observability import Call, Outcome, Telemetry
from programs.options import Url, option

at_jaeger = option("--jaeger", "JAEGER_URL", Url(), "http://localhost:16686", "Where Jaeger shows its pages.")


class Link:
    """The address of a call's trace in Jaeger, for the person who made the call."""

    def __init__(self, jaeger: str) -> None:
        self._jaeger = jaeger
        self._trace_id = ""

    def watch(self, call: Call) -> Callable[[Outcome], None]:
        """Read the call's trace id from what is sent; an observer."""
        header = dict(call.metadata).get("traceparent", "")
        self._trace_id = header[3:35]
        return lambda _outcome: None

    def show(self, telemetry: Telemetry) -> None:
        """Print the link on a terminal, once the telemetry is closed and if the call's spans were delivered."""
        delivery = telemetry.tracing.delivery
        if self._trace_id and delivery is not None and delivery.delivered and sys.stderr.isatty():
            click.echo(f"{self._jaeger}/trace/{self._trace_id}", err=True)
