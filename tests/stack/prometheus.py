"""Prometheus: the real program with the configuration that compose mounts, and what it answers."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.stack.programs import DEPLOY, Program, run
from tests.stack.waiting import eventually, get

COMPOSE_FILE = "docker-compose.observability.yml"


class PrometheusApi:
    """What a running Prometheus answers over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[Any]:
        """Return the samples that an expression gives now, but for those of no value (0/0)."""
        samples = get(f"{self.url}/api/v1/query", query=expression)["data"]["result"]
        return [sample for sample in samples if sample["value"][1] != "NaN"]

    def without_data(self, expressions: Iterable[str]) -> list[str]:
        """Return the expressions that give no sample, even if one waits for it."""
        return [expression for expression in expressions if not eventually(partial(self.query, expression))]

    def targets(self, pool: str) -> dict[str, str]:
        """Return the health of a scrape job's targets by their ``job``: ``up``, ``down``, ``unknown``."""
        targets = get(f"{self.url}/api/v1/targets", state="active", scrapePool=pool)["data"]["activeTargets"]
        assert len({target["labels"]["job"] for target in targets}) == len(targets), targets
        return {target["labels"]["job"]: target["health"] for target in targets}

    def exemplars(self, metric: str) -> list[Any]:
        """Return the exemplars of a metric's last ten minutes: labels, value and time."""
        now = time.time()
        answer = get(f"{self.url}/api/v1/query_exemplars", query=metric, start=now - 600, end=now)
        return [exemplar for series in answer["data"] for exemplar in series["exemplars"]]

    def rules(self, kind: str) -> list[Any]:
        """Return the rules of a kind that are loaded: ``alert`` or ``record``."""
        groups = get(f"{self.url}/api/v1/rules", type=kind)["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def selectors(self, expression: str) -> list[str]:
        """Return what an expression selects, as expressions; HTTPError 400 if it does not parse."""
        tree = get(f"{self.url}/api/v1/parse_query", query=expression)["data"]
        return [_selector(node) for node in _nodes(tree) if node.get("type") == "vectorSelector"]


class Prometheus(Program, PrometheusApi):
    """
    The real Prometheus on a port given, from ``with`` to its end.

    It runs with compose's own flags and files. The lists of targets alone are others: they name free ports.
    """

    def __init__(self, folder: Path, port: int, targets: Mapping[str, str]) -> None:
        PrometheusApi.__init__(self, f"http://127.0.0.1:{port}")
        mounted = DEPLOY / "prometheus"
        (folder / "targets").mkdir(parents=True)
        for name in ("prometheus.yml", "rules"):
            (folder / name).symlink_to(mounted / name)
        for path in (mounted / "targets").iterdir():
            (folder / "targets" / path.name).write_text(_retargeted(path.read_text(), targets))
        Program.__init__(
            self,
            "prometheus",
            *[flag for flag in _flags() if not flag.startswith(("--config.file=", "--storage.tsdb.path="))],
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            log=folder / "prometheus.log",
            ready=f"{self.url}/-/ready",
        )


def _flags() -> list[str]:
    compose = json.loads(run("docker-compose", "-f", COMPOSE_FILE, "config", "--format", "json"))
    return [str(flag) for flag in compose["services"]["prometheus"]["command"]]


def _retargeted(text: str, targets: Mapping[str, str]) -> str:
    for name, address in targets.items():
        text = text.replace(name, address)
    return text


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield a parsed expression's nodes, whatever they are called where they hang."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            yield from _nodes(branch)


def _selector(node: Mapping[str, Any]) -> str:
    matchers = [f"{m['name']}{m['type']}{json.dumps(m['value'])}" for m in node["matchers"]]
    return "{" + ", ".join(matchers) + "}"
