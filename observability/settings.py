"""Reads the environment: OpenTelemetry's own variables, and the few of ours."""

from __future__ import annotations

import contextlib
import logging
import os
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

from .listening import LAST_PORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_logger = logging.getLogger("observability")
_MUCH: Final = 1_000_000_000  # more than that is no size of a queue, nor a time that a thread can wait
_QUEUE_SIZE: Final = 2048  # the specification's default

Check: TypeAlias = "Callable[[str], str | None]"
"""Returns None for a good value, else what is allowed, to follow `is not`."""


class SettingError(ValueError):
    """A variable or an argument has a value that is not allowed; the text is one line that names all three."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name}={value!r} is not {allowed}")


def _one_of(*allowed: str) -> Check:
    expected = "one of " + ", ".join(allowed)
    return lambda value: None if value.strip().lower() in allowed else expected


def _some_of(*allowed: str) -> Check:
    expected = "a comma-separated list of " + ", ".join(allowed)
    return lambda value: None if {part.strip().lower() for part in value.split(",")} <= {*allowed} else expected


def _number(lowest: float, highest: float, kind: type = int) -> Check:
    expected = f"a {'whole ' if kind is int else ''}number from {lowest:.10g} to {highest:.10g}"

    def check(value: str) -> str | None:
        try:
            return None if lowest <= kind(value) <= highest else expected
        except ValueError:
            return expected

    return check


def _url(value: str) -> str | None:
    try:
        url = urlsplit(value)
        good = url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 1) > 0
    except ValueError:
        good = False
    return None if good else "a URL such as http://localhost:4317"


def _file(value: str) -> str | None:
    return None if Path(value).is_file() else "a file that can be read"


def _pairs(value: str) -> str | None:
    pairs = [pair for pair in value.split(",") if pair.strip()]
    return None if all(pair.partition("=")[0].strip() and "=" in pair for pair in pairs) else "a list of key=value"


def _propagators(value: str) -> str | None:
    installed = {"none", *entry_points(group="opentelemetry_propagator").names}
    wanted = {part.strip() for part in value.split(",")}
    return None if wanted <= installed else "a comma-separated list of " + ", ".join(sorted(installed))


def _calls(value: str) -> str | None:
    if value.strip().lower() in ("all", "failed") or _number(0, _MUCH, float)(value) is None:
        return None
    return "all, failed or a number of milliseconds"


_BOOLEAN: Final = _one_of("true", "false")
_COUNT: Final = _number(1, _MUCH)
_EXPORTER: Final[dict[str, Check]] = {
    "ENDPOINT": _url,
    "PROTOCOL": _one_of("grpc", "http/protobuf"),
    "TIMEOUT": _number(0.001, _MUCH, float),
    "COMPRESSION": _one_of("gzip", "none"),
    "INSECURE": _BOOLEAN,
    "CERTIFICATE": _file,
    "CLIENT_KEY": _file,
    "CLIENT_CERTIFICATE": _file,
    "HEADERS": _pairs,
}
STANDARD: Final[dict[str, Check]] = {
    "OTEL_SDK_DISABLED": _BOOLEAN,
    "OTEL_RESOURCE_ATTRIBUTES": _pairs,
    "OTEL_PROPAGATORS": _propagators,
    "OTEL_TRACES_EXPORTER": _some_of("otlp", "console", "none"),
    "OTEL_TRACES_SAMPLER": _one_of(
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ),
    "OTEL_TRACES_SAMPLER_ARG": _number(0, 1, float),
    "OTEL_BSP_SCHEDULE_DELAY": _COUNT,
    "OTEL_BSP_EXPORT_TIMEOUT": _COUNT,
    "OTEL_BSP_MAX_QUEUE_SIZE": _COUNT,
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": _COUNT,
    **{f"OTEL_EXPORTER_OTLP_{name}": check for name, check in _EXPORTER.items()},
    **{f"OTEL_EXPORTER_OTLP_TRACES_{name}": check for name, check in _EXPORTER.items()},
    "OTEL_EXPORTER_PROMETHEUS_PORT": _number(0, LAST_PORT),
}
"""The standard variables that can have a bad value, with what tells it."""

OURS: Final[dict[str, tuple[str, Check]]] = {
    "LOG_FORMAT": ("keyvalue", _one_of("keyvalue", "json")),
    "LOG_LEVEL": ("info", _one_of("debug", "info", "warning", "error", "critical")),
    "OBSERVABILITY_TRACES": ("native", _one_of("native", "contrib")),
    "OBSERVABILITY_LOG_CALLS": ("all", _calls),
    "OBSERVABILITY_LOG_BAGGAGE": ("", lambda _value: None),
}
"""Our own variables, with their defaults and what tells a bad value."""


def setting(name: str, default: str | None = None) -> str:
    """
    Read one of our own variables; an empty one counts as unset.

    Raises SettingError for a value that is not allowed.
    """
    usual, check = OURS[name]
    value = os.environ.get(name) or (usual if default is None else default)
    allowed = check(value)
    if allowed is not None:
        raise SettingError(name, value, allowed)
    return value.strip()


def check_settings() -> None:
    """Raise SettingError for the first of our own variables that has a bad value."""
    for name in OURS:
        setting(name)


def _bad_standard() -> Iterator[tuple[str, str]]:
    for name, check in STANDARD.items():
        value = os.environ.get(name)
        allowed = check(value) if value else None
        if allowed is not None:
            yield name, allowed
    batch, queue = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "OTEL_BSP_MAX_QUEUE_SIZE"
    with contextlib.suppress(ValueError):
        if int(os.environ.get(batch) or 1) > int(os.environ.get(queue) or _QUEUE_SIZE):
            yield batch, f"at most {queue}"


@contextlib.contextmanager
def standard_settings() -> Iterator[None]:
    """
    Let what runs inside see the standard variables with the bad values left out, each told in one warning.

    OpenTelemetry's own words for a bad value seldom name the variable, and some of them are exceptions. So they
    are for an empty one, which counts as unset.
    """
    bad = dict(_bad_standard())
    empty = [name for name in STANDARD if os.environ.get(name) == ""]
    for name, allowed in bad.items():
        _logger.warning("%s=%r is not %s: the default is used instead", name, os.environ[name], allowed)
    kept = {name: os.environ.pop(name) for name in (*bad, *empty)}
    try:
        yield
    finally:
        os.environ.update(kept)
