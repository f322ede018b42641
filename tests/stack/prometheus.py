"""Prometheus: the real program with the configuration that compose mounts, and what it answers."""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from tests.stack.programs import DEPLOY, Program, run
from tests.stack.waiting import eventually, get

COMPOSE_FILE = "docker-compose.observability.yml"
COPIES_FILE = "deploy/copies.yml"

Labels: TypeAlias = frozenset[tuple[str, str]]


class PrometheusApi:
    """What a running Prometheus answers over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str, at: float | None = None) -> list[Any]:
        """Return the samples that an expression gives now or at a time, but for those of no value (0/0)."""
        when = {} if at is None else {"time": at}
        samples = get(f"{self.url}/api/v1/query", query=expression, **when)["data"]["result"]
        return [sample for sample in samples if sample["value"][1] != "NaN"]

    def values(self, expression: str, at: float) -> dict[Labels, float]:
        """Return the value of each series that an expression gives at a time."""
        return {labels_of(sample): float(sample["value"][1]) for sample in self.query(expression, at)}

    def range(self, expression: str, start: float, end: float, step: float) -> list[list[tuple[float, float]]]:
        """Return the times and values of each series that an expression gives in a range, a step apart."""
        answer = get(f"{self.url}/api/v1/query_range", query=expression, start=start, end=end, step=step)
        return [[(time, float(value)) for time, value in series["values"]] for series in answer["data"]["result"]]

    def without_data(self, expressions: Iterable[str]) -> list[str]:
        """Return the expressions that give no sample, even if one waits for it."""
        return [expression for expression in expressions if not eventually(partial(self.query, expression))]

    def targets(self, pool: str) -> dict[str, str]:
        """Return the health of a scrape job's targets by their `job`, of which each is one: `up`, `down`, `unknown`."""
        targets = self.copies(pool)
        assert len(dict(targets)) == len(targets), targets
        return dict(targets)

    def copies(self, pool: str) -> list[tuple[str, str]]:
        """Return the `job` and the health of each of a scrape job's targets, in order."""
        targets = get(f"{self.url}/api/v1/targets", state="active", scrapePool=pool)["data"]["activeTargets"]
        return sorted((target["labels"]["job"], target["health"]) for target in targets)

    def exemplars(self, metric: str) -> list[Any]:
        """Return the exemplars of a metric's last ten minutes: labels, value and time."""
        now = time.time()
        answer = get(f"{self.url}/api/v1/query_exemplars", query=metric, start=now - 600, end=now)
        return [exemplar for series in answer["data"] for exemplar in series["exemplars"]]

    def rules(self, kind: str) -> list[Any]:
        """Return the rules of a kind that are loaded: `alert` or `record`."""
        groups = get(f"{self.url}/api/v1/rules", type=kind)["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def selectors(self, expression: str) -> list[str]:
        """Return what an expression selects, ranges included, as expressions; HTTPError 400 if it does not parse."""
        tree = get(f"{self.url}/api/v1/parse_query", query=expression)["data"]
        return [_selector(node) for node in _nodes(tree) if node.get("type") in {"vectorSelector", "matrixSelector"}]


class Prometheus(Program, PrometheusApi):
    """
    The real Prometheus on a port given, from `with` to its end.

    It runs with compose's own flags and files. The lists of targets alone are others: they name free ports, also where
    Docker's DNS would be asked. It scrapes and evaluates `pace` times as often as there.
    """

    def __init__(self, folder: Path, port: int, targets: Mapping[str, str], *, pace: int = 1) -> None:
        PrometheusApi.__init__(self, f"http://127.0.0.1:{port}")
        mounted = DEPLOY / "prometheus"
        (folder / "targets").mkdir(parents=True)
        (folder / "rules").symlink_to(mounted / "rules")
        (folder / "prometheus.yml").write_text(_named(_paced((mounted / "prometheus.yml").read_text(), pace), targets))
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


def labels_of(sample: Mapping[str, Any]) -> Labels:
    """Return a sample's labels, its name among them, which identify its series."""
    return frozenset(sample["metric"].items())


def _paced(text: str, pace: int) -> str:
    return re.sub(
        r"(_interval|_timeout): (\d+)s$", lambda m: f"{m[1]}: {int(m[2]) * 1000 // pace}ms", text, flags=re.MULTILINE
    )


def _named(text: str, targets: Mapping[str, str]) -> str:
    """List the addresses of a name where DNS would be asked for them: none for a name that has no target."""

    def listed(asked: re.Match[str]) -> str:
        indent, names, port = asked.groups()
        found = [(name, targets.get(f"{name}:{port}", "")) for name in names.split(", ")]
        lines = [f"{{ targets: [{addresses}], labels: {{ __meta_dns_name: {name} }} }}" for name, addresses in found]
        return "\n".join(f"{indent}- {line}" for line in lines)

    asked = r"^( +)- \{ names: \[(.+)\], type: A, port: (\d+), .*\}$"
    return re.sub(asked, listed, text, flags=re.MULTILINE).replace("dns_sd_configs:", "static_configs:")


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
