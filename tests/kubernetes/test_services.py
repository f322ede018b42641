"""Both services in a real cluster: what is called, who answers, and what an end or a change of pods costs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kubernetes.images import SERVICES
from tests.kubernetes.kubectl import NAMESPACE, Kubectl, condition
from tests.kubernetes.load import Load, until

HELLO = {"service_b": "ok", "service_a": {"echo": "hello"}}
WHOLE_TRACE = {
    ("client", "client"): "echo.v1.CallEchoService/CallEcho",
    ("service-b", "server"): "echo.v1.CallEchoService/CallEcho",
    ("service-b", "client"): "echo.v1.EchoService/Echo",
    ("service-a", "server"): "echo.v1.EchoService/Echo",
}


def answered(system: Kubectl, service: str) -> dict[str, float]:
    """Return how many calls each pod of a service that is ready has answered, by its own count."""
    port, method = {"service-a": (9464, "Echo"), "service-b": (9465, "CallEcho")}[service]
    pattern = rf'^grpc_server_handled_total\{{.*grpc_method="{method}".*\}} (\S+)$'
    counts = {}
    for pod in system.ready(service):
        metrics = system("get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:{port}/proxy/metrics")
        counts[pod] = sum(map(float, re.findall(pattern, metrics, re.MULTILINE)))
    return counts


def call_echo(system: Kubectl, *options: str) -> tuple[Any, str]:
    """Call B by the client, from a pod; return the answer and the call's trace id."""
    tls = ("--tls-ca", "/certs/ca.crt", "--tls-cert", "/certs/tls.crt", "--tls-key", "/certs/tls.key")
    command = ("python", "/client/client", "call-echo", "--verbose", "--service-b", "service-b:8081", *tls, "hello")
    done = system.run("exec", "caller", "--", *command, *options)
    assert done.returncode == 0, done.stderr
    [trace_id] = set(re.findall(r"trace_id=(\w+)", done.stderr))
    return json.loads(done.stdout), trace_id


@pytest.mark.parametrize("service", SERVICES)
def test_rolled_out(system: Kubectl, service: str) -> None:
    """Two pods of each service are ready, run as what they are to run as, and have restarted never."""
    pods = system.pods(service)

    assert ["True"] * 2 == [condition(pod, "Ready") for pod in pods]
    assert [0] * 2 == [pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods]
    assert "10001" == system("exec", f"deployment/{service}", "--", "id", "-u").strip()
    assert system.run("exec", f"deployment/{service}", "--", "touch", "/app/x").returncode != 0


def test_call(system: Kubectl) -> None:
    """A call goes from a pod through B to A, with mutual TLS all the way, and its four spans are one trace."""
    answer, trace_id = call_echo(system)
    lines = [
        json.loads(line)
        for service in SERVICES
        for pod in system.ready(service)
        for line in system("logs", pod).splitlines()
        if trace_id in line
    ]
    until(lambda: len(spans(system, trace_id)) >= len(WHOLE_TRACE))

    assert HELLO == answer
    assert {"client", "service-b,localhost,127.0.0.1,::1", None} == {line.get("peer_identity") for line in lines}
    assert WHOLE_TRACE == {(span["service"], span["kind"]): span["name"] for span in spans(system, trace_id)}


def spans(system: Kubectl, trace_id: str) -> list[dict[str, str]]:
    """Return the spans of a trace that have been received."""
    found = map(json.loads, system("logs", "receiver").splitlines())
    return [span for span in found if span["trace"] == trace_id]


def test_shares(system: Kubectl) -> None:
    """Of all calls each pod of A gets a half, by its own count."""
    with Load(system) as load:
        before = answered(system, "service-a")
        load.wait_for(400)
    counts = [count - before[pod] for pod, count in answered(system, "service-a").items()]

    assert {"OK"} == {*load.codes}, load
    assert len(counts) == len(before) == 2
    assert all(abs(count / sum(counts) - 0.5) <= 0.05 for count in counts), counts


