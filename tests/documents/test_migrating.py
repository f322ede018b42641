"""The code of docs/migrating.md runs, and what the page says of names is so."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "migrating.md").read_text()
BLOCKS = re.findall(r"```python (before|after) (\S+)\n(.*?)```", PAGE, re.DOTALL)

# What a reader has around the page's code: a pool, an address, a service, and a call through the channel.
AROUND = """
import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
import prometheus_client

from protos import echo_pb2, echo_pb2_grpc


class Echo(echo_pb2_grpc.EchoServiceServicer):
    def Echo(self, request, context):
        return echo_pb2.EchoResponse(echo=request.msg)


pool = ThreadPoolExecutor(2)
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{probe.getsockname()[1]}"
{code}
echo_pb2_grpc.add_EchoServiceServicer_to_server(Echo(), server)
server.add_insecure_port(address)
server.start()
print(echo_pb2_grpc.EchoServiceStub(channel).Echo(echo_pb2.EchoRequest(msg="moved")).echo)
server.stop(None).wait()
print(prometheus_client.generate_latest().decode())
"""


def run(code: str) -> str:
    """Run a block of the page with what a reader has around it, and return what it prints."""
    program = AROUND.replace("{code}", code.replace("metrics_port=9464", "metrics_port=0"))
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none", "LOG_LEVEL": "error"}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block[1]}-{block[0]}")
def test_the_code_runs(block: tuple[str, str, str]) -> None:
    """
    Each block of code on the page, before and after, makes a server and a channel between which a call succeeds.
    """
    output = run(block[2])

    assert "moved" == output.splitlines()[0]


def test_the_metrics_keep_their_names() -> None:
    """
    What py-grpc-prometheus counts stands under the same name here, but for what the page says is not there.
    """
    codes = {kind: code for kind, peer, code in reversed(BLOCKS) if peer == "py-grpc-prometheus"}
    before, after = (set(re.findall(r"# TYPE (grpc_\w+)", run(codes[kind]))) for kind in ("before", "after"))
    created = {name for name in before if name.endswith("_created")}

    assert set() == {name for name in before - after - created if name not in PAGE}


def test_the_label_values_are_told() -> None:
    """
    The old and the new value of grpc_type are the page's.
    """
    codes = {kind: code for kind, peer, code in reversed(BLOCKS) if peer == "py-grpc-prometheus"}
    started = r'grpc_server_started_total\{.*grpc_method="Echo".*grpc_type="(\w+)"'

    assert ["UNARY", "unary"] == [re.findall(started, run(codes[kind]))[0] for kind in ("before", "after")]
