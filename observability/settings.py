"""Reads the environment: OpenTelemetry's own variables, and the few of ours."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeAlias
from urllib.parse import unquote, urlsplit

import grpc

from .address import LAST_PORT, bare_host, bind_failure
from .certificates import CertificateError, Certificates
from .redaction import shown_variable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .certificates import Role

_logger = logging.getLogger("observability")
_MUCH: Final = 1_000_000_000  # more than that is no size of a queue, nor a time that a thread can wait
_QUEUE_SIZE: Final = 2048  # the specification's default

Check: TypeAlias = "Callable[[str], str | None]"
"""Returns None for a valid value, else what is allowed, to follow `is not`."""


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


def _optional_file(value: str) -> str | None:
    return _file(value) if value else None


def _listening_host(value: str) -> str | None:
    """Take what /metrics can listen on: the name's first address is what its server takes."""
    with contextlib.suppress(OSError, UnicodeError):
        family, *_, where = socket.getaddrinfo(bare_host(value), 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        if bind_failure(family, where) is None:
            return None
    return "an address of this machine, such as 127.0.0.1 or 0.0.0.0"


def _attributes(value: str) -> str | None:
    pairs = [pair.partition("=") for pair in value.split(",")]
    return None if all(key.strip() and separator for key, separator, _ in pairs) else "a list of key=value"


# What OpenTelemetry takes for a header; what it does not, it logs in full.
_HEADER: Final = re.compile(r"[\w!#$%&'*+\-.^`|~]+[ \t]*=[ \t]*[ !#-+\--:<-\[\]-~]*", re.ASCII)


def _header_list(value: str) -> list[str]:
    return [stripped for header in value.split(",") if (stripped := header.strip(" \t"))]


def _headers(value: str) -> str | None:
    return None if all(map(_HEADER.fullmatch, _header_list(value))) else "a list of key=value"


# gRPC sends no other metadata; with a key that ends in -bin it wants bytes.
_METADATA: Final = re.compile(r"(?![^=]*-bin *=)[0-9A-Za-z_.-]+ *=[ -~]*")


def _are_metadata(headers: str) -> bool:
    return all(_METADATA.fullmatch(unquote(header)) for header in _header_list(headers))


def _installed(group: str) -> list[str]:
    return sorted(entry_points(group=group).names)


def _an_installed(group: str) -> Check:
    def check(value: str) -> str | None:
        names = _installed(group)
        if value in names:
            return None
        return f"one of {', '.join(names)}" if names else f"the name of an installed {group}"

    return check


def _some_installed(group: str, *others: str) -> Check:
    def check(value: str) -> str | None:
        allowed = sorted({*_installed(group), *others})
        wanted = {part.strip() for part in value.split(",")}
        wanted = {"none" if part.lower() == "none" else part for part in wanted}
        return None if wanted <= {*allowed} else "a comma-separated list of " + ", ".join(allowed)

    return check


def _status_codes(value: str) -> str | None:
    names = {part.strip().upper() for part in value.split(",")} - {""}
    return None if names <= {*grpc.StatusCode.__members__} else "a comma-separated list of gRPC's status codes"


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
    "HEADERS": _headers,
}
_LIMIT: Final = _number(0, _MUCH)
_LIMITS: Final = (
    "ATTRIBUTE_COUNT",
    "ATTRIBUTE_VALUE_LENGTH",
    "SPAN_ATTRIBUTE_COUNT",
    "SPAN_ATTRIBUTE_VALUE_LENGTH",
    "SPAN_EVENT_COUNT",
    "SPAN_LINK_COUNT",
    "EVENT_ATTRIBUTE_COUNT",
    "LINK_ATTRIBUTE_COUNT",
)
_CREDENTIALS: Final = _an_installed("opentelemetry_otlp_credential_provider")
_CREDENTIAL_PROVIDERS: Final = ("GRPC", "GRPC_TRACES", "HTTP", "HTTP_TRACES")
TRACING: Final[dict[str, Check]] = {
    "OTEL_SDK_DISABLED": _BOOLEAN,
    "OTEL_RESOURCE_ATTRIBUTES": _attributes,
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": _some_installed("opentelemetry_resource_detector", "*"),
    "OTEL_PROPAGATORS": _some_installed("opentelemetry_propagator", "none"),
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
    **{f"OTEL_{name}_LIMIT": _LIMIT for name in _LIMITS},
    **{f"OTEL_EXPORTER_OTLP_{name}": check for name, check in _EXPORTER.items()},
    **{f"OTEL_EXPORTER_OTLP_TRACES_{name}": check for name, check in _EXPORTER.items()},
    **{f"OTEL_PYTHON_EXPORTER_OTLP_{name}_CREDENTIAL_PROVIDER": _CREDENTIALS for name in _CREDENTIAL_PROVIDERS},
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES": _status_codes,
    "OTEL_PYTHON_CONTEXT": _an_installed("opentelemetry_context"),
    "OTEL_PYTHON_TRACER_PROVIDER": _an_installed("opentelemetry_tracer_provider"),
    "OTEL_PYTHON_METER_PROVIDER": _an_installed("opentelemetry_meter_provider"),
    "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": _BOOLEAN,
    "OTEL_METRICS_EXEMPLAR_FILTER": _one_of("trace_based", "always_on", "always_off"),
}
"""The standard variables of traces that can have an invalid value, with what finds it."""
STANDARD: Final[dict[str, Check]] = {
    **TRACING,
    "OTEL_EXPORTER_PROMETHEUS_HOST": _listening_host,
    "OTEL_EXPORTER_PROMETHEUS_PORT": _number(0, LAST_PORT),
}
"""These and those of /metrics."""
ANY_VALUE: Final = ("OTEL_SERVICE_NAME", "OTEL_PYTHON_GRPC_EXCLUDED_SERVICES")
"""The standard variables of which every value is valid, but for one that is blank, which counts as unset."""

