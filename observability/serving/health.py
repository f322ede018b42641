"""The standard health service, whose watchers do not hold up the end of a server."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from grpc_health.v1 import health, health_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import ThreadPoolExecutor

LIVENESS: Final = "liveness"
"""The name of the check that is SERVING for as long as the server responds; no other is once it drains."""
GENERAL: Final = ("", "readiness", LIVENESS)
"""The names that every server has: the server as a whole, and what an orchestrator asks for."""
SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
MAX_WORKERS: Final = 2_500
"""How many health checks may be held, by requests that do not come and watchers that read nothing."""


def in_pool(workers: ThreadPoolExecutor, method: Callable[..., Any], *, non_blocking: bool = False) -> Any:
    """Return this method of a servicer as what grpc.server runs in this pool, and not in its own."""
    run: Any = partial(method)
    run.experimental_thread_pool = workers
    run.experimental_non_blocking = non_blocking
    return run


def _listed(statuses: Mapping[str, Any]) -> Any:
    """Return the response of List, which grpcio-health-checking leaves out."""
    found: Any = health_pb2
    response = found.HealthListResponse()
    for name, status in dict(statuses).items():
        response.statuses[name].status = status
    return response


class Health(health.HealthServicer):
    """
    grpc.health.v1.Health for grpc.server, in a pool of its own: it responds though calls hold all other threads.

    A Watch holds a thread while its request is awaited, and while a status is on its way to it. Each is sent its
    statuses apart from all others: grpc_health's servicer sends under a lock, which a watcher that reads nothing would
    hold for ever.
    """

    def __init__(self, workers: ThreadPoolExecutor) -> None:
        super().__init__(experimental_non_blocking=True)
        self._workers = workers
        self._watchers: set[_Watcher] = set()
        self._statuses: dict[str, Any] = {}
        for method in (self.Check, self.List, self.Watch):
            setattr(self, method.__name__, in_pool(workers, method, non_blocking=method == self.Watch))

    @classmethod
    def serving(cls, workers: ThreadPoolExecutor, services: Iterable[str]) -> Health:
        """Return one by which the names that every server has, and these services, are SERVING."""
        made = cls(workers)
        for name in (*GENERAL, *services):
            made.set(name, SERVING)
        return made

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
        watcher = _Watcher(self._workers, send_response_callback)
        self._watchers.add(watcher)
        if not context.add_callback(lambda: self._watchers.discard(watcher)):  # its caller has left
            self._watchers.discard(watcher)
        return super().Watch(request, context, watcher)

    def end_watches(self) -> None:
        """End every Watch with OK, after what was sent."""
        for watcher in list(self._watchers):
            watcher(None)


class _Watcher:
    """Sends one watcher its statuses, one after another, with a thread of the pool for as long as that takes."""

    def __init__(self, workers: ThreadPoolExecutor, send: Callable[[Any], None]) -> None:
        self._workers = workers
        self._send = send
        self._lock = threading.Lock()
        self._unsent: deque[Any] = deque()

    def __call__(self, response: Any) -> None:
        """Have this sent, or the end of the stream for None."""
        with self._lock:
            self._unsent.append(response)
            is_first = len(self._unsent) == 1
        if is_first:
            self._workers.submit(self._send_all)

    def _send_all(self) -> None:
        is_left = True
        while is_left:
            self._send(self._unsent[0])
            with self._lock:
                self._unsent.popleft()
                is_left = bool(self._unsent)


class AioHealth(health.aio.HealthServicer):
    """
    grpc.health.v1.Health for grpc.aio.server.

    Each Watch sends apart from all others: grpc_health's servicer sends under a lock that all who watch a service, and
    who sets its status, wait for, and which a watcher that reads nothing would hold for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()
        self._ended = False
        self._statuses: dict[str, Any] = {}

    async def set(self, service: str, status: Any) -> None:
        """Set the status of a service, which is sent to those who watch it."""
        self._statuses[service] = status
        await super().set(service, status)
        self._wake()

    async def enter_graceful_shutdown(self) -> None:
        """Set all but liveness NOT_SERVING."""
        for name in self._statuses.keys() - {LIVENESS}:
            await self.set(name, _NOT_SERVING)

    async def List(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - the RPC's name
        """Respond with the status of every service."""
        return _listed(self._statuses)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - the RPC's name
        """Send a service's status whenever it changes."""
        sent = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            if status != sent:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                sent = status
            elif self._ended:
                return
            else:
                await changed.wait()

    def end_watches(self) -> None:
        """End every Watch with OK, after what is sent: grpc cannot end one whose status is on its way."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
