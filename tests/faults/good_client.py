"""A client that means no harm, and what becomes of its calls beside others that do."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc

from client.load import percentile
from protos.echo_pb2 import CallEchoRequest, EchoRequest
from protos.echo_pb2_grpc import CallEchoServiceStub, EchoServiceStub

STUBS: dict[str, Any] = {
    "A": lambda channel: (EchoServiceStub(channel).Echo, EchoRequest(msg="hello")),
    "B": lambda channel: (CallEchoServiceStub(channel).CallEcho, CallEchoRequest(msg="hello")),
}


class GoodClient:
    """
    Calls Service A's Echo, or Service B's CallEcho, at a steady rate over one connection, from `with` to its end.

    A call is late if it takes longer than `timeout` seconds. At the end every call has its code and its seconds, and
    those that have failed when they began, by time.monotonic, and why. The channel is in plain text unless
    `open_channel` opens another.
    """

    def __init__(
        self,
        service: str,
        address: str,
        *,
        rps: float = 40.0,
        timeout: float = 1.0,
        open_channel: Callable[[], grpc.Channel] | None = None,
    ) -> None:
        self.codes: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.failed: list[tuple[float, str]] = []
        self._service = service
        self._open_channel = open_channel or (
            lambda: grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        )
        self._pause = 1 / rps
        self._timeout = timeout
        self._over = threading.Event()
        self._changed = threading.Condition()
        self._begun = 0
        self._thread = threading.Thread(target=self._call, daemon=True)

    def __enter__(self) -> Self:
        self._channel = self._open_channel()
        grpc.channel_ready_future(self._channel).result(10)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        with self._changed:
            self._changed.wait_for(lambda: len(self.seconds) == self._begun, self._timeout + 10)
        self._channel.close()

    def wait_for(self, calls: int, code: str | None = None, timeout: float = 60.0) -> None:
        """Wait until so many calls more have ended, with this code or with any; AssertionError if they do not."""

        def ended() -> int:
            return self.codes.total() if code is None else self.codes[code]

        with self._changed:
            enough = ended() + calls
            assert self._changed.wait_for(lambda: ended() >= enough, timeout), str(self)

    @property
    def succeeded(self) -> float:
        """The share of calls that succeeded, from 0 to 1."""
        return self.codes["OK"] / max(1, self.codes.total())

    @property
    def p99(self) -> float:
        """What 99 % of all calls, those that failed included, do not take longer than, in seconds."""
        return percentile(sorted(self.seconds), 0.99)

    def __str__(self) -> str:
        failed = {code: count for code, count in self.codes.items() if code != "OK"}
        failures = "".join(f", {count} {code}" for code, count in sorted(failed.items()))
        return f"{self.succeeded:.1%} of {self.codes.total()} calls{failures}, p99 {self.p99 * 1000:.0f} ms"

    def _call(self) -> None:
        call, request = STUBS[self._service](self._channel)
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            self._begun += 1
            answer = call.future(request, timeout=self._timeout)
            answer.add_done_callback(partial(self._ended, due, time.monotonic()))
            due += self._pause

    def _ended(self, due: float, begun: float, answer: Any) -> None:
        seconds, code = time.monotonic() - due, answer.code()
        with self._changed:
            self.codes[code.name] += 1
            self.seconds.append(seconds)
            if code is not grpc.StatusCode.OK:
                self.failed.append((begun, f"{code.name}: {answer.details()}"))
            self._changed.notify_all()