METRICS_TLS: Final[dict[Role, str]] = {
    "certificate_chain": "OBSERVABILITY_METRICS_TLS_CERT",
    "private_key": "OBSERVABILITY_METRICS_TLS_KEY",
    "root_certificates": "OBSERVABILITY_METRICS_TLS_CLIENT_CA",
}
"""Our variables of the files with which /metrics has TLS, by what they hold."""
OURS: Final[dict[str, tuple[str, Check]]] = {
    "LOG_FORMAT": ("keyvalue", _one_of("keyvalue", "json")),
    "LOG_LEVEL": ("info", _one_of("debug", "info", "warning", "error", "critical", also=("warn", "fatal"))),
    "OBSERVABILITY_TRACES": ("native", _one_of("native", "contrib")),
    "OBSERVABILITY_LOG_CALLS": ("all", _calls),
    "OBSERVABILITY_LOG_BAGGAGE": ("", lambda _value: None),
    **dict.fromkeys(METRICS_TLS.values(), ("", _optional_file)),
}
"""Our own variables, with their defaults and what finds an invalid value."""


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


@dataclass(frozen=True, slots=True)
class Settings:
    """What our own variables say."""

    log_format: str
    """keyvalue or json."""
    log_level: str
    """The lowest level that is logged, in lower case."""
    is_contrib: bool
    """Whether spans are opentelemetry-instrumentation-grpc's."""
    log_calls: str | float
    """all, failed, or the milliseconds from which on a call is logged that has succeeded."""
    log_baggage: tuple[str, ...]
    """The baggage entries that become fields of a call's line."""

    @classmethod
    def read(cls, *, log_level: str | None = None) -> Self:
        """
        Read the environment; `log_level` is the default of LOG_LEVEL.

        Raises SettingError for the first invalid value.
        """
        values = {name: setting(name, log_level if name == "LOG_LEVEL" else None) for name in OURS}
        only = values["OBSERVABILITY_LOG_CALLS"].lower()
        return cls(
            log_format=values["LOG_FORMAT"].lower(),
            log_level=values["LOG_LEVEL"].lower(),
            is_contrib=values["OBSERVABILITY_TRACES"].lower() == "contrib",
            log_calls=only if only in ("all", "failed") else float(only),
            log_baggage=_listed(values["OBSERVABILITY_LOG_BAGGAGE"]),
        )


def metrics_address(port: int | None) -> tuple[str, int | None]:
    """Return the host and port at which /metrics listens: `port` where no variable says another, or None."""
    host = os.environ.get("OTEL_EXPORTER_PROMETHEUS_HOST") or "127.0.0.1"
    wanted = os.environ.get("OTEL_EXPORTER_PROMETHEUS_PORT")
    return host, int(wanted) if wanted else port


def metrics_certificates() -> Certificates | None:
    """
    Return the certificates with which /metrics has TLS, or None where it is to have none.

    Raises SettingError for files that do not do, alone or together.
    """
    files = {role: value for role, name in METRICS_TLS.items() if (value := setting(name))}
    if not files:
        return None
    for role in ("certificate_chain", "private_key"):
        if role not in files:
            given, value = next(iter(files.items()))
            raise SettingError(METRICS_TLS[given], value, f"used without {METRICS_TLS[role]}")
    try:
        return Certificates(**files)
    except CertificateError as error:
        raise SettingError(METRICS_TLS[error.role], str(error.path), error.allowed) from error


