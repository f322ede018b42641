"""
Runs a Kubernetes of one node, from the programs in `.tools/`, until its stdin ends.

Everything that it consists of runs in namespaces of its own and writes to a folder of its own, so that this machine's
network, mounts and settings stay as they are; nothing of it can be reached from outside. `TAR…` are images, as `docker
save` writes them, for its pods. When pods can run it prints the path of a kubectl that reaches it. Exit status: 77,
with one line that says why, where it cannot run: it takes root, Linux with cgroups of version 1, and Debian's packages.
"""

# A program run by path, which prints, and starts others with arguments that it builds.
# ruff: noqa: INP001, T201, S603, S607

import argparse
import contextlib
import ctypes
import hashlib
import io
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / ".tools" / "kubernetes"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grpc-observability-kit"
CGROUPS = Path("/sys/fs/cgroup")

EXIT_FAILED = 1
EXIT_LEFT_OUT = 77  # what test harnesses read as "skipped"
START_SECONDS = 180.0

PARTS = (
    *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"),
    *("coredns", "metrics-server", "kubectl"),
)
ADDRESS = "10.77.0.1"
API = f"https://{ADDRESS}:6443"
PODS, SERVICES, KUBERNETES_SERVICE = "10.244.0.0/24", "10.96.0.0/16", "10.96.0.1"
PAUSE = "localhost/pause:local"
# Who speaks to the API server, by the file of what they know of it, and as whom.
USERS = {
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": ("system:node:node", "system:nodes"),
    "proxy": ("system:kube-proxy", ""),
    "dns": ("dns", "system:masters"),
    "metrics": ("metrics", "system:masters"),
}


def main() -> int:
    """Run the cluster, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", type=Path, metavar="TAR")
    parser.add_argument("--check", action="store_true", help="only say whether it can run here")
    arguments = parser.parse_args()
    if why := obstacle():
        print(f"LEFT OUT, since no Kubernetes can run on this machine: {why}", file=sys.stderr)
        return EXIT_LEFT_OUT
    if arguments.check:
        return os.EX_OK
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_FAILED))
    with own_folder() as folder:
        prepare(folder, [path.resolve() for path in arguments.images])
        with node(folder) as process:
            deadline = time.monotonic() + START_SECONDS
            while not (folder / "ready").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    print(f"the node did not start:\n{last_words(folder)}", file=sys.stderr)
                    return EXIT_FAILED
                time.sleep(0.1)
            print(folder / "kubectl", flush=True)
            sys.stdin.read()
    return os.EX_OK


def obstacle() -> str | None:
    """Return why no cluster can run on this machine, None if one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "it takes Linux, and root"
    if not (CGROUPS / "memory").is_dir():
        return "it takes cgroups of version 1"
    programs = {"containerd": "containerd", "runc": "runc", "nft": "nftables", "busybox": "busybox-static"}
    missing = [package for program, package in programs.items() if not shutil.which(program)]
    if not Path("/usr/lib/cni/bridge").exists():
        missing.append("containernetworking-plugins")
    if missing:
        return f"apt-get install {' '.join(missing)}"
    if subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], check=False).returncode != 0:
        return "unshare is not allowed"
    return None


@contextmanager
def own_folder() -> Iterator[Path]:
    """Make a folder for all files of the cluster, which goes with it, and so do the cgroups of its name."""
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="cluster-", dir=CACHE))
    try:
        yield folder
    finally:
        remove_cgroups(folder.name)
        if "KEEP_CLUSTER_LOGS" in os.environ:
            shutil.copytree(folder / "log", os.environ["KEEP_CLUSTER_LOGS"], dirs_exist_ok=True)
        shutil.rmtree(folder)


def remove_cgroups(name: str) -> None:
    """Remove the cgroups of this name, with all below; processes that were killed take a moment to leave them."""
    deadline = time.monotonic() + 10
    while folders := list(CGROUPS.glob(f"*/{name}")):
        for folder in folders:
            for path, _, _ in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):
                    Path(path).rmdir()
        if time.monotonic() > deadline:
            print(f"left behind: {', '.join(map(str, folders))}", file=sys.stderr)
            return
        time.sleep(0.05)


