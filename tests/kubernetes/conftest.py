"""One cluster for all tests, with both services in it, and pods from which they are called."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from client.processes import ROOT
from tests.kubernetes.images import image_of, saved
from tests.kubernetes.kubectl import NAMESPACE, Kubectl

HERE = Path(__file__).parent
DEPLOY = ROOT / "deploy" / "kubernetes"
DEFINITIONS = {
    "github.com/cert-manager/cert-manager@v1.19.1": [
        "deploy/crds/cert-manager.io_certificates.yaml",
        "deploy/crds/cert-manager.io_issuers.yaml",
    ],
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": [
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
    ],
}


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """Return what reaches a cluster: that of the variable KUBECONFIG, else one of the tests' own."""
    if "KUBECONFIG" in os.environ:
        theirs = Kubectl("kubectl")
        if theirs.run("get", "namespace", NAMESPACE).returncode == 0:
            pytest.exit(f"there is a namespace {NAMESPACE} already, which these tests would delete", returncode=1)
        yield theirs
    else:
        with cluster(saved(tmp_path_factory.mktemp("images"))) as program:
            yield Kubectl(program)


@contextmanager
def cluster(*images: Path) -> Iterator[str]:
    """Run a cluster with these images; yield the path of its kubectl."""
    command: list[str | Path] = [sys.executable, ROOT / "tools" / "cluster.py", *images]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdin
        assert process.stdout
        try:
            program = process.stdout.readline().strip()
            assert program, "no cluster: see above"
            yield program
        finally:
            process.stdin.close()  # by which it ends, and so it does if this process is killed
            process.wait(60)


@pytest.fixture(scope="session")
def definitions(kubectl: Kubectl) -> None:
    """Have a cluster of the tests' own know the objects of cert-manager and of the Prometheus Operator."""
    if "KUBECONFIG" not in os.environ:
        for path in definition_files():
            kubectl("apply", "--server-side", f"--filename={path}")


def definition_files() -> Iterator[Path]:
    """Yield the definitions of those objects of others' that deploy/kubernetes/production has, from their modules."""
    for module, files in DEFINITIONS.items():
        command = ["go", "mod", "download", "-json", module]
        done = subprocess.run(command, cwd="/", capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stdout
        for file in files:
            yield Path(json.loads(done.stdout)["Dir"], file)


@pytest.fixture(scope="session")
def overlays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of deploy/kubernetes, with certificates in it."""
    folder = tmp_path_factory.mktemp("deploy") / "kubernetes"
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("certs"))
    subprocess.run([sys.executable, ROOT / "tools" / "certs.py", folder / "local" / "certs"], check=True)
    return folder


@pytest.fixture(scope="session")
def system(kubectl: Kubectl, overlays: Path) -> Iterator[Kubectl]:
    """Return the cluster with both services, rolled out, and with pods `caller` and `receiver`; all of it goes."""
    kubectl("apply", "--kustomize", overlays / "local")
    try:
        folders = (("tests", HERE), ("client", ROOT / "client"))
        for name, folder in folders:
            kubectl("create", "configmap", name, *(f"--from-file={path}" for path in sorted(folder.glob("*.py"))))
        certs = overlays / "local" / "certs"
        files = {"tls.crt": "client.pem", "tls.key": "client.key", "ca.crt": "ca.pem"}
        kubectl("create", "secret", "generic", "client", *(f"--from-file={n}={certs / f}" for n, f in files.items()))
        kubectl.apply(
            pod("caller", ["sleep", "infinity"], {"grpc-observability-kit/calls": "service-b"}),
            pod("receiver", ["python", "/tests/receiver.py"], {"app.kubernetes.io/name": "otel-collector"}),
            service("otel-collector", {"app.kubernetes.io/name": "otel-collector"}),
        )
        for name in ("service-a", "service-b"):
            kubectl.rolled_out(name)
        kubectl("wait", "--for=condition=Ready", "pod/caller", "pod/receiver", "--timeout=60s")
        yield kubectl
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def pod(name: str, command: list[str], labels: Mapping[str, str]) -> dict[str, Any]:
    """Return a pod with a program of these tests in it, on the image of Service B: it has all that they import."""
    volumes: dict[str, dict[str, Any]] = {
        "/certs": {"secret": {"secretName": "client", "defaultMode": 0o440}},
        "/client/client": {"configMap": {"name": "client"}},
        "/tests": {"configMap": {"name": "tests"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": {
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "fsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": name,
                    "image": image_of("service-b"),
                    "imagePullPolicy": "Never",
                    "command": command,
                    "env": [
                        {"name": "PYTHONPATH", "value": "/app:/client"},
                        {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://otel-collector:4317"},
                    ],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": [{"name": f"v{number}", "mountPath": path} for number, path in enumerate(volumes)],
                }
            ],
            "volumes": [{"name": f"v{number}", **volume} for number, volume in enumerate(volumes.values())],
        },
    }


def service(name: str, selector: Mapping[str, str], port: int = 4317) -> dict[str, Any]:
    """Return a Service of one port."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": dict(selector), "ports": [{"port": port}]},
    }