def excluded_services() -> tuple[str, ...]:
    """Return the full names of the services that are not traced."""
    return _listed(os.environ.get("OTEL_PYTHON_GRPC_EXCLUDED_SERVICES", ""))


def _listed(value: str) -> tuple[str, ...]:
    """Return the parts of a comma-separated list that are not blank."""
    return tuple(part for each in value.split(",") if (part := each.strip()))


@contextlib.contextmanager
def standard_settings(checks: Mapping[str, Check] = STANDARD, *, warn: bool = True) -> Iterator[None]:
    """
    Let what runs inside see these variables with the invalid values left out, each reported in one warning.

    OpenTelemetry's own words for an invalid value seldom name the variable, may show a secret, and some of them are
    exceptions, at its import or later. So they are for an empty one, which counts as unset, and for spaces around a
    value, which are left out too. Where every value is valid, the environment is not touched; else it is changed for
    other threads as well. With warn=False nothing is said, before there is a log to say it in.
    """
    given = {name: os.environ[name] for name in (*checks, *ANY_VALUE) if name in os.environ}
    used, warnings = _usable(given, checks)
    for warning in warnings if warn else ():
        _logger.warning("%s", warning)
    changed = {name: value for name in {*given, *used} if given.get(name) != (value := used.get(name))}
    _put(changed)
    try:
        yield
    finally:
        _put({name: given.get(name) for name in changed})


def _put(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _usable(given: Mapping[str, str], checks: Mapping[str, Check]) -> tuple[dict[str, str], list[str]]:
    """Return the values that are used, as OpenTelemetry is to read them, and a warning for each other one."""
    values = {name: stripped for name, value in given.items() if (stripped := value.strip())}
    invalid = {
        name: allowed for name, value in values.items() if (check := checks.get(name)) and (allowed := check(value))
    }
    invalid |= _contradictions({name: value for name, value in values.items() if name not in invalid})
    valid = {name: value for name, value in values.items() if name not in invalid}
    warnings = [
        f"{shown_variable(name, given[name])} is not {allowed}: the default is used instead"
        for name, allowed in invalid.items()
    ]
    for name in _ENDPOINTS if _is_grpc(valid) else ():
        url = urlsplit(valid.get(name, ""))
        if "@" in url.netloc:
            valid[name] = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
            warnings.append(f"{name} has user information, which OTLP/gRPC does not send: it is left out")
    return _with_defaults(valid), warnings


_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def _is_grpc(valid: Mapping[str, str]) -> bool:
    names = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"
    return next((valid[name] for name in names if name in valid), "grpc").lower() == "grpc"


def _contradictions(valid: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Give the variables whose values are valid alone, but not beside another's, with what would be."""
    queue = int(valid.get("OTEL_BSP_MAX_QUEUE_SIZE", _QUEUE_SIZE))
    if int(valid.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1)) > queue:
        yield "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", f"at most OTEL_BSP_MAX_QUEUE_SIZE, which is {queue}"
    if not _is_grpc(valid):
        for name in _ENDPOINTS:
            if name in valid and not _is_url(valid[name]):
                yield name, _A_URL
        return
    for prefix in ("OTEL_EXPORTER_OTLP_TRACES", "OTEL_EXPORTER_OTLP"):
        if not _are_metadata(valid.get(f"{prefix}_HEADERS", "")):
            yield f"{prefix}_HEADERS", "a list of key=value that gRPC can send"
        pair = {f"{prefix}_CLIENT_KEY", f"{prefix}_CLIENT_CERTIFICATE"}
        if len(given := pair & valid.keys()) == 1:  # gRPC would end the process
            yield given.pop(), f"used without {pair.difference(valid).pop()}"


def _with_defaults(valid: Mapping[str, str]) -> dict[str, str]:
    """Say what OpenTelemetry takes unset for: without a word where it warns, and where it raises at the word."""
    names = "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"
    compression = next((valid[name] for name in names if name in valid), "")
    # The gRPC exporter raises an exception at `none`, which is its default.
    used = {name: value for name, value in valid.items() if name not in names or compression.lower() != "none"}
    if used.get("OTEL_TRACES_SAMPLER", "").lower().endswith("traceidratio"):
        used.setdefault("OTEL_TRACES_SAMPLER_ARG", "1")
    return used
