"""docs/settings.md says what the programs take: every option and every variable, with its default."""

import functools
import re
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import _KNOWN_SAMPLERS

from observability.settings import OURS, STANDARD
from tests.support import python
from tests.support.process import Words

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "settings.md").read_text()
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in TABLE.splitlines() if line.startswith("| ")][1:]
PROGRAMS = (
    ["service-a/app.py"],
    ["service-b/app.py"],
    *(
        ["client", command]
        for command in ("call-echo", "echo", "chat", "health-a", "health-b", "demo", "trace", "load")
    ),
)


@functools.cache
def help_of(*program: str) -> str:
    """Return a program's --help, unwrapped."""
    ended = python.run(*program, "--help")
    assert ("", 0) == (ended.stderr, ended.returncode)
    return re.sub(r"\s+", " ", ended.stdout)


@pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)
def test_every_option_stands_in_the_table(program: list[str]) -> None:
    """
    Each option of each program, and the variable that it can be given by, stands in the page's table.
    """
    text = help_of(*program)
    options = set(re.findall(r"--[a-z-]+", text)) - {"--help"}
    variables = {name.strip(",") for names in re.findall(r"env var: ([A-Z_, ]+)", text) for name in names.split()}

    assert set() == {name for name in options | variables if f"`{name}`" not in TABLE}


def default_of(name: str) -> str:
    """
    Return the default that the table gives an option or a variable.

    A row may be about several, with one default for all or with one for each.
    """
    for options, variables, default, _ in ROWS:
        for cell in (options, variables):
            names = re.findall(r"`([A-Z-].+?)`", cell)
            if name in names:
                defaults = default.split(", ")
                return defaults[names.index(name)] if len(defaults) == len(names) else default
    raise LookupError(name)


def is_same(shown: str, real: str) -> bool:
    """Return whether the table shows a default as it is; what follows a semicolon is about other cases."""
    shown, real = shown.partition(";")[0], real.strip("()")
    try:
        return float(shown) == float(real)
    except ValueError:
        return shown == real


@pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)
def test_defaults_of_options(program: list[str]) -> None:
    """
    The table's default of an option is the one that --help shows.
    """
    an_option = r"(--[a-z-]+)(?:(?! --[a-z]).)*?\[(?:env var: (\w+); )?default: (.+?)\]"
    found = re.findall(an_option, help_of(*program))
    wrong = [
        (option, variable, real, default_of(variable or option))
        for option, variable, real in found
        if not is_same(default_of(variable or option), real)
    ]

    assert [] == wrong
    assert len(found) == help_of(*program).count("default: ")


def test_defaults_of_variables() -> None:
    """
    The table's default of a variable is what a process has that was started without it.
    """
    with Words({"OTEL_TRACES_EXPORTER": ""}) as words:
        facts = words.tracing()
    real = {
        **{name: default for name, (default, _) in OURS.items()},
        "OTEL_BSP_MAX_QUEUE_SIZE": facts["queue"],
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": facts["batch"],
        "OTEL_BSP_SCHEDULE_DELAY": str(float(facts["delay"]) * 1000),
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{facts['_endpoint']}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": facts["_timeout"],
        "OTEL_EXPORTER_PROMETHEUS_HOST": words.addresses["metrics"].rpartition(":")[0],
        "OTEL_EXPORTER_PROMETHEUS_PORT": ", ".join(
            re.findall(r"metrics_port=(\d+)", "".join((ROOT / path).read_text() for [path] in PROGRAMS[:2]))
        ),
    }

    assert set() == {name for name, default in real.items() if not is_same(default_of(name), default)}
    samplers: dict[str, Any] = _KNOWN_SAMPLERS
    assert samplers[default_of("OTEL_TRACES_SAMPLER")].get_description() == facts["sampler"]


def test_every_variable_stands_in_the_table() -> None:
    """
    Each variable that the package reads stands in the page's table.
    """
    read = {
        *STANDARD,
        *OURS,
        "OTEL_SERVICE_NAME",
        "OTEL_PYTHON_GRPC_EXCLUDED_SERVICES",
    }

    assert set() == {name for name in read if f"`{name}`" not in TABLE}


def test_the_table_names_nothing_else() -> None:
    """
    No row of the page's table is about a variable that nothing reads.
    """
    code = "".join(
        path.read_text()
        for folder in ("observability", "programs", "service-a", "service-b", "client")
        for path in (ROOT / folder).rglob("*.py")
    )
    known = {*STANDARD, *OURS} | {
        f"{prefix}_{name}"
        for prefix in ("SERVICE_A", "SERVICE_B", "CLIENT")
        for name in re.findall(r'prefix}_(\w+)"', code)
    }
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+)`", TABLE)) - {
        "NOT_SERVING",
        "GRPC_VERBOSITY",
    }  # a status, and gRPC's own

    assert set() == {name for name in named if name not in known and f'"{name}"' not in code}