@pytest.mark.parametrize("service", SERVICES)
def test_rolling_update(system: Kubectl, service: str) -> None:
    """When all pods of a service are replaced, under load, no call fails."""
    before = system.ready(service)
    with Load(system) as load:
        system("rollout", "restart", f"deployment/{service}")
        system.rolled_out(service)
        until(lambda: len(system.get("pods", f"--selector=app.kubernetes.io/name={service}")["items"]) == 2)
        load.wait_for(100)

    assert not {*before} & {*system.ready(service)}
    assert {"OK"} == {*load.codes}, load


@pytest.mark.parametrize("service", SERVICES)
def test_broken_image(system: Kubectl, service: str) -> None:
    """An image that does not start stops its own rollout, is undone, and costs no call."""
    before = system.ready(service)
    with Load(system) as load:
        system("set", "image", f"deployment/{service}", f"{service}=grpc-observability-kit/{service}:broken")
        until(lambda: any(is_stuck(pod) for pod in system.pods(service)))
        during = system.ready(service)
        load.wait_for(200)
        system("rollout", "undo", f"deployment/{service}")
        system.rolled_out(service)
        load.wait_for(100)

    assert before == during == system.ready(service)
    assert {"OK"} == {*load.codes}, load


def is_stuck(pod: dict[str, Any]) -> bool:
    """Return whether a pod's image cannot be had."""
    waiting = [status["state"].get("waiting", {}) for status in pod["status"].get("containerStatuses", [])]
    return any(each.get("reason") in {"ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff"} for each in waiting)


@pytest.mark.parametrize(("service", "options"), [("service-a", ()), ("service-b", ("--retry",))])
def test_killed(system: Kubectl, service: str, options: tuple[str, ...]) -> None:
    """Where A is killed in a pod, B tries again; where B is, a caller who does so: that costs no call."""
    with Load(system, *options) as load:
        kill(system, busy(system, service, load))
        load.wait_for(500)

    assert {"OK"} == {*load.codes}, load


def test_killed_under_a_caller_who_does_not_try_again(system: Kubectl) -> None:
    """Where B is killed in a pod, a caller who does not try again loses the calls of one second at most."""
    with Load(system) as load:
        kill(system, busy(system, "service-b", load))
        load.wait_for(500)

    assert {*load.codes} <= {"OK", "UNAVAILABLE"}, load
    assert load.seconds_of_failures <= 1.0, load


def busy(system: Kubectl, service: str, load: Load) -> str:
    """Return the pod of a service that answers most of the load."""
    before = answered(system, service)
    load.wait_for(100)
    return max(before, key=lambda pod: answered(system, service).get(pod, 0.0) - before[pod])


def kill(system: Kubectl, pod: str) -> None:
    """End the service in a pod at once, and wait until it is ready again."""
    before = restarts(system, pod)
    # The first process of a pod cannot be killed from within; a second signal ends ours at once.
    system(
        "exec", pod, "--", "python", "-c", "import os, signal; os.kill(1, signal.SIGINT); os.kill(1, signal.SIGTERM)"
    )
    until(lambda: restarts(system, pod) == before + 1)
    system("wait", "--for=condition=Ready", f"pod/{pod}", "--timeout=60s")


def restarts(system: Kubectl, pod: str) -> int:
    """Return how often the container of a pod has been started again."""
    return int(system.get("pod", pod)["status"]["containerStatuses"][0]["restartCount"])


def test_readiness(system: Kubectl) -> None:
    """A pod that is about to go is not ready, and nobody's any more, while it answers."""
    [pod, *_] = system.ready("service-a")
    address = system.get("pod", pod)["status"]["podIP"]
    assert address in addresses(system)
    system("delete", "pod", pod, "--wait=false")
    until(lambda: address not in addresses(system))
    still_there = pod in system("get", "pods", "--output=name")
    system.rolled_out("service-a")

    assert still_there


