"""The guide's programs do what their pages say, and so does the code that the README shows."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

import pytest

from client.lines import fields
from client.processes import ROOT, Output, environment
from tests.support import python
from tests.support.python import Popen

SERVERS = ["docs/sync-server.md", "docs/asyncio-server.md"]
# Without a collector, and with /metrics at a free port.
VARIABLES = {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_PROMETHEUS_PORT": "0", "GRPC_VERBOSITY": "ERROR"}
# What calls by the client page's other kind of channel, too.
AIO_TOO = """
import asyncio
import grpc.aio
main(sys.argv[1])
with Telemetry.start("buyer") as telemetry:
    print(asyncio.run(ask(telemetry, sys.argv[1])).echo, file=sys.stderr)
"""

# What a reader has around code that is no program: a pool, a service, an address.
AROUND = """
from concurrent.futures import ThreadPoolExecutor
import time
import grpc
import prometheus_client
import structlog
from opentelemetry.sdk.trace import TracerProvider
from observability import *
from protos import echo_pb2, echo_pb2_grpc

pool = ThreadPoolExecutor(2)
address = "127.0.0.1:1"
"""


def code(page: str, kind: str = "") -> list[str]:
    """Return the blocks of Python on a page."""
    return re.findall(rf"^```python{kind}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


@contextmanager
def serving(program: str, *arguments: str) -> Iterator[tuple[str, Output]]:
    """Run a program that serves; gives its address and what it prints, and expects it to end in good order."""
    with Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env=environment(**VARIABLES),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        stdout, stderr = (Output(cast("IO[str]", pipe)) for pipe in (process.stdout, process.stderr))
        try:
            [line] = stdout.wait_for(" event=listening ") or [""]
            yield fields(line)["address"], stdout
            process.send_signal(signal.SIGTERM)
            status = process.wait(10)
        finally:
            process.kill()
    assert ([], 0) == (stderr.wait_for_end(), status)


@pytest.mark.parametrize("page", SERVERS)
def test_server_and_client(page: str) -> None:
    """Each server's page is a program that serves, the client's page one that calls it, by both kinds of channel."""
    plain, aio = code("docs/client.md")
    both = f"{plain.partition('if __name__')[0]}{aio}\n" + AIO_TOO
    [server] = code(page)

    with serving(server, "127.0.0.1:0") as (address, stdout):
        ended = python.run("-c", both, address, variables=VARIABLES)
        lines = [fields(line) for line in stdout.wait_for("endpoint=/echo", count=2)]

    assert ("hello\nhello\n", 0) == (ended.stderr, ended.returncode)
    assert ["5"] * 2 == [line["length"] for line in lines]
    assert ended.stdout.count(" service=buyer endpoint=/echo status=ok ") == len(lines)


def test_parts() -> None:
    """Those who bring their own parts put them together as the page does."""
    [parts] = code("docs/sync-server.md", " parts")
    program = f"""{AROUND}
tracer_provider, registry = TracerProvider(), prometheus_client.CollectorRegistry()
logger = structlog.get_logger().bind(service="A")
{parts}
server.start()
failure = channel.unary_unary("/echo.v1.EchoService/Echo").future(b"", timeout=5).exception()
labels = dict(grpc_type="unary", grpc_service="echo.v1.EchoService", grpc_method="Echo", grpc_code="UNAVAILABLE")
until = time.monotonic() + 10
while not (handled := registry.get_sample_value("grpc_client_handled_total", labels)) and time.monotonic() < until:
    time.sleep(0.01)  # another thread counts the end of a call that somebody waits for
print(failure.code().name, handled)
server.stop(None).wait()
"""
    ended = python.run("-c", program, variables=VARIABLES)

    assert ("", 0) == (ended.stderr, ended.returncode)
    # The call's line may come after it.
    assert "UNAVAILABLE 1.0" in ended.stdout.splitlines()


def test_readme() -> None:
    """The code that the README shows serves."""
    [shown] = code("README.md")
    replaced = {"orders.v1.Orders": "echo.v1.EchoService", "127.0.0.1:8080": "127.0.0.1:0"}
    for name, ours in replaced.items():
        assert name in shown
        shown = shown.replace(name, ours)

    with serving(f"{AROUND}\n{shown}\nraise SystemExit(status)") as (address, _stdout):
        assert address.startswith("127.0.0.1:")


def test_beside() -> None:
    """Metrics, spans and lines of one's own stand beside those of calls, as the page says."""
    blocks = code("docs/beside.md")
    program = "\n".join(
        [
            AROUND,
            'telemetry = Telemetry.start("orders")',
            *blocks,
            "assert bake(3) == 3",
            'value = prometheus_client.REGISTRY.get_sample_value("orders_baskets_total", {"kind": "bread"})',
            "telemetry.close()",
            "print(value)",
        ]
    )
    ended = python.run("-c", program, variables=VARIABLES)

    assert ("", 0) == (ended.stderr, ended.returncode)
    assert "1.0" == ended.stdout.splitlines()[-1]
    assert " service=orders level=info event=baked loaves=3\n" in ended.stdout
