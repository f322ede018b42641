"""A Service A that does as a test says: a real server, in the test's own process."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from protos.echo_pb2 import EchoRequest, EchoResponse
from protos.echo_pb2_grpc import EchoServiceServicer, add_EchoServiceServicer_to_server

Echo = Callable[[EchoRequest, grpc.ServicerContext], EchoResponse]
EchoChat = Callable[[Iterator[EchoRequest], grpc.ServicerContext], Iterator[EchoResponse]]


class ScriptedA(EchoServiceServicer):
    """Answers with what a test gives it, and records when a call came and when it was over."""

    def __init__(self, echo: Echo | None = None, chat: EchoChat | None = None) -> None:
        self._echo = echo
        self._chat = chat
        self.address = ""
        self.entered = threading.Event()
        self.over = threading.Event()
        self.over_at = 0.0
        self.cancelled = False
        self.time_left: float | None = None

    def Echo(self, request: EchoRequest, context: grpc.ServicerContext) -> EchoResponse:  # noqa: N802 - the RPC's name
        """Answer one message."""
        self._note(context, iter(()))
        return self._echo(request, context) if self._echo else EchoResponse(echo=request.msg)

    def EchoChat(  # noqa: N802 - the RPC's name
        self, request_iterator: Iterator[EchoRequest], context: grpc.ServicerContext
    ) -> Iterator[EchoResponse]:
        """Answer a stream."""
        self._note(context, request_iterator)
        assert self._chat is not None
        yield from self._chat(request_iterator, context)

    def _note(self, context: grpc.ServicerContext, requests: Iterator[EchoRequest]) -> None:
        self.time_left = context.time_remaining()
        context.add_callback(lambda: self._ended(requests))
        self.entered.set()

    def _ended(self, requests: Iterator[EchoRequest]) -> None:
        self.over_at = time.monotonic()
        try:
            next(requests, None)
        except grpc.RpcError:
            self.cancelled = True  # all that grpc shows of it: an iterator over the requests of a call that is over
        self.over.set()


@contextlib.contextmanager
def scripted_a(echo: Echo | None = None, chat: EchoChat | None = None) -> Iterator[ScriptedA]:
    """Run such a Service A on a free port."""
    service = ScriptedA(echo, chat)  # type: ignore[abstract]  # its other methods stay unimplemented
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    add_EchoServiceServicer_to_server(service, server)
    service.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield service
    finally:
        server.stop(None).wait()


def until_over(_request: Any, context: grpc.ServicerContext) -> Any:
    """Wait until the call is over."""
    over = threading.Event()
    if context.add_callback(over.set):
        over.wait()
    return EchoResponse()
