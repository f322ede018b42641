"""Collectors that a registry has once, with what several have to say together."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import CollectorRegistry

_Source = TypeVar("_Source")


class SharedCollector(Generic[_Source]):
    """A collector of the sums of what its sources say."""

    def __init__(self) -> None:
        self.sources: list[_Source] = []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, as they are now; Prometheus's client calls this at a scrape."""
        raise NotImplementedError


_registries: Final[weakref.WeakKeyDictionary[CollectorRegistry, dict[type[Any], Any]]] = weakref.WeakKeyDictionary()
_lock: Final = threading.Lock()


def add_source(
    registry: CollectorRegistry, class_: type[SharedCollector[_Source]], source: _Source
) -> Callable[[], None]:
    """Let this registry's collector of this class have one source more; return what takes it back."""
    with _lock:
        collectors = _registries.setdefault(registry, {})
        collector: SharedCollector[_Source] | None = collectors.get(class_)
        if collector is None:
            collector = collectors[class_] = class_()
            registry.register(collector)
        collector.sources.append(source)

    def end() -> None:
        with _lock:
            collector.sources.remove(source)
            if not collector.sources:
                registry.unregister(collector)
                del collectors[class_]

    return end
