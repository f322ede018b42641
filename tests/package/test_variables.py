"""The variables that OpenTelemetry reads: we check all of them, in whatever version is installed."""

import ast
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.util.re import parse_env_headers

from client.lines import fields
from client.processes import ROOT, environment
from observability import settings
from tests.support.invalid_values import NEVER_SHOWN, STANDARD
from tests.support.process import NOWHERE, Words, sending

COVERED = {*settings.STANDARD, *settings.ANY_VALUE}
# What is about other signals than traces, or read by `opentelemetry-instrument` alone, which comes before us.
OF_OTHERS = re.compile(
    r"OTEL_("
    r"EXPORTER_OTLP_(METRICS|LOGS|PROFILES)_.*|EXPORTER_(ZIPKIN|JAEGER)_.*|EXPORTER_OTLP|EXPORTER_OTLP_(TRACES)?"
    r"|(LOGS|METRICS)_EXPORTER|METRIC_EXPORT_.*|BLRP_.*|LOGRECORD_.*"
    r"|PYTHON_EXPORTER_OTLP_(GRPC|HTTP)_(METRICS|LOGS)_.*|PYTHON_(EVENT_)?LOGGER_PROVIDER"
    r"|PYTHON_(TRACER|METER|LOGGER)_CONFIGURATOR|PYTHON_ID_GENERATOR|PYTHON_LOG(GING)?_.*|CONFIG_FILE|LOG_LEVEL"
    r"|EXPERIMENTAL_CONFIG_FILE|PYTHON_(DISTRO|CONFIGURATOR|DISABLED_INSTRUMENTATIONS)|PYTHON_AUTO_INSTRUMENTATION_.*"
    r"|PYTHON_EXPERIMENTAL_.*|SEMCONV_STABILITY_OPT_IN|INSTRUMENTATION_.*|PYTHON_INSTRUMENTATION_.*"
    r")"
)


def sources() -> Iterator[Path]:
    """Yield every source file of the installed OpenTelemetry."""
    for distribution in distributions():
        if distribution.name.startswith("opentelemetry"):
            for file in distribution.files or ():
                if file.suffix == ".py":
                    yield Path(str(distribution.locate_file(file)))


def test_every_variable_that_is_named() -> None:
    """
    Each variable that the sources of the installed OpenTelemetry name is covered, or is known to be of others.
    """
    named = {
        node.value
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"OTEL_\w+", node.value)
    }

    assert COVERED & named
    assert set() == {name for name in named - COVERED if not OF_OTHERS.fullmatch(name)}
    assert set() == {name for name in COVERED if OF_OTHERS.fullmatch(name)}


# Written to stderr at the end: the variables that were read.
RECORDING = """
import atexit, json, os
read = set()
class Recording(type(os.environ)):
    def __getitem__(self, key):
        read.add(key)
        return super().__getitem__(key)
os.environ.__class__ = Recording
atexit.register(lambda: print(json.dumps(sorted(read)), file=sys.stderr))
"""


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        {"OTEL_TRACES_EXPORTER": "console"},
        {"OBSERVABILITY_TRACES": "contrib"},
        {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_PYTHON_METER_PROVIDER": "sdk_meter_provider"},
        {"OTEL_PYTHON_TRACER_PROVIDER": "sdk_tracer_provider"},
        {"OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "*", "OTEL_EXPORTER_OTLP_ENDPOINT": "https://127.0.0.1:1"},
    ],
    ids=str,
)
def test_every_variable_that_is_read(variables: dict[str, str]) -> None:
    """
    Each variable of OpenTelemetry's that is read, from the import to the end, is covered.
    """
    with Words({**sending(NOWHERE, timeout=0.1), **variables}, before=RECORDING, flush_seconds=0.2) as words:
        words.call()
        words.close()
        words.end()
        read = json.loads(words.stderr.wait_for_end()[-1])

    assert "OTEL_SDK_DISABLED" in read
    assert [] == [name for name in read if name.startswith("OTEL_") and name not in COVERED]


