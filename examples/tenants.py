"""The gate, with an observer of its own: a counter of each tenant's calls, as request metadata name the tenant."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import prometheus_client
from prometheus_client import CollectorRegistry, Counter

from examples.gate import Gate
from observability import Call, HideExceptions, LifecycleObserver, Outcome, Telemetry, serve
from protos.echo_pb2_grpc import add_HealthServiceServicer_to_server

LONGEST = 64
"""Characters of a tenant's name, at most."""


class CountByTenant(LifecycleObserver):
    """
    Counts the calls that are served, by tenant and status code, in `tenant_calls_total` of this registry.

    Callers can make up names, and each label value is kept for ever. So a name has a label of its own from its first
    call that succeeded on, and `limit` names do; the others are `other`, and a call that names none is `none`.
    """

    def __init__(self, registry: CollectorRegistry, *, key: str = "x-tenant", limit: int = 100) -> None:
        self._calls = Counter(
            "tenant_calls", "Calls served, by tenant and status code.", ["tenant", "grpc_code"], registry=registry
        )
        self._key = key
        self._limit = limit
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def on_end(self, call: Call, _state: None, outcome: Outcome) -> None:
        """Count a call."""
        if call.kind == "server":
            self._calls.labels(self._label(call, outcome), outcome.code.name).inc()

    def _label(self, call: Call, outcome: Outcome) -> str:
        """Return the label of the tenant that a call's metadata name."""
        tenant = next((value for key, value in call.metadata if key == self._key), None)
        if tenant is None:
            return "none"
        if not isinstance(tenant, str) or len(tenant) > LONGEST:  # a key that ends in -bin has bytes
            return "other"
        with self._lock:
            if outcome.code is grpc.StatusCode.OK and len(self._known) < self._limit:
                self._known.add(tenant)
            return tenant if tenant in self._known else "other"


def main(address: str, behind: str) -> int:
    """Serve on `address`; the service behind is at `behind`."""
    telemetry = Telemetry.start("gate", metrics_port=9466, observers=[CountByTenant(prometheus_client.REGISTRY)])
    channel = telemetry.intercept_channel(grpc.insecure_channel(behind), target=behind)
    server = grpc.server(ThreadPoolExecutor(8), interceptors=[HideExceptions(), *telemetry.server_interceptors()])
    add_HealthServiceServicer_to_server(Gate(channel), server)
    return serve(server, address, telemetry)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
