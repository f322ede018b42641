"""Runs a server until SIGTERM or SIGINT: health, drain, stop, flush."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from grpc_health.v1 import health_pb2_grpc

from ..address import ListenError, check_address, is_reachable
from .health import GENERAL, MAX_WORKERS, SERVING, AioHealth, Health

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc.aio
    from grpc_health.v1 import health as health_service

    from ..telemetry import Telemetry

GRACE_SECONDS: Final = 5.0
"""How long calls may go on after the server stops taking new ones."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_STOP_SLACK: Final = 0.5
_SETTLE_SECONDS: Final = 0.02
_LAST_WORD_SECONDS: Final = 0.2
_OPEN_CALLS: Final = (
    "calls without TLS, at an address beyond loopback: whoever reaches it can make them, and whoever is on the way can "
    "read and change them"
)

_logger = logging.getLogger("observability")


def serve(  # noqa: PLR0913 - each by name
    server: grpc.Server,
    address: str,
    telemetry: Telemetry,
    *,
    health: health_service.HealthServicer | None = None,
    credentials: grpc.ServerCredentials | None = None,
    grace: float = GRACE_SECONDS,
    drain_delay: float = 0.0,
    reuse_port: bool = False,
) -> int:
    """
    Serve on HOST:PORT until SIGTERM or SIGINT, and return the exit status.

    Adds the standard health service, unless given one, with `readiness`, `liveness` and every service of the
    telemetry's SERVING; it has threads of its own. On the signal all but `liveness` are NOT_SERVING; it waits
    `drain_delay` seconds for callers to notice, takes no new calls, lets those going on end for `grace` seconds, and
    closes the telemetry. A second signal ends the process at once. Call it from the main thread; a handler that runs on
    after the grace keeps an ordinary exit waiting, hence os._exit in a main. Raises ListenError where the address
    cannot be had: a Unix socket that somebody serves is left alone, and so is a port, unless `reuse_port` says that
    the server has the option grpc.so_reuseport, by which several processes share it.
    """
    if health is None:
        health = Health.serving(telemetry.worker_pool(MAX_WORKERS, "health"), telemetry.services)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
    address = _listen(server, address, credentials, reuse_port=reuse_port)
    stop = threading.Event()
    with _observers(stop.set):
        server.start()
        _logger.info("listening", extra={"address": address})
        _wait(stop)
    health.enter_graceful_shutdown()
    time.sleep(drain_delay)
    stopped = server.stop(grace)
    if isinstance(health, Health):
        health.end_watches()
    stopped.wait(grace + _STOP_SLACK)
    _close(telemetry)
    return 0


def _wait(event: threading.Event) -> None:
    """Wait in short turns: a wait without end is not interrupted by a signal on every platform."""
    while not event.wait(1.0):
        pass


@contextlib.contextmanager
def _observers(stop: Any) -> Iterator[None]:
    """Call `stop` at the first signal; a second one ends the process."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    # The system's own handler ends the process whatever it is busy with, but for that of PID 1: such signals never
    # reach it.
    second = _end if os.getpid() == 1 else signal.SIG_DFL

    def first(_number: int, _frame: Any) -> None:
        for number in _SIGNALS:
            signal.signal(number, second)
        stop()

    for number in _SIGNALS:
        signal.signal(number, first)
    try:
        yield
    except BaseException:
        for number, handler in before.items():
            signal.signal(number, handler)
        raise


def _end(number: int, _frame: Any) -> None:
    """End the process as shells report a program that a signal ended."""
    os._exit(128 + number)


def _close(telemetry: Telemetry) -> None:
    """Close the telemetry, and say so after all that the last calls have to say."""
    telemetry.close()
    _logger.info("stopped")
    if telemetry.log_writer is not None:
        telemetry.log_writer.flush(_LAST_WORD_SECONDS)


def _listen(server: Any, address: str, credentials: grpc.ServerCredentials | None, *, reuse_port: bool) -> str:
    """Let the server listen there; return the address with the port that it got."""
    check_address(address, reuse_port=reuse_port)
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ListenError(address, OSError(str(error))) from error
    address = _with_port(address, port)
    if credentials is None and is_reachable(address):
        _logger.warning(_OPEN_CALLS, extra={"address": address})
    return address


def _with_port(address: str, port: int) -> str:
    host, _, wanted = address.rpartition(":")
    is_unix = address.startswith(("unix:", "unix-abstract:"))
    return f"{host}:{port}" if wanted.isdecimal() and not is_unix else address


async def serve_aio(  # noqa: PLR0913 - each by name
    server: grpc.aio.Server,
    address: str,
    telemetry: Telemetry,
    *,
    health: health_service.aio.HealthServicer | None = None,
    credentials: grpc.ServerCredentials | None = None,
    grace: float = GRACE_SECONDS,
    drain_delay: float = 0.0,
    reuse_port: bool = False,
) -> int:
    """Do for grpc.aio.server what serve does for grpc.server."""
    if health is None:
        health = AioHealth()
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        for name in (*GENERAL, *telemetry.services):
            await health.set(name, SERVING)
    address = _listen(server, address, credentials, reuse_port=reuse_port)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    with _observers(lambda: loop.call_soon_threadsafe(stop.set)):
        await server.start()
        _logger.info("listening", extra={"address": address})
        await stop.wait()
    await health.enter_graceful_shutdown()
    await asyncio.sleep(drain_delay)
    stopped = asyncio.ensure_future(server.stop(grace))
    if isinstance(health, AioHealth):
        health.end_watches()
    await asyncio.wait([stopped], timeout=grace + _STOP_SLACK)
    # To grpc.aio a call is over when its status is sent. What reports it waits for the end of the call's own task.
    await asyncio.sleep(_SETTLE_SECONDS)
    await asyncio.to_thread(_close, telemetry)
    return 0
