"""The example of authentication: who has a token is served, and a refusal is reported as what the caller got."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from client.lines import fields
from client.processes import ROOT, environment
from examples.aio_bearer_token import AioBearerToken
from examples.bearer_token import BearerToken, Tokens
from observability import AioServerInterceptor, ServerInterceptor
from protos.echo_pb2 import HealthCheckRequest
from protos.echo_pb2_grpc import HealthServiceStub
from tests.support.outputs import outputs
from tests.support.recorder import Recorder
from tests.support.rpc import (
    AIO_ECHOES,
    ARITIES,
    ECHOES,
    LOCAL,
    RESPONSES,
    STREAMS,
    aio_serving,
    method,
    requests,
    serving,
)
from tests.support.tls import Authority, Files

STACKS = pytest.mark.parametrize("stack", ["sync", "aio"])
TOKENS = Tokens("s3cr3t", "another")
TAKEN = ("Bearer s3cr3t", "bearer another")
REFUSED = [
    [],
    [("authorization", "")],
    [("authorization", "Bearer")],
    [("authorization", "Bearer s3cr3")],
    [("authorization", "Bearer s3cr3t ")],
    [("authorization", "Basic s3cr3t")],
    [("authorization", "Bearer wrong"), ("authorization", "Bearer s3cr3t")],
    [("token", "s3cr3t")],
]


def outcomes(stack: str, recorder: Recorder, arity: str, metadata: list[list[tuple[str, str]]]) -> list[Any]:
    """Make a call of this arity with each of these metadata; return what each answers: a list, or an error's code."""
    if stack == "sync":
        interceptors = ServerInterceptor(*recorder.observers), BearerToken(TOKENS)
        with serving(*interceptors, **{arity: ECHOES[arity]}) as address:
            return call_each(address, arity, metadata)
    return asyncio.run(aio_outcomes(recorder, arity, metadata))


async def aio_outcomes(recorder: Recorder, arity: str, metadata: list[list[tuple[str, str]]]) -> list[Any]:
    """Do it on an asyncio server."""
    interceptors = AioServerInterceptor(*recorder.observers), AioBearerToken(TOKENS)
    async with aio_serving(*interceptors, **{arity: AIO_ECHOES[arity]}) as address:
        return await asyncio.to_thread(call_each, address, arity, metadata)


def call_each(address: str, arity: str, metadata: list[list[tuple[str, str]]]) -> list[Any]:
    """Make the calls."""
    found: list[Any] = []
    with grpc.insecure_channel(address) as channel:
        for each in metadata:
            try:
                answer = method(channel, arity)(requests(arity), timeout=10, metadata=each)
                found.append([*answer] if arity in STREAMS else [answer])
            except grpc.RpcError as error:
                found.append(error.code())
    return found


@STACKS
@pytest.mark.parametrize("arity", ARITIES)
def test_who_is_served(stack: str, arity: str) -> None:
    """Calls with one of the tokens are served, and no others; each is reported once, as what its caller got."""
    recorder = Recorder()
    metadata = [[("authorization", value)] for value in TAKEN] + REFUSED
    found = outcomes(stack, recorder, arity, metadata)
    recorder.wait_for(len(metadata))

    taken, refused = len(TAKEN), len(REFUSED)
    assert [RESPONSES[arity]] * taken + [grpc.StatusCode.UNAUTHENTICATED] * refused == found
    assert [["OK"] * taken + ["UNAUTHENTICATED"] * refused] * 4 == recorder.everywhere()
    assert {arity} == {call.type for call in recorder.calls}
    assert {"StatusCode.UNAUTHENTICATED: a valid bearer token is needed"} == {
        line["error"] for line in recorder.lines if line["code"] != "OK"
    }
    assert "s3cr3t" not in str(recorder.lines)


@STACKS
def test_unknown_method(stack: str) -> None:
    """A method that there is not is UNIMPLEMENTED, to whomever."""
    recorder = Recorder()
    if stack == "sync":
        with serving(ServerInterceptor(*recorder.observers), BearerToken(TOKENS), unary=ECHOES["unary"]) as address:
            found = call_each(address, "bidi_stream", [[]])
    else:

        async def serve() -> list[Any]:
            interceptors = AioServerInterceptor(*recorder.observers), AioBearerToken(TOKENS)
            async with aio_serving(*interceptors, unary=AIO_ECHOES["unary"]) as address:
                return await asyncio.to_thread(call_each, address, "bidi_stream", [[]])

        found = asyncio.run(serve())
    recorder.wait_for()

    assert [grpc.StatusCode.UNIMPLEMENTED] == found
    assert [["UNIMPLEMENTED"]] * 4 == recorder.everywhere()


@pytest.mark.parametrize("module", ["bearer_token", "aio_bearer_token"])
def test_program(tmp_path: Path, module: str) -> None:
    """The program serves with TLS those who have a token, health checks to everybody, and shows no token."""
    authority = Authority()
    files = Files(tmp_path, authority)
    process = subprocess.Popen(
        [sys.executable, "-m", f"examples.{module}", LOCAL, files.certificate, files.key],
        cwd=ROOT,
        env=environment(TOKENS="s3cr3t,another", OTEL_TRACES_EXPORTER="none", OTEL_EXPORTER_PROMETHEUS_PORT="0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    stdout, stderr = outputs(process)
    try:
        [listening] = stdout.wait_for(" event=listening ")
        with grpc.secure_channel(fields(listening)["address"], authority.client()) as channel:
            check = HealthServiceStub(channel).Check
            answer = check(HealthCheckRequest(), timeout=10, metadata=(("authorization", "Bearer another"),))
            with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
                check(HealthCheckRequest(), timeout=10)
            health = method(channel, "unary", "/grpc.health.v1.Health/Check")(b"", timeout=10)
            codes = [fields(line)["code"] for line in stdout.wait_for("endpoint=/check", count=2)]
    finally:
        process.terminate()
        process.wait(20)
        lines = stdout.wait_for_end() + stderr.wait_for_end()

    assert ("ok", b"\x08\x01") == (answer.status, health)
    assert ["OK", "UNAUTHENTICATED"] == codes
    assert not [line for line in lines if "s3cr3t" in line or "another" in line]
