"""Grafana's files: what their panels and links ask Prometheus."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.stack.programs import DEPLOY

DASHBOARDS = DEPLOY / "grafana" / "dashboards"
DATA_SOURCES = DEPLOY / "grafana" / "provisioning" / "datasources" / "datasources.yml"
# What Grafana puts in place of its variables, when a person has chosen nothing.
CHOSEN = {"$__rate_interval": "1m", "$job": "(service-a|service-b)", "$service": ".*", "$method": ".*"}


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel: what it asks, how it names each line, and whether it asks for exemplars too."""

    expression: str
    legend: str
    exemplar: bool

    def line(self, labels: Mapping[str, str]) -> str:
        """Return the name of the line of a sample with these labels."""
        return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), self.legend)


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel: where it stands, what it is, and what it asks."""

    dashboard: str
    row: str
    title: str
    number: int
    kind: str
    description: str
    queries: tuple[Query, ...]

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.number} {self.title}"


@dataclass(frozen=True, slots=True)
class Annotation:
    """
    What is drawn across all panels: what it asks, in steps of at least how many seconds.

    A sample stands for its own time, or where `by_value` is set for the time that is its value, in milliseconds.
    """

    name: str
    expression: str
    step: float
    by_value: bool

    def asked(self, step: float) -> str:
        """Return what Grafana asks in steps of this length, in seconds."""
        window = max(step + self.step, 4 * self.step)
        return expanded(self.expression.replace("$__rate_interval", f"{window * 1000:.0f}ms"))

    def events(self, samples: list[tuple[float, float]], step: float) -> list[tuple[float, float]]:
        """
        Return when each event that Grafana draws of a series begins and ends.

        Samples above zero count, and of those that are at most a step apart it makes one.
        """
        events: list[tuple[float, float]] = []
        for time, value in samples:
            if value > 0:
                at = value / 1000 if self.by_value else time
                if events and at <= events[-1][1] + step:
                    events[-1] = (events[-1][0], at)
                else:
                    events.append((at, at))
        return events


def annotations() -> list[Annotation]:
    """Return every annotation of every dashboard."""
    holders = [json.loads(path.read_text())["annotations"]["list"] for path in sorted(DASHBOARDS.glob("*.json"))]
    return [
        Annotation(a["name"], a["expr"], float(a["step"].removesuffix("s")), a.get("useValueForTime", False))
        for annotations in holders
        for a in annotations
    ]


def panels() -> list[Panel]:
    """Return every panel of every dashboard that asks something."""
    return [panel for path in sorted(DASHBOARDS.glob("*.json")) for panel in _asking(path)]


def _asking(path: Path) -> Iterator[Panel]:
    row = ""
    for panel in _panels(json.loads(path.read_text())):
        if panel["type"] == "row":
            row = panel["title"]
        else:
            queries = [
                Query(expanded(t["expr"]), t["legendFormat"], t.get("exemplar", False)) for t in panel["targets"]
            ]
            yield Panel(
                path.stem, row, panel["title"], panel["id"], panel["type"], panel["description"], tuple(queries)
            )


def titles() -> list[str]:
    """Return the title of every panel and row of every dashboard."""
    holders = [json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))]
    return [panel["title"] for holder in holders for panel in _panels(holder)]


def expanded(expression: str) -> str:
    """Return an expression with Grafana's variables filled in."""
    for variable, value in CHOSEN.items():
        expression = expression.replace(variable, value)
    return expression


def link_keys() -> dict[str, str]:
    """Return the tags of a span that lead from it to metrics, and the metrics' labels that have their values."""
    return dict(re.findall(r"^ +- key: (\S+)\n +value: (\S+)$", _links(), re.MULTILINE))


def linked_queries(tags: Mapping[str, str]) -> list[str]:
    """Return what the links of a span with these tags ask Prometheus."""
    matchers = ", ".join(f'{label}="{tags[key]}"' for key, label in link_keys().items() if key in tags)
    queries = re.findall(r"^ +query: (.+)$", _links(), re.MULTILINE)
    return [query.replace("$$__tags", matchers) for query in queries]


def _links() -> str:
    return DATA_SOURCES.read_text().partition("tracesToMetrics:")[2]


def _panels(holder: Any) -> Iterator[Any]:
    """Yield the panels of a dashboard, those within its rows included."""
    for panel in holder.get("panels", []):
        yield panel
        yield from _panels(panel)