def addresses(system: Kubectl) -> set[str]:
    """Return where A's name leads to, as a pod finds."""
    program = "import socket; print(*{each[4][0] for each in socket.getaddrinfo('service-a', 8080)})"
    return {*system("exec", "caller", "--", "python", "-c", program).split()}


@pytest.mark.parametrize("service", SERVICES)
def test_liveness(system: Kubectl, service: str) -> None:
    """A service that does not answer is started again, in the same pod."""
    template = system.get("deployment", service)["spec"]["template"]
    template["metadata"] = {"name": f"frozen-{service}"}
    # No process can stop the first one of its pod.
    template["spec"]["containers"][0]["command"] = ["sh", "-c", f"python {service}/app.py & wait"]
    # Its shell ends at no signal: what is long enough for its preStop.
    template["spec"]["terminationGracePeriodSeconds"] = 3
    system.apply({"apiVersion": "v1", "kind": "Pod", **template})
    pod = template["metadata"]["name"]
    try:
        system("wait", "--for=condition=Ready", f"pod/{pod}", "--timeout=60s")
        system("exec", pod, "--", "sh", "-c", "kill -STOP $(cat /proc/1/task/1/children)")
        until(lambda: restarts(system, pod) == 1)
    finally:
        system("delete", "pod", pod, "--wait=false")


def test_disruption_budget(system: Kubectl) -> None:
    """Of two pods one may be evicted, and the second not before there are two again."""
    pods = system.ready("service-b")
    until(lambda: system.get("poddisruptionbudget", "service-b")["status"]["disruptionsAllowed"] == 1)
    answers = [evict(system, pod) for pod in pods]
    until(lambda: len(system.ready("service-b")) == 2)

    assert "" == answers[0]
    assert "disruption budget" in answers[1]


def evict(system: Kubectl, pod: str) -> str:
    """Ask for a pod's eviction, as a drain does; return why not, if not."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    return system.run("create", "--raw", path, "--filename=-", stdin=json.dumps(eviction)).stderr


def test_autoscaling(system: Kubectl, overlays: Path) -> None:
    """Under load a service gets more pods."""
    [scaler] = [
        each
        for each in documents(overlays / "production" / "autoscalers.yaml")
        if each["metadata"]["name"] == "service-b"
    ]
    scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"] = 2, 3
    scaler["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] = 10
    system.apply(scaler)
    try:
        with Load(system):
            until(lambda: len(system.pods("service-b")) == 3, 180)
    finally:
        system("delete", "horizontalpodautoscaler", "service-b")
        system("scale", "deployment/service-b", "--replicas=2")


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file."""
    return [*yaml.safe_load_all(path.read_text())]


def test_restricted(system: Kubectl) -> None:
    """The namespace refuses a pod that runs as root."""
    container = {"name": "root", "image": "any", "securityContext": {"runAsUser": 0}}
    bad = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root"}, "spec": {"containers": [container]}}
    done = system.run("create", "--filename=-", stdin=json.dumps(bad))

    assert done.returncode != 0
    assert 'violates PodSecurity "restricted' in done.stderr


@pytest.mark.usefixtures("definitions")
@pytest.mark.parametrize("overlay", ["base", "local", "production"])
def test_overlay(system: Kubectl, overlays: Path, overlay: str) -> None:
    """The cluster takes every object of an overlay, and knows each of its fields."""
    system("apply", "--kustomize", overlays / overlay, "--dry-run=server", "--validate=strict")


def test_unknown_field(system: Kubectl, overlays: Path) -> None:
    """It would not take one that it does not know."""
    bad = documents(overlays / "base" / "service-a.yaml")[0]
    bad["spec"]["template"]["spec"]["enableServiceLink"] = False
    done = system.run("apply", "--filename=-", "--dry-run=server", "--validate=strict", stdin=json.dumps(bad))

    assert 'unknown field "spec.template.spec.enableServiceLink"' in done.stderr
