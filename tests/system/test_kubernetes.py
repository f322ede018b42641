"""The files for Kubernetes fit each other, and the programs that they start."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from client.processes import ROOT
from observability.serving.health import LIVENESS
from tests.system.test_settings import PROGRAMS

FOLDER = ROOT / "deploy" / "kubernetes"
FILES = sorted(FOLDER.rglob("*.yaml"))
SERVICES = ("service-a", "service-b")
NAME = "app.kubernetes.io/name"


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def objects() -> dict[str, dict[str, dict[str, Any]]]:
    """Return every object of every file by its kind and name."""
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for path in FILES:
        for document in documents(path):
            if path.name != "kustomization.yaml":
                kind, name = document["kind"], document["metadata"]["name"]
                assert name not in found[kind], f"two of {kind} {name}"
                found[kind][name] = document
    return found


OBJECTS = objects()
PODS = {name: OBJECTS["Deployment"][name]["spec"]["template"] for name in SERVICES}
CONTAINERS = {name: pod["spec"]["containers"][0] for name, pod in PODS.items()}


def variables(service: str) -> dict[str, Any]:
    """Return the variables of a service's container, None where the value is a field of the pod."""
    return {variable["name"]: variable.get("value") for variable in CONTAINERS[service]["env"]}


def ports(service: str) -> dict[str, int]:
    """Return the ports of a service's container by their names."""
    return {port["name"]: port["containerPort"] for port in CONTAINERS[service]["ports"]}


def options(service: str) -> dict[str, click.Parameter]:
    """Return the options of a service by the variables that they are, too."""
    return {str(option.envvar): option for option in PROGRAMS[service].params if option.envvar}


@pytest.mark.parametrize("folder", ["base", "local", "production"])
def test_every_file_is_used(folder: str) -> None:
    """A kustomization names every file of its folder, and none that is not there."""
    [kustomization] = documents(FOLDER / folder / "kustomization.yaml")
    files = {path.name for path in (FOLDER / folder).glob("*.yaml")} - {"kustomization.yaml"}

    assert files == {name for name in kustomization["resources"] if name != "../base"}


@pytest.mark.parametrize("service", SERVICES)
def test_variables(service: str) -> None:
    """Each variable of a service's own is one of its options, and its value one that it takes."""
    known = options(service)
    context = click.Context(PROGRAMS[service])
    ours = {name: value for name, value in variables(service).items() if name.startswith("SERVICE_")}

    assert ours
    for name, value in ours.items():
        assert name in known, name
        if "TLS" not in name or "NAME" in name:  # the files are in the container alone
            known[name].type.convert(value.replace("$(POD_NAMESPACE)", "any"), known[name], context)


@pytest.mark.parametrize(("service", "metrics"), [("service-a", 9464), ("service-b", 9465)])
def test_ports(service: str, metrics: int) -> None:
    """The ports are those at which the service listens, and what leads to them names the same."""
    prefix = service.upper().replace("-", "_")
    named = ports(service)
    [published] = OBJECTS["Service"][service]["spec"]["ports"]
    probes = [CONTAINERS[service][f"{kind}Probe"]["grpc"] for kind in ("startup", "readiness", "liveness")]

    assert {"grpc", "metrics", "health"} == named.keys()
    assert options(service)[f"{prefix}_PORT"].default == named["grpc"] == published["port"]
    assert "grpc" == published["targetPort"]
    assert metrics == named["metrics"]
    assert str(metrics) == PODS[service]["metadata"]["annotations"]["prometheus.io/port"]
    assert str(named["health"]) == variables(service)[f"{prefix}_HEALTH_PORT"]
    assert [{"port": named["health"], "service": name} for name in (LIVENESS, "readiness", LIVENESS)] == probes


@pytest.mark.parametrize("service", SERVICES)
def test_selectors(service: str) -> None:
    """What selects a service's pods selects those that there are."""
    selected = {NAME: service}
    spread = PODS[service]["spec"]["topologySpreadConstraints"]

    assert selected == PODS[service]["metadata"]["labels"]
    assert selected == OBJECTS["Deployment"][service]["spec"]["selector"]["matchLabels"]
    assert selected == OBJECTS["Service"][service]["spec"]["selector"]
    assert selected == OBJECTS["PodDisruptionBudget"][service]["spec"]["selector"]["matchLabels"]
    assert selected == OBJECTS["PodMonitor"][service]["spec"]["selector"]["matchLabels"]
    assert service == OBJECTS["HorizontalPodAutoscaler"][service]["spec"]["scaleTargetRef"]["name"]
    assert [selected] * 2 == [constraint["labelSelector"]["matchLabels"] for constraint in spread]
    assert {
        port["port"] for rule in OBJECTS["NetworkPolicy"][service]["spec"]["ingress"] for port in rule["ports"]
    } == {"grpc"}


def test_b_finds_a() -> None:
    """B's target is the headless Service of A, whose name is in A's certificate."""
    named = variables("service-b")
    [port] = OBJECTS["Service"]["service-a"]["spec"]["ports"]

    assert "None" == OBJECTS["Service"]["service-a"]["spec"]["clusterIP"]
    assert f"dns:///service-a.$(POD_NAMESPACE).svc.cluster.local.:{port['port']}" == named["SERVICE_A_ADDRESS"]
    assert named["SERVICE_B_TLS_SERVER_NAME"] in OBJECTS["Certificate"]["service-a"]["spec"]["dnsNames"]


@pytest.mark.parametrize("service", SERVICES)
def test_certificates(service: str) -> None:
    """The files that a service reads are those of its Secret, which both overlays make."""
    [volume] = PODS[service]["spec"]["volumes"]
    [mount] = CONTAINERS[service]["volumeMounts"]
    [local] = documents(FOLDER / "local" / "kustomization.yaml")
    made = {secret["name"]: secret["files"] for secret in local["secretGenerator"]}
    secret = volume["secret"]["secretName"]
    read = {value for name, value in variables(service).items() if "_TLS_" in name and "NAME" not in name}

    assert volume["name"] == mount["name"]
    assert read == {f"{mount['mountPath']}/{file.partition('=')[0]}" for file in made[secret]}
    assert secret == OBJECTS["Certificate"][service]["spec"]["secretName"]


@pytest.mark.parametrize("service", SERVICES)
def test_time_to_end(service: str) -> None:
    """A pod has the time that its end takes, and a pod that goes is missed by nobody."""
    prefix = service.upper().replace("-", "_")
    spec, container, named = PODS[service]["spec"], CONTAINERS[service], variables(service)
    seconds = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    seconds += float(named[f"{prefix}_DRAIN_DELAY"]) + float(named[f"{prefix}_GRACE"])

    assert spec["terminationGracePeriodSeconds"] >= seconds + 5  # telemetry's last words
    assert 0 == OBJECTS["Deployment"][service]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"]


@pytest.mark.parametrize("service", SERVICES)
def test_restricted(service: str) -> None:
    """A pod is what the namespace's Pod Security asks for, and has no variables of Services and no token."""
    spec, container = PODS[service]["spec"], CONTAINERS[service]
    expected = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    namespace = OBJECTS["Namespace"]["grpc-observability-kit"]["metadata"]["labels"]

    assert "restricted" == namespace["pod-security.kubernetes.io/enforce"]
    assert expected == container["securityContext"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert {"type": "RuntimeDefault"} == spec["securityContext"]["seccompProfile"]
    assert [False, False] == [spec["enableServiceLinks"], spec["automountServiceAccountToken"]]
