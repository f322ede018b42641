"""What telemetry has lost, where there is more than one of it in a process."""

from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from observability.metrics.self_metrics import report_losses


@pytest.mark.parametrize("auto_describe", [True, False])
def test_losses_of_many(auto_describe: bool) -> None:  # noqa: FBT001 - a parameter
    """On one registry they are added up, one series each, for as long as there is any."""
    registry = CollectorRegistry(auto_describe=auto_describe)
    spans, exports, lines = SimpleNamespace(dropped=1), SimpleNamespace(failures=2), SimpleNamespace(dropped=4)
    limited = SimpleNamespace(count=8)
    kinds = ("spans_dropped", "span_export_failures", "log_lines_dropped", "log_lines_limited")
    names = [f"observability_{name}_total" for name in kinds]

    def seen() -> list[float | None]:
        assert len(names) == len([each.name for each in registry.collect() if f"{each.name}_total" in names] or names)
        return [registry.get_sample_value(name) for name in names]

    ends = [
        report_losses(registry, spans, exports, lines, limited),
        report_losses(registry, None, exports, lines, limited),
    ]
    both = seen()
    ends[0]()
    one = seen()
    ends[1]()
    none = seen()
    report_losses(registry, spans, None, None, None)

    assert ([1, 4, 8, 16], [0, 2, 4, 8], [None] * 4, [1, 0, 0, 0]) == (both, one, none, seen())
