"""
The first process of a Kubernetes node: starts every other, and is all that must end for them to.

`cluster.py` starts it in namespaces, with the folder of its files. It makes the file `ready` there when pods can run.
"""

# A program run by path, which starts others with arguments that it builds.
# ruff: noqa: INP001, S603

import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

ADDRESS = "10.77.0.1"
SERVICES = "10.96.0.0/16"
CGROUPS = Path("/sys/fs/cgroup")
RUNTIME = "/run/containerd/containerd.sock"
# What the kubelet sets for a whole machine: here it sets files that lie over the settings.
SETTINGS = {
    "vm/overcommit_memory": 1,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
# metrics-server is no pod here, so its Service is given its address.
METRICS = """\
apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: kube-system}
spec: {ports: [{port: 443, targetPort: 4443}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: metrics-server, namespace: kube-system}
subsets: [{addresses: [{ip: 10.77.0.1}], ports: [{port: 4443}]}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  group: metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {name: metrics-server, namespace: kube-system}
"""


class Node:
    """The node whose files are in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start(self) -> None:
        """Start all of it, and return when pods can run."""
        self._lay_out()
        self._start("containerd", "containerd", f"--config={self._folder}/containerd.toml")
        importing = threading.Thread(target=self._import_images)
        importing.start()
        self._start("etcd", *self._etcd())
        self._start("kube-apiserver", *self._api_server())
        until(self._api_is_ready)
        for name, arguments in self._others().items():
            self._start(name, *arguments)
        run(*self._kubectl("apply", "-f", "-"), text=METRICS)
        importing.join()
        for condition in ("nodes", "apiservice/v1beta1.metrics.k8s.io"):
            until(partial(self._has_it, condition))
        (self._folder / "ready").touch()

    def _lay_out(self) -> None:
        """Give the node its mounts, settings, cgroups and network."""
        socket.sethostname("node")
        run("mount", "--make-rshared", "/")
        run("mount", "-t", "proc", "proc", "/proc")
        run("mount", "-t", "tmpfs", "tmpfs", "/run")
        Path("/run/netns").mkdir()
        Path("/run/lock").mkdir()
        for path in ("/var/log", "/var/lib/cni"):
            Path(path).mkdir(exist_ok=True)
            over = self._folder / path.strip("/").replace("/", "-")
            over.mkdir()
            run("mount", "--bind", str(over), path)
        for name, value in SETTINGS.items():
            setting, instead = Path("/proc/sys", name), self._folder / name.replace("/", "-")
            instead.write_text(f"{value}\n")
            if setting.exists():
                run("mount", "--bind", str(instead), str(setting))
        for hierarchy in CGROUPS.iterdir():
            if hierarchy.is_dir() and hierarchy.name != "unified":
                (hierarchy / self._folder.name).mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            (CGROUPS / "cpuset" / self._folder.name / name).write_text((CGROUPS / "cpuset" / name).read_text())
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "node", "type", "bridge")
        run("ip", "address", "add", f"{ADDRESS}/24", "dev", "node")
        run("ip", "link", "set", "node", "up")
        run("ip", "route", "add", "default", "via", "10.77.0.254", "dev", "node")  # the kubelet asks for one
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def _start(self, name: str, program: str, *arguments: str) -> None:
        with (self._folder / "log" / f"{name}.log").open("wb") as log:
            path = self._folder / "bin" / program
            subprocess.Popen(
                [path if path.exists() else program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )

    def _etcd(self) -> list[str]:
        client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
        return [
            "etcd",
            f"--data-dir={self._folder}/etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",  # nothing of it is to last
        ]

    def _api_server(self) -> list[str]:
        pki = f"{self._folder}/pki"
        return [
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={ADDRESS}",
            "--bind-address=0.0.0.0",
            "--secure-port=6443",
            f"--tls-cert-file={pki}/api.pem",
            f"--tls-private-key-file={pki}/api.key",
            f"--client-ca-file={pki}/ca.pem",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            f"--token-auth-file={self._folder}/users.csv",
            "--enable-admission-plugins=NodeRestriction",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki}/tokens.pem",
            f"--service-account-signing-key-file={pki}/tokens.key",
            "--allow-privileged=true",
            f"--requestheader-client-ca-file={pki}/ca.pem",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={pki}/proxy.pem",
            f"--proxy-client-key-file={pki}/proxy.key",
            "--enable-aggregator-routing=true",
            "--kubelet-preferred-address-types=InternalIP",
        ]

    def _others(self) -> dict[str, list[str]]:
        folder = self._folder

        def known_by(user: str) -> list[str]:
            flags = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
            return [f"--{flag}={folder}/{user}.conf" for flag in flags]

        return {
            "kubelet": [
                "kubelet",
                f"--config={folder}/kubelet.json",
                f"--kubeconfig={folder}/kubelet.conf",
                f"--root-dir={folder}/kubelet",
                f"--cert-dir={folder}/pki",
                f"--node-ip={ADDRESS}",
                "--hostname-override=node",
            ],
            "kube-controller-manager": [
                "kube-controller-manager",
                *known_by("controller-manager"),
                "--use-service-account-credentials=true",
                f"--service-account-private-key-file={folder}/pki/tokens.key",
                f"--root-ca-file={folder}/pki/ca.pem",
                "--bind-address=127.0.0.1",
                f"--cert-dir={folder}/pki",
                "--leader-elect=false",
                # A test has no minutes to wait.
                "--horizontal-pod-autoscaler-sync-period=5s",
                "--horizontal-pod-autoscaler-cpu-initialization-period=10s",
                "--horizontal-pod-autoscaler-initial-readiness-delay=5s",
            ],
            "kube-scheduler": [
                "kube-scheduler",
                *known_by("scheduler"),
                "--bind-address=127.0.0.1",
                f"--cert-dir={folder}/pki",
                "--leader-elect=false",
            ],
            "kube-proxy": ["kube-proxy", f"--config={folder}/proxy.json"],
            "coredns": ["coredns", f"-conf={folder}/Corefile"],
            "metrics-server": [
                "metrics-server",
                *known_by("metrics"),
                "--secure-port=4443",
                f"--cert-dir={folder}/pki",
                "--kubelet-insecure-tls",
                "--kubelet-preferred-address-types=InternalIP",
                "--metric-resolution=10s",
                "--kubelet-request-timeout=5s",
            ],
        }

    def _import_images(self) -> None:
        ctr = ("ctr", f"--address={RUNTIME}", "--namespace=k8s.io")
        until(lambda: subprocess.run([*ctr, "version"], capture_output=True, check=False).returncode == 0)
        for image in sorted((self._folder / "images").iterdir()):
            run(*ctr, "images", "import", str(image))

    def _api_is_ready(self) -> bool:
        context = ssl.create_default_context(cafile=self._folder / "pki" / "ca.pem")
        try:
            with urllib.request.urlopen(f"https://{ADDRESS}:6443/readyz", timeout=5, context=context):
                return True
        except OSError:
            return False

    def _kubectl(self, *arguments: str) -> list[str]:
        return [f"{self._folder}/bin/kubectl", f"--kubeconfig={self._folder}/admin.conf", *arguments]

    def _has_it(self, what: str) -> bool:
        """Return whether this is there and ready, or available."""
        done = subprocess.run(self._kubectl("get", what, "-o=json"), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return False
        found = json.loads(done.stdout)
        conditions = [condition for item in found.get("items", [found]) for condition in item["status"]["conditions"]]
        return any(each["type"] in {"Ready", "Available"} and each["status"] == "True" for each in conditions)


def run(*command: str, text: str = "") -> None:
    """Run a command, which has to succeed."""
    subprocess.run(command, input=text, text=True, check=True)


def until(condition: Callable[[], bool]) -> None:
    """Wait until this is so; whoever has started the node waits no longer than they want."""
    while not condition():
        time.sleep(0.2)


if __name__ == "__main__":
    Node(Path(sys.argv[1])).start()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what ends is then gone: a first process gets others' children
    while True:
        signal.pause()
