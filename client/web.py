"""Pages of the project's own services: fetched past any proxy."""

import urllib.request
from collections.abc import Mapping

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def get(url: str, headers: Mapping[str, str] | None = None, *, timeout: float = 5.0) -> str:
    """Return a page as text; raise urllib.error.URLError, an OSError, if it cannot be had."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - addresses are the person's own
    with opener.open(request, timeout=timeout) as response:
        text: str = response.read().decode()
        return text


def metrics(url: str) -> list[str]:
    """Return the lines of a /metrics page, exemplars included."""
    return get(url, OPENMETRICS).splitlines()
