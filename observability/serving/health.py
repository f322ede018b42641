"""The standard health service, whose watchers do not hold up the end of a server."""

from __future__ import annotations

import asyncio
from concurrent import futures
from typing import TYPE_CHECKING, Any, Final

from grpc_health.v1 import health, health_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LIVENESS: Final = "liveness"
"""The name of the check that is SERVING for as long as the server responds; no other is once it drains."""
GENERAL: Final = ("", "readiness", LIVENESS)
"""The names that every server has: the server as a whole, and what an orchestrator asks for."""
SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


def _listed(statuses: Mapping[str, Any]) -> Any:
    """Return the response of List, which grpcio-health-checking leaves out."""
    found: Any = health_pb2
    response = found.HealthListResponse()
    for name, status in dict(statuses).items():
        response.statuses[name].status = status
    return response


class Health(health.HealthServicer):
    """
    grpc.health.v1.Health for grpc.server; a Watch holds no thread of the server's pool.

    Its statuses are sent by a thread of their own: grpc_health's servicer sends under a lock that grpc's serving
    thread takes when a watcher leaves, and the two wait for each other for ever.
    """

    def __init__(self) -> None:
        self._sender = futures.ThreadPoolExecutor(1, "health")
        super().__init__(experimental_non_blocking=True, experimental_thread_pool=self._sender)
        self._watches: set[Callable[[Any], Any]] = set()
        self._statuses: dict[str, Any] = {}

    def set(self, service: str, status: Any) -> None:
        """Set the status of a service, which is sent to those who watch it."""
        self._statuses[service] = status
        super().set(service, status)

    def enter_graceful_shutdown(self) -> None:
        """Set all but liveness NOT_SERVING."""
        for name in self._statuses.keys() - {LIVENESS}:
            self.set(name, _NOT_SERVING)

    def List(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - the RPC's name
        """Respond with the status of every service."""
        return _listed(self._statuses)

    def Watch(  # noqa: N802 - the RPC's name
        self, request: Any, context: Any, send_response_callback: Callable[[Any], None] | None = None
    ) -> Any:
        """Send a service's status whenever it changes."""
        if send_response_callback is None:
            return super().Watch(request, context)

        def send(response: Any) -> None:
            self._sender.submit(send_response_callback, response)

        self._watches.add(send)
        context.add_callback(lambda: self._watches.discard(send))
        return super().Watch(request, context, send)

    def end_watches(self) -> None:
        """End every Watch with OK, after what was sent."""
        for send in list(self._watches):
            send(None)


class AioHealth(health.aio.HealthServicer):
    """grpc.health.v1.Health for grpc.aio.server."""

    def __init__(self) -> None:
        super().__init__()
        self._watches: set[asyncio.Task[None]] = set()
        self._statuses: dict[str, Any] = {}

    async def set(self, service: str, status: Any) -> None:
        """Set the status of a service, which is sent to those who watch it."""
        self._statuses[service] = status
        await super().set(service, status)

    async def enter_graceful_shutdown(self) -> None:
        """Set all but liveness NOT_SERVING."""
        for name in self._statuses.keys() - {LIVENESS}:
            await self.set(name, _NOT_SERVING)

    async def List(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - the RPC's name
        """Respond with the status of every service."""
        return _listed(self._statuses)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - the RPC's name
        """Send a service's status whenever it changes."""
        watch = asyncio.create_task(super().Watch(request, context))
        self._watches.add(watch)
        try:
            await asyncio.wait([watch])
        finally:
            watch.cancel()
            self._watches.discard(watch)
        if not watch.cancelled():
            watch.result()

    def end_watches(self) -> None:
        """End every Watch with OK, after what was sent."""
        for watch in self._watches:
            watch.cancel()
