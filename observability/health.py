"""The standard health service, whose watchers do not hold up the end of a server."""

from __future__ import annotations

import asyncio
from concurrent import futures
from typing import TYPE_CHECKING, Any

from grpc_health.v1 import health, health_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

SERVING = health_pb2.HealthCheckResponse.SERVING


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