def test_import_with_invalid_values() -> None:
    """
    `import observability` raises nothing, logs nothing and changes no variable, with every variable invalid.
    """
    bad = {name: value for name, (value, _) in STANDARD.items()}
    code = "import os; before = dict(os.environ); import observability; assert before == os.environ"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(**bad),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )

    assert (0, "", "") == (result.returncode, result.stdout, result.stderr)


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "max_span_attributes"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "max_events"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "max_links"),
        ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "max_event_attributes"),
        ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "max_link_attributes"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "max_attributes"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "max_attribute_length"),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "max_span_attribute_length"),
    ],
)
@pytest.mark.parametrize("value", [" 3 ", "many", "", "-1"])
def test_span_limits(monkeypatch: pytest.MonkeyPatch, name: str, attribute: str, value: str) -> None:
    """
    A valid limit is used, whatever is around it; an invalid one and an empty one are the default.
    """
    default = getattr(SpanLimits(), attribute)
    monkeypatch.setenv(name, value)

    with settings.standard_settings():
        limits = SpanLimits()

    assert (3 if "3" in value else default) == getattr(limits, attribute)


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "50%"},
        {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "half"},
        {"OTEL_RESOURCE_ATTRIBUTES": "team=x,"},
        {"OTEL_RESOURCE_ATTRIBUTES": "team=x,broken"},
        {"OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "otel,nope"},
        {"OTEL_PYTHON_CONTEXT": "nope"},
        {"OTEL_PYTHON_METER_PROVIDER": "nope"},
        {"OTEL_PYTHON_TRACER_PROVIDER": "nope"},
        {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "api-key"},
        {"OTEL_PROPAGATORS": "tracecontext,"},
    ],
    ids=str,
)
def test_one_warning(variables: dict[str, str]) -> None:
    """
    An invalid value is one warning in all: OpenTelemetry, which does not see it, adds none.
    """
    with Words({**sending(NOWHERE), **variables}, flush_seconds=0.1) as words:
        words.log("started")
        words.stdout.wait_for("event=started", count=2)
        warnings = [fields(line)["event"] for line in words.stdout.lines(" level=warning ")]
        errors = [*words.stdout.lines("Traceback"), *words.stderr.lines()]
    *_, name = variables

    assert [name] == [text.partition("=")[0] for text in warnings]
    assert [] == errors


def test_ratio_without_a_number() -> None:
    """
    A ratio without a number is 1, as its specification says, without a warning.
    """
    with Words({"OTEL_TRACES_SAMPLER": "traceidratio"}) as words:
        words.log("started")
        words.stdout.wait_for("event=started", count=2)
        sampler = words.tracing()["sampler"]

        assert [] == words.stdout.lines(" level=warning ")
    assert "TraceIdRatioBased{1.0}" == sampler


def test_tracer_made_later() -> None:
    """
    A tracer that the application makes later needs no variable that was invalid.
    """
    made = (
        "import tests.support.programs.words as program\n"
        "def tracer(self): self._telemetry.tracing.provider.get_tracer('app').start_span('one').end()\n"
        "program.Words.tracer = tracer\n"
    )
    with Words({"OTEL_PYTHON_METER_PROVIDER": "nope"}, before=made) as words:
        words._do("tracer")

        assert ["OK"] == words.call()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"OTEL_RESOURCE_ATTRIBUTES": "k8s.service.name=checkout"}, "words"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name="}, "words"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=  ,team=x"}, "words"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=%20"}, "words"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.namespace=shop,service.name.x=y"}, "words"),
        ({"OTEL_SERVICE_NAME": "  "}, "words"),
        ({"OTEL_SERVICE_NAME": ""}, "words"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "team=x, service.name = tea%20time "}, "tea time"),
        ({"OTEL_SERVICE_NAME": " tea ", "OTEL_RESOURCE_ATTRIBUTES": "service.name=coffee"}, "tea"),
    ],
    ids=str,
)
def test_service_name(variables: dict[str, str], expected: str) -> None:
    """
    A service has the name of the environment where that has one, and its own where not; so it is in both signals.
    """
    with Words(variables) as words:
        name = words.resource()["service.name"]
        scrape = words.scrape()
        warnings = words.stdout.lines(" level=warning ")

    assert expected == name
    assert f'service_name="{expected}"' in scrape
    assert [] == warnings


HEADERS = some.lists(some.text('aZ09-_=:;,"\\ %()/éß\t\x7f', max_size=8), max_size=3).map(",".join)


@given(HEADERS)
def test_headers_that_opentelemetry_reads(headers: str) -> None:
    """
    Headers are valid only where OpenTelemetry reads each of them, so that it has none to show in a warning.
    """
    wanted = [header for header in headers.split(",") if header.strip(" \t")]
    is_good = settings.STANDARD["OTEL_EXPORTER_OTLP_HEADERS"](headers) is None

    assert is_good == all(len(parse_env_headers(header, liberal=True)) == 1 for header in wanted)


def test_environment_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where every value is valid, the environment is not touched, which other threads and their children see.
    """
    monkeypatch.setenv("OTEL_SERVICE_NAME", "tea")
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "3")
    changes: list[str] = []
    monkeypatch.setattr(os, "putenv", lambda name, _value: changes.append(name))
    monkeypatch.setattr(os, "unsetenv", changes.append)

    with settings.standard_settings():
        pass

    assert [] == changes


def test_environment_afterwards_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Variables that were added, changed or left out are as they were, an exception or not.
    """
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio ")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "50%")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://user:{NEVER_SHOWN}@localhost:1")
    before = dict(os.environ)

    with contextlib.suppress(RuntimeError), settings.standard_settings():
        inside = dict(os.environ)
        raise RuntimeError

    assert ("1", "http://localhost:1") == (inside["OTEL_TRACES_SAMPLER_ARG"], inside["OTEL_EXPORTER_OTLP_ENDPOINT"])
    assert before == os.environ
