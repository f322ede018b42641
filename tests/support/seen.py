"""What a caller on asyncio sees of a call, so that it can be compared."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, Final

import grpc.aio

from tests.support.rpc import STREAMS

PATIENCE: Final = 10.0
"""Seconds that a test waits for what must come."""


async def seen(act: Callable[[], Any]) -> Any:
    """Return what an act returns, or what it raises, so that it can be compared."""
    try:
        result = act()
        result = await asyncio.wait_for(result, PATIENCE) if inspect.isawaitable(result) else result
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it is what is seen
        code = [error.code(), error.details()] if isinstance(error, grpc.aio.AioRpcError) else str(error)
        return type(error), code
    return "EOF" if result is grpc.aio.EOF else result


def read(call: Any, arity: str) -> Any:
    """Return what waits for all that a call answers."""
    return _all(call) if arity in STREAMS else call


async def _all(call: Any) -> list[Any]:
    return [response async for response in call]
