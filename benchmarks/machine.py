"""What a run was made on."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import observability

if TYPE_CHECKING:
    from .laboratory import Laboratory

_PACKAGES = (
    "grpcio",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation-grpc",
    "prometheus_client",
    "structlog",
    "py-grpc-prometheus",
    "grpcio-observability",
)


def about(laboratory: Laboratory, *, quick: bool) -> dict[str, Any]:
    """Return when, on what machine and with which versions a run was made."""
    return {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {"grpc-observability-kit": observability.__version__}
        | {package: version(package) for package in _PACKAGES},
        "load": laboratory.loader.name,
        "pinned": laboratory.pinned,
    }


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", described.read_text()) if described.exists() else None
    return model[1] if model else platform.processor() or platform.machine()
