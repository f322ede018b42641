"""Calls that go on in the background, and their outcomes."""

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest as StandardHealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from protos.echo_pb2 import CallEchoRequest, EchoRepeatRequest, EchoRequest, HealthCheckRequest
from protos.echo_pb2_grpc import CallEchoServiceStub, EchoServiceStub, HealthServiceStub

PAUSE = 0.02  # seconds between calls
TOO_LONG = "x" * (64 * 1024 + 1)


class Traffic:
    """Calls every RPC of both services in turn, from `with` to its end; 1 in 10 is refused as too long."""

    def __init__(self, a: str, b: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self._channels = [grpc.insecure_channel(address) for address in (a, b)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        for channel in self._channels:
            channel.close()

    def _run(self) -> None:
        for call in itertools.cycle(self._calls()):
            if self._over.wait(PAUSE):
                return
            try:
                call()
            except grpc.RpcError as error:
                self.outcomes[error.code().name] += 1
            else:
                self.outcomes["OK"] += 1

    def _calls(self) -> list[Callable[[], Any]]:
        a, b = EchoServiceStub(self._channels[0]), CallEchoServiceStub(self._channels[1])
        health, standard = HealthServiceStub(self._channels[0]), _standard_health(self._channels[0])
        request = EchoRequest(msg="hello")
        return [
            lambda: a.Echo(request, timeout=5),
            lambda: list(a.EchoRepeat(EchoRepeatRequest(msg="hello", times=3), timeout=5)),
            lambda: a.EchoJoin(iter([request] * 3), timeout=5),
            lambda: list(a.EchoChat(iter([request] * 3), timeout=5)),
            lambda: b.CallEcho(CallEchoRequest(msg="hello"), timeout=5),
            lambda: list(b.CallEchoChat(iter([CallEchoRequest(msg="hello")] * 3), timeout=5)),
            lambda: b.CallEcho(CallEchoRequest(msg="hello again"), timeout=5),
            lambda: b.CallEcho(CallEchoRequest(msg=TOO_LONG), timeout=5),
            lambda: health.Check(HealthCheckRequest(), timeout=5),
            lambda: standard.Check(StandardHealthCheckRequest(), timeout=5),
        ]


def _standard_health(channel: grpc.Channel) -> Any:
    return HealthStub(channel)  # whose types do not have its methods
