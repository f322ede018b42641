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
    """grpc.health.v1.Health for grpc.server; a Watch holds no thread of the server's pool."""

    def __init__(self) -> None:
        super().__init__(
            experimental_non_blocking=True, experimental_thread_pool=futures.ThreadPoolExecutor(1, "health")
        )
        self._watches: set[Callable[[Any], None]] = set()

    def Watch(  # noqa: N802 - the RPC's name
        self, request: Any, context: Any, send_response_callback: Callable[[Any], None] | None = None
    ) -> Any:
        """Send a service's status whenever it changes."""
        if send_response_callback is not None:
            self._watches.add(send_response_callback)
            context.add_callback(lambda: self._watches.discard(send_response_callback))
        return super().Watch(request, context, send_response_callback)

    def end_watches(self) -> None:
        """End every Watch with OK, after what was sent."""
        for send_response in list(self._watches):
            send_response(None)


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