@contextmanager
def node(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the node: a first process, in namespaces, at whose end every other in them ends."""
    namespaces = ["--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--propagation", "private"]
    with (folder / "log" / "node.log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", *namespaces, sys.executable, ROOT / "tools" / "node.py", folder],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - no thread runs yet
        )
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not (first := children.read_text().strip()) and process.poll() is None:
            time.sleep(0.01)
        kubectl = f'exec nsenter --target {first} --net -- {folder}/bin/kubectl --kubeconfig={folder}/admin.conf "$@"'
        (folder / "kubectl").write_text(f"#!/bin/sh\n{kubectl}\n")
        (folder / "kubectl").chmod(0o755)
        yield process
    finally:
        process.kill()
        process.wait()
        while first and Path(f"/proc/{first}").exists():
            time.sleep(0.01)


def end_with_parent() -> None:
    """Have the system kill this process when its parent ends, however that does."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def last_words(folder: Path) -> str:
    """Return the end of each log."""
    logs = sorted((folder / "log").glob("*.log"))
    return "\n".join(f"== {log.stem}\n" + "\n".join(log.read_text().splitlines()[-8:]) for log in logs)


def prepare(folder: Path, images: list[Path]) -> None:
    """Write every file that the node reads."""
    for name in ("bin", "cni", "containerd", "etcd", "images", "kubelet", "log", "ipam", "pki"):
        (folder / name).mkdir()
    for part in PARTS:
        (folder / "bin" / part).symlink_to(PROGRAM.resolve())
    authority(folder / "pki")
    users(folder)
    pause(folder / "images" / "pause.tar")
    for number, image in enumerate(images):
        (folder / "images" / f"{number}.tar").symlink_to(image)
    (folder / "resolv.conf").touch()
    for name, configuration in configurations(folder).items():
        (folder / name).write_text(json.dumps(configuration, indent=1))
    (folder / "containerd.toml").write_text(CONTAINERD.format(folder=folder, pause=PAUSE, runc=shutil.which("runc")))
    (folder / "Corefile").write_text(COREFILE.format(folder=folder))


def authority(folder: Path) -> None:
    """Write the certificates: of the API server, and of itself as a proxy for others' APIs; and the key of tokens."""
    ca = trustme.CA()
    (folder / "ca.pem").write_bytes(ca.cert_pem.bytes())
    names = (ADDRESS, "127.0.0.1", "localhost", KUBERNETES_SERVICE, "kubernetes.default.svc")
    for name, issued in (
        ("api", ca.issue_cert(*names)),
        ("proxy", ca.issue_cert("front-proxy-client", common_name="front-proxy-client")),
    ):
        (folder / f"{name}.key").write_bytes(issued.private_key_pem.bytes())
        (folder / f"{name}.pem").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "tokens.key").write_bytes(private)
    (folder / "tokens.pem").write_bytes(public)


def users(folder: Path) -> None:
    """Write who may speak to the API server, and for each what they need for it."""
    lines = []
    for number, (name, (user, group)) in enumerate(USERS.items()):
        token = secrets.token_hex(16)
        lines.append(f'{token},{user},{number},"{group}"' if group else f"{token},{user},{number}")
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "it", "cluster": {"server": API, "certificate-authority": f"{folder}/pki/ca.pem"}}],
            "users": [{"name": "me", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "me"}}],
            "current-context": "it",
        }
        (folder / f"{name}.conf").write_text(json.dumps(kubeconfig))
    (folder / "users.csv").write_text("\n".join(lines) + "\n")


def pause(path: Path) -> None:
    """Write the image of what holds a pod's namespaces: a busybox that sleeps."""
    busybox = Path(shutil.which("busybox") or "busybox").read_bytes()
    layer = archive({"busybox": busybox})
    configuration = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
            "os": "linux",
            "config": {"Entrypoint": ["/busybox", "sleep", "2147483647"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"]}]
    files = {"config.json": configuration, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    path.write_bytes(archive(files))


def archive(files: dict[str, bytes]) -> bytes:
    """Return a tar of these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def configurations(folder: Path) -> dict[str, object]:
    """Return the configurations that are JSON, by their files."""
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ADDRESS,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{folder.name}",
        "clusterDNS": [ADDRESS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        # A disk that is full is this machine's business, and so is its swap.
        "evictionHard": {"memory.available": "100Mi"},
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "podCIDR": PODS,
        "podLogsDir": "/var/log/pods",
        "resolvConf": f"{folder}/resolv.conf",
        "volumePluginDir": f"{folder}/kubelet/plugins",
    }
    proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{folder}/proxy.conf"},
        "clusterCIDR": PODS,
        # What is counted is counted for the whole machine: leave its limits alone.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "hostnameOverride": "node",
        "mode": "nftables",
    }
    ipam = {"type": "host-local", "dataDir": f"{folder}/ipam", "ranges": [[{"subnet": PODS}]]}
    bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "hairpinMode": True}
    network = {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{**bridge, "ipam": {**ipam, "routes": [{"dst": "0.0.0.0/0"}]}}],
    }
    return {"kubelet.json": kubelet, "proxy.json": proxy, "cni/pods.conflist": network}


CONTAINERD = """\
version = 2
root = "{folder}/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{runc}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
"""
# As kubeadm has it, but for what is asked of the outer world.
COREFILE = """\
.:53 {{
    errors
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {folder}/dns.conf
        ttl 30
    }}
    loadbalance
}}
"""


if __name__ == "__main__":
    # A test that is interrupted ends this by the end of stdin, and not in the middle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(main())
