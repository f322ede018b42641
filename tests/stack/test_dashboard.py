"""The dashboard has what it is for."""

import re

import pytest

from tests.stack.dashboards import Panel, panels

SERVERS, CLIENTS = "Servers: the calls that they answer", "Clients: the calls that the services make"
SATURATION, TELEMETRY = "Saturation", "Telemetry about telemetry"
CALLS = ("Rate", "Errors by code", "In flight", "Latency", "Latency, every call", "Messages per second")
REQUIRED = {
    ("At a glance", "Version"),
    *((row, title) for row in (SERVERS, CLIENTS) for title in CALLS),
    *((SATURATION, title) for title in ("Waiting for a thread", "Handlers running", "CPU", "Memory")),
    *((TELEMETRY, title) for title in ("Spans lost", "Log lines lost", "Observer errors")),
}
METRICS = {
    "Rate": {"started_total"},
    "Errors by code": {"handled_total"},
    "In flight": {"in_flight"},
    "Latency": {"handling_seconds_bucket"},
    "Latency, every call": {"handling_seconds_bucket"},
    "Messages per second": {"msg_received_total", "msg_sent_total"},
}
OF_CALLS = [panel for panel in panels() if panel.row in {SERVERS, CLIENTS}]


def test_required_panels() -> None:
    """Each row has the panels that a person is promised there."""
    assert set() == REQUIRED - {(panel.row, panel.title) for panel in panels()}


def test_panels_are_apart() -> None:
    """Each panel of a dashboard has a unique id, and says what it shows."""
    found = panels()

    assert len(found) == len({(panel.dashboard, panel.number) for panel in found})
    assert [] == [panel.title for panel in found if not panel.description]


@pytest.mark.parametrize("panel", OF_CALLS, ids=str)
def test_rows_are_of_their_side(panel: Panel) -> None:
    """A panel of calls asks for what its title says, of the side that its row is about."""
    side = "server" if panel.row == SERVERS else "client"
    asked = {name for query in panel.queries for name in re.findall(r"\bgrpc_\w+(?=\{)", query.expression)}

    assert {f"grpc_{side}_{metric}" for metric in METRICS[panel.title]} == asked


@pytest.mark.parametrize("panel", [panel for panel in OF_CALLS if panel.kind != "heatmap"], ids=str)
def test_calls_are_shown_by_service_and_method(panel: Panel) -> None:
    """A panel of calls has a line per process, service and method, and names all three; a heatmap has no lines."""
    for query in panel.queries:
        groups = re.findall(r"sum by \(([^)]*)\)", query.expression)
        named = re.findall(r"\{\{(\w+)\}\}", query.legend)

        assert [["job", "grpc_service", "grpc_method"]] == [group.split(", ")[:3] for group in groups]
        assert ["job", "grpc_service", "grpc_method"] == named[:3]
        assert set(named) == set(groups[0].split(", ")) - {"le"}


@pytest.mark.parametrize("panel", [panel for panel in OF_CALLS if panel.title.startswith("Latency")], ids=str)
def test_latency_has_exemplars(panel: Panel) -> None:
    """The panels of latency ask for exemplars, which lead to traces."""
    assert {True} == {query.exemplar for query in panel.queries}


@pytest.mark.parametrize("row", [SERVERS, CLIENTS])
def test_percentiles(row: str) -> None:
    """Latency is shown at the 50th, 95th and 99th percentile, and each line says which it is."""
    [panel] = [panel for panel in OF_CALLS if (panel.row, panel.title) == (row, "Latency")]
    quantiles = [re.findall(r"histogram_quantile\(([\d.]+),", query.expression) for query in panel.queries]

    assert [["0.5"], ["0.95"], ["0.99"]] == quantiles
    assert ["p50", "p95", "p99"] == [query.legend.split()[-1] for query in panel.queries]


def test_heatmaps_are_heatmaps() -> None:
    """Every call's latency is shown as a heatmap, by bucket."""
    maps = [panel for panel in OF_CALLS if panel.title == "Latency, every call"]

    assert ["heatmap"] * 2 == [panel.kind for panel in maps]
    assert [] == [panel.title for panel in maps for query in panel.queries if "sum by (le)" not in query.expression]
