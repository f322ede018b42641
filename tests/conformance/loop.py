"""The event loop of the asyncio stack: one for all tests of a process, in a thread of its own."""

import asyncio
import functools
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


@functools.cache
def event_loop() -> asyncio.AbstractEventLoop:
    """Return the loop, running; grpc.aio does not like to change loops."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="conformance-loop", daemon=True).start()
    return loop


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run this in the loop, from another thread, and wait for its result."""
    return asyncio.run_coroutine_threadsafe(coroutine, event_loop()).result(timeout=60)
