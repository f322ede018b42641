"""kubectl, by which alone the tests speak to a cluster, whichever it is."""

import json
import subprocess
from pathlib import Path
from typing import Any

NAMESPACE = "grpc-observability-kit"


class Kubectl:
    """A kubectl that reaches a cluster, and what the tests ask of it in their namespace."""

    def __init__(self, program: str | Path) -> None:
        self._command = [str(program), f"--namespace={NAMESPACE}"]

    def run(self, *arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run it until its end, whatever that is."""
        command = [*self._command, *map(str, arguments)]
        return subprocess.run(command, input=stdin, capture_output=True, encoding="utf-8", check=False, timeout=300)

    def __call__(self, *arguments: str | Path, stdin: str = "") -> str:
        """Run it; return its stdout, or fail with all it said."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {arguments}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it, and return the process."""
        return subprocess.Popen(
            [*self._command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def get(self, *what: str) -> Any:
        """Return objects as they are in the cluster."""
        return json.loads(self("get", *what, "--output=json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        """Put objects there."""
        self("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def pods(self, service: str) -> list[dict[str, Any]]:
        """Return the pods of a service that are not about to go, by their names."""
        found = self.get("pods", f"--selector=app.kubernetes.io/name={service}")["items"]
        staying = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return sorted(staying, key=lambda pod: str(pod["metadata"]["name"]))

    def ready(self, service: str) -> list[str]:
        """Return the names of a service's pods that are ready."""
        return [pod["metadata"]["name"] for pod in self.pods(service) if condition(pod, "Ready") == "True"]

    def rolled_out(self, service: str, seconds: int = 180) -> None:
        """Wait until a deployment's pods are all of its newest kind, and available."""
        self("rollout", "status", f"deployment/{service}", f"--timeout={seconds}s")


def condition(found: dict[str, Any], kind: str) -> str:
    """Return the status of an object's condition of this kind, Unknown where it has none."""
    conditions = found["status"].get("conditions", [])
    return next((str(each["status"]) for each in conditions if each["type"] == kind), "Unknown")
