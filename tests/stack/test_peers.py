"""Third-party programs understand our services."""

import json
import os
import subprocess

import pytest

from client.processes import ROOT
from tests.stack.programs import run
from tests.stack.stack import Stack

SERVICES = {
    "a": {"echo.v1.EchoService", "echo.v1.HealthService"},
    "b": {"echo.v1.CallEchoService", "echo.v1.HealthService"},
}
STANDARD = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}


@pytest.mark.parametrize("side", ["a", "b"])
def test_grpcurl_lists(stack: Stack, side: str) -> None:
    """Grpcurl lists every service through reflection."""
    listed = run("grpcurl", "-plaintext", getattr(stack, side).address, "list")

    assert SERVICES[side] | STANDARD == set(listed.split())


@pytest.mark.parametrize(
    ("side", "method", "request_", "answers"),
    [
        ("a", "echo.v1.EchoService/Echo", {"msg": "hello"}, [{"echo": "hello"}]),
        ("a", "echo.v1.EchoService/EchoRepeat", {"msg": "hello", "times": 2}, [{"echo": "hello"}] * 2),
        ("b", "echo.v1.HealthService/Check", {}, [{"status": "ok"}]),
        ("b", "grpc.health.v1.Health/Check", {}, [{"status": "SERVING"}]),
        (
            "b",
            "echo.v1.CallEchoService/CallEcho",
            {"msg": "hello"},
            [{"service_b": "ok", "service_a": {"echo": "hello"}}],
        ),
    ],
)
def test_grpcurl_calls(
    stack: Stack, side: str, method: str, request_: dict[str, object], answers: list[dict[str, object]]
) -> None:
    """Grpcurl calls both services knowing nothing but what reflection returns."""
    address = getattr(stack, side).address
    safe_str = run("grpcurl", "-plaintext", "-d", json.dumps(request_), address, method)

    assert answers == objects(safe_str)


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("service", ["", "echo.v1.HealthService"])
def test_health_probe(stack: Stack, side: str, service: str) -> None:
    """The health probe that Kubernetes users know gets SERVING, for the server and for a service of it."""
    run("grpc-health-probe", f"-addr={getattr(stack, side).address}", f"-service={service}")


@pytest.mark.parametrize(
    ("side", "method"), [("a", "echo.v1.EchoService.Echo"), ("b", "echo.v1.CallEchoService.CallEcho")]
)
def test_ghz(stack: Stack, side: str, method: str) -> None:
    """10,000 calls by ghz, 20 at a time, end without one error."""
    report = run(
        "ghz",
        *("--insecure", "--total=10000", "--concurrency=20", "--format=json"),
        # By reflection ghz asks for the method itself, which grpcio-reflection cannot find: bojand/ghz#419.
        *("--proto=protos/echo.proto", f"--call={method}", '--data={"msg": "hello"}'),
        getattr(stack, side).address,
    )

    assert {"OK": 10_000} == json.loads(report)["statusCodeDistribution"]


def test_buf_lint() -> None:
    """The API keeps to buf's standard rules, but for those that buf.yaml excepts with a reason."""
    assert "" == run("buf", "lint")


def test_buf_breaking() -> None:
    """The API breaks no caller of the last commit's."""
    if not git("rev-parse", "--quiet", "--verify", "HEAD~1"):
        # A first commit has none before it; a shallow clone has, elsewhere, and in CI it must be here.
        if os.environ.get("CI") and git("rev-parse", "--is-shallow-repository") != "false":
            pytest.fail("the commit before this one is not in this clone: git fetch --deepen=1")
        pytest.skip("there is no commit before this one here")

    assert "" == run("buf", "breaking", "--against", ".git#ref=HEAD~1")


def git(*arguments: str) -> str:
    """Ask git about this clone; empty if it has no answer."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def objects(text: str) -> list[dict[str, object]]:
    """Return the JSON objects of a text, one after the other."""
    found, position, decoder = [], 0, json.JSONDecoder()
    while text := text[position:].lstrip():
        answer, position = decoder.raw_decode(text)
        found.append(answer)
    return found
