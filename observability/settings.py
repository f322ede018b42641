"""Reads the environment: OpenTelemetry's own variables, and the few of ours."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

from .listening import LAST_PORT, bare_host, bind_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_logger = logging.getLogger("observability")
_MUCH: Final = 1_000_000_000  # more than that is no size of a queue, nor a time that a thread can wait
_QUEUE_SIZE: Final = 2048  # the specification's default

Check: TypeAlias = "Callable[[str], str | None]"
"""Returns None for a good value, else what is allowed, to follow `is not`."""


class SettingError(ValueError):
    """A variable or an argument has a value that is not allowed; the text is one line that names all three."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name}={value!r} is not {allowed}")


def _one_of(*allowed: str, also: tuple[str, ...] = ()) -> Check:
    """Allow these words; those in `also` are what others call them."""
    expected = "one of " + ", ".join(allowed)
    return lambda value: None if value.strip().lower() in allowed + also else expected


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


def _is_url(value: str) -> bool:
    try:
        url = urlsplit(value)
        return url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 1) > 0
    except ValueError:
        return False


_A_URL: Final = "a URL such as http://localhost:4317"
# What gRPC can connect to, but for a target whose name has an authority: the exporter takes that for the address.
_TARGET: Final = re.compile(
    r"(?:dns:(?:///)?|ipv4:|ipv6:)?(?:[\w.-]+|\[[\w:.%]+\])(?::(\d{1,5}))?|(?:unix|unix-abstract|vsock):(?!//[^/])\S+"
)


def _endpoint(value: str) -> str | None:
    target = _TARGET.fullmatch(value)
    if _is_url(value) or (target and int(target[1] or 0) <= LAST_PORT):
        return None
    return f"{_A_URL} or, for grpc, an address such as localhost:4317"


def _file(value: str) -> str | None:
    with contextlib.suppress(OSError):
        path = Path(value)
        if path.is_file():  # opening what is none might wait for its writer
            path.open("rb").close()
            return None
    return "a file that can be read"


def _listening_host(value: str) -> str | None:
    """Take what /metrics can listen on: the name's first address is what its server takes."""
    with contextlib.suppress(OSError, UnicodeError):
        family, *_, where = socket.getaddrinfo(bare_host(value), 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        if bind_failure(family, where) is None:
            return None
    return "an address of this machine, such as 127.0.0.1 or 0.0.0.0"


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
    "ENDPOINT": _endpoint,
    "PROTOCOL": _one_of("grpc", "http/protobuf"),
    "TIMEOUT": _number(0.001, _MUCH, float),
    "COMPRESSION": _one_of("gzip", "none"),
    "INSECURE": _BOOLEAN,
    "CERTIFICATE": _file,
    "CLIENT_KEY": _file,
    "CLIENT_CERTIFICATE": _file,
    "HEADERS": _pairs,
}
TRACING: Final[dict[str, Check]] = {
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
}
"""The standard variables of traces that can have a bad value, with what tells it."""
STANDARD: Final[dict[str, Check]] = {
    **TRACING,
    "OTEL_EXPORTER_PROMETHEUS_HOST": _listening_host,
    "OTEL_EXPORTER_PROMETHEUS_PORT": _number(0, LAST_PORT),
}
"""These and those of /metrics."""

OURS: Final[dict[str, tuple[str, Check]]] = {
    "LOG_FORMAT": ("keyvalue", _one_of("keyvalue", "json")),
    "LOG_LEVEL": ("info", _one_of("debug", "info", "warning", "error", "critical", also=("warn", "fatal"))),
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


def _contradictions(good: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Give the variables whose values are good alone, but not beside another's, with what would be."""
    queue = int(good.get("OTEL_BSP_MAX_QUEUE_SIZE", _QUEUE_SIZE))
    if int(good.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1)) > queue:
        yield "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", f"at most OTEL_BSP_MAX_QUEUE_SIZE, which is {queue}"
    protocol = good.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or good.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    if protocol.lower() != "grpc":
        for name in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
            if name in good and not _is_url(good[name]):
                yield name, _A_URL


def _without_none(good: dict[str, str]) -> dict[str, str]:
    """Leave out a compression of `none`, which is the default: the gRPC exporter raises an exception at the word."""
    names = "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"
    chosen = next((good[name] for name in names if name in good), "")
    return {name: value for name, value in good.items() if name not in names or chosen.lower() != "none"}


@contextlib.contextmanager
def standard_settings(checks: Mapping[str, Check] = STANDARD) -> Iterator[None]:
    """
    Let what runs inside see these variables with the bad values left out, each told in one warning.

    OpenTelemetry's own words for a bad value seldom name the variable, and some of them are exceptions. So they
    are for an empty one, which counts as unset, and for spaces around a value, which are left out too.
    """
    given = {name: os.environ[name] for name in checks if name in os.environ}
    values = {name: stripped for name, value in given.items() if (stripped := value.strip())}
    bad = {name: allowed for name, value in values.items() if (allowed := checks[name](value)) is not None}
    bad |= _contradictions({name: value for name, value in values.items() if name not in bad})
    for name, allowed in bad.items():
        _logger.warning("%s=%r is not %s: the default is used instead", name, given[name], allowed)
    for name in given:
        del os.environ[name]
    os.environ.update(_without_none({name: value for name, value in values.items() if name not in bad}))
    try:
        yield
    finally:
        os.environ.update(given)
