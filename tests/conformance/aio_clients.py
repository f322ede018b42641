"""Callers on grpc.aio channels that play a case; one conversation for all ways to make a call."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from grpc import StatusCode

from .clients import OPTIONS, requests, stub
from .stage import Stage
from .vocabulary import requests_stream, responses_stream


async def call(stage: Stage) -> StatusCode:
    """Make the call, and return the code that its caller gets."""
    case = stage.case
    async with contextlib.AsyncExitStack() as channels:
        if case.environment.obstacle == "limited":
            _holding = _hold(await channels.enter_async_context(grpc.aio.insecure_channel(stage.address)))
            await asyncio.to_thread(stage.wait)
        channel = await channels.enter_async_context(_channel(stage))
        if case.caller.timeout:
            await channel.channel_ready()
        conversation = asyncio.create_task(_converse(stage, stub(channel, stage)))
        interruption = asyncio.create_task(_interrupt_later(stage, channel, conversation))
        try:
            return await conversation
        except asyncio.CancelledError:
            return StatusCode.CANCELLED
        except grpc.aio.AioRpcError as error:
            return error.code()
        finally:
            await interruption
            if case.caller.drops:
                gc.collect()  # a call that is dropped stands in cycles of grpc's


def _channel(stage: Stage) -> grpc.aio.Channel:
    """Return a channel whose calls are reported, one of our own if the way says so."""
    options = (*OPTIONS, *stage.case.environment.channel_options)
    if "channel" in stage.way.client:
        plain = grpc.aio.insecure_channel(stage.address, options)
        return stage.telemetry.intercept_channel(plain, target=stage.address)
    interceptors = stage.telemetry.aio_client_interceptors(target=stage.address)
    return grpc.aio.insecure_channel(stage.address, options, interceptors=interceptors)


def _hold(channel: Any) -> Any:
    """Let another call take the server's only place."""
    return channel.unary_unary("/hold")(b"")


async def _interrupt_later(stage: Stage, channel: grpc.aio.Channel, conversation: asyncio.Task[Any]) -> None:
    if stage.case.caller.end in ("cancel_task", "stop_server", "close_channel"):
        await asyncio.to_thread(stage.wait)
    if stage.case.caller.end == "cancel_task":
        conversation.cancel()
    elif stage.case.caller.end == "stop_server":
        await asyncio.to_thread(stage.stop)
    elif stage.case.caller.end == "close_channel":
        await channel.close()


async def _converse(stage: Stage, method: Any) -> StatusCode:
    call = await _start(stage, method)
    if not responses_stream(stage.way.arity):
        await _interrupt(stage, call)
        if not stage.case.caller.drops:
            await call
        return StatusCode.CANCELLED if stage.case.caller.drops else StatusCode.OK
    if stage.case.caller.end == "drop_unread" or stage.case.environment.waits_unserved:
        await _interrupt(stage, call)
    if stage.case.caller.end != "drop_unread":
        async for _ in _reading(call) if "read" in stage.way.client else call:
            await _interrupt(stage, call)
            if stage.case.caller.drops:
                break
    return StatusCode.CANCELLED if stage.case.caller.drops else StatusCode.OK


async def _start(stage: Stage, method: Any) -> Any:
    timeout = stage.case.caller.timeout
    if not requests_stream(stage.way.arity):
        return method(stage.case.messages.request, timeout=timeout)
    if "write" not in stage.way.client:
        return method(_aio_requests(stage), timeout=timeout)
    call = method(timeout=timeout)
    with contextlib.suppress(asyncio.InvalidStateError):  # the call is over already
        for request in requests(stage):
            await call.write(request)
        await call.done_writing()
    return call


async def _aio_requests(stage: Stage) -> AsyncIterator[Any]:
    for request in requests(stage):
        yield request
        await asyncio.sleep(0)


async def _reading(call: Any) -> AsyncIterator[Any]:
    while (response := await call.read()) is not grpc.aio.EOF:
        yield response


async def _interrupt(stage: Stage, call: Any) -> None:
    if stage.case.caller.interrupts:
        await asyncio.to_thread(stage.wait)
    if stage.case.caller.cancels:
        call.cancel()
