"""The programs as separate processes: `words`, and the services."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Any, Self, cast

from client import processes
from client.processes import ROOT, Output, environment
from tests.support.outputs import watch
from tests.support.python import Popen

NOWHERE = "http://127.0.0.1:1"
"""An endpoint where nobody listens."""


def sending(endpoint: str, *, timeout: float = 5, **variables: str) -> dict[str, str]:
    """Return the variables with which spans are sent to an endpoint, and at once."""
    return {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_TIMEOUT": str(timeout),
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        **variables,
    }


class PlainService(processes.Service):
    """A service, started as ever, whose errors its test fails on unless it expects them."""

    def __init__(self, folder: str, *options: str, **variables: str) -> None:
        super().__init__(folder, *options, **variables)
        watch(self._process, self.stdout, self.stderr)


class Service(PlainService):
    """The same, forked where that makes no difference."""

    start = Popen


class Words:
    """
    The program `words`, from `with` to its end; of the variables that steer it, it has the ones given.

    Unless they say otherwise, it sends its spans nowhere.

    It runs the lines `before`, starts telemetry with the options, and takes commands, which are methods here.
    """

    def __init__(self, variables: Mapping[str, str] = {}, *, before: str = "", **options: Any) -> None:
        self._options = {"metrics_port": 0, **options}
        replies, its_replies = os.pipe()
        program = f"import sys\n{before}\nfrom tests.support.programs import words\nwords.main()"
        self._process = Popen(
            [sys.executable, "-c", program, str(its_replies)],
            cwd=ROOT,
            env=environment(**{"GRPC_VERBOSITY": "NONE", "OTEL_TRACES_EXPORTER": "none", **variables}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[its_replies],
        )
        os.close(its_replies)
        self._replies = os.fdopen(replies)
        self.stdout = Output(cast("IO[str]", self._process.stdout))
        self.stderr = Output(cast("IO[str]", self._process.stderr))

    def __enter__(self) -> Self:
        try:
            self.addresses = self._do("start", **self._options)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cast("IO[str]", self._process.stdin).close()
        self._replies.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, request: str = "OK", count: int = 1, **metadata: str) -> list[str]:
        """Make this many calls with this metadata; return their codes."""
        return cast("list[str]", self._do("call", request=request, count=count, **metadata))

    def scrape(self) -> str:
        """Return what /metrics says, exemplars included."""
        return str(self._do("scrape"))

    def log(self, event: str, count: int = 1) -> None:
        """Log this many application lines by structlog, and as many by `logging`."""
        self._do("log", event=event, count=count)

    def tracing(self) -> dict[str, str]:
        """Return how spans are sampled, carried and sent."""
        return cast("dict[str, str]", self._do("tracing"))

    def resource(self) -> dict[str, str]:
        """Return the attributes of the resource that its spans are of."""
        return cast("dict[str, str]", self._do("resource"))

    def send(self) -> None:
        """Have the spans that wait sent."""
        self._do("send")

    def flush(self, seconds: float) -> tuple[bool, float]:
        """Flush telemetry; return what that returns, and the seconds that it took."""
        out, took = self._do("flush", seconds=seconds)
        return bool(out), float(took)

    def close(self) -> float:
        """Close telemetry; return the seconds that took."""
        return float(self._do("close"))

    def end(self) -> int:
        """Let it end by itself; return its exit status."""
        cast("IO[str]", self._process.stdin).close()
        return self._process.wait(10)

    def _do(self, name: str, **arguments: Any) -> Any:
        stdin = cast("IO[str]", self._process.stdin)
        print(json.dumps([name, arguments]), file=stdin, flush=True)
        reply = self._replies.readline()
        if not reply:
            raise RuntimeError("\n".join(["words has ended:", *self.stderr.wait_for_end()]))
        return json.loads(reply)
