"""Every option and every variable with a bad value: told in one line, and what the contract says of the start."""

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import click
import pytest

from client.lines import fields
from client.processes import ROOT, Service, environment
from programs.options import ListenHost, Number, PeerAddress
from tests.system.conftest import System, run_client

FOLDERS = ("service-a", "service-b")
BAD: dict[type[click.ParamType[object]], str] = {
    Number: "many",
    ListenHost: "no.such.host.invalid",
    PeerAddress: "nowhere",
    click.types.BoolParamType: "perhaps",
}
OURS = {
    "LOG_FORMAT": "xml",
    "LOG_LEVEL": "loud",
    "OBSERVABILITY_TRACES": "magic",
    "OBSERVABILITY_LOG_CALLS": "some",
}
STANDARD = {
    "OTEL_SDK_DISABLED": "perhaps",
    "OTEL_RESOURCE_ATTRIBUTES": "no pairs",
    "OTEL_PROPAGATORS": "pigeons",
    "OTEL_TRACES_EXPORTER": "pigeons",
    "OTEL_TRACES_SAMPLER": "sometimes",
    "OTEL_TRACES_SAMPLER_ARG": "often",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "nowhere",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "pigeons",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "/no/such/file",
    "OTEL_BSP_SCHEDULE_DELAY": "soon",
    "OTEL_BSP_EXPORT_TIMEOUT": "soon",
    "OTEL_BSP_MAX_QUEUE_SIZE": "many",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "many",
    "OTEL_EXPORTER_PROMETHEUS_PORT": "front",
}


def command(folder: str) -> click.Command:
    """Return the command line of a service."""
    spec = importlib.util.spec_from_file_location(folder.replace("-", "_"), ROOT / folder / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: click.Command = module.main
    return main


def options(folder: str) -> list[click.Option]:
    """Return the options of a service, as it declares them."""
    return [option for option in command(folder).params if isinstance(option, click.Option)]


def bad_start(folder: str, name: str, value: str) -> subprocess.CompletedProcess[str]:
    """Start a service with a bad value of a variable; return what became of it."""
    return subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT / folder,
        env=environment(**{name: value}),
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("folder", FOLDERS)
def test_bad_variables_stop_the_start(folder: str) -> None:
    """A bad value of any variable of ours is one line that names it and its value, and exit status 2."""
    bad = OURS | {str(option.envvar): BAD[type(option.type)] for option in options(folder)}
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda item: bad_start(folder, *item), bad.items()))

    assert [("", 2)] * len(bad) == [(result.stdout, result.returncode) for result in results]
    for (name, value), result in zip(bad.items(), results, strict=True):
        (line,) = result.stderr.splitlines()
        assert name in line
        assert repr(value) in line


@pytest.mark.parametrize("folder", FOLDERS)
def test_bad_options_stop_the_start(folder: str) -> None:
    """A bad value of any option is wrong usage, told in one line that names the option and its value."""
    main = command(folder)
    for option in options(folder):
        if option.is_flag:
            continue
        value = BAD[type(option.type)]
        with pytest.raises(click.UsageError) as caught:
            main.main([option.opts[0], value], standalone_mode=False)

        (line,) = caught.value.format_message().splitlines()
        assert option.opts[0] in line
        assert repr(value) in line


def test_bad_values_stop_the_client() -> None:
    """A bad variable of ours stops the client too, with one line and exit status 2."""
    result = run_client("health-a", LOG_FORMAT="xml")

    assert ("LOG_FORMAT='xml' is not one of keyvalue, json\n", "", 2) == (
        result.stderr,
        result.stdout,
        result.returncode,
    )


def test_bad_standard_variables_are_warned_of(system: System) -> None:
    """A bad value of OpenTelemetry's variables is one warning that names it and its value, and the default counts."""
    # The default port of /metrics may be someone else's: what is in use then is told, and is no fault of ours.
    variables = {name: value for name, value in STANDARD.items() if name != "OTEL_EXPORTER_PROMETHEUS_PORT"}
    with Service("service-a", **variables) as service:
        answer = system.client("echo", "hello", SERVICE_A_ADDRESS=service.address)
        warnings = service.stdout.lines("level=warning")
        errors = service.stderr.lines()

    assert '{"echo": "hello"}\n' == answer.stdout
    assert [] == errors
    for name, value in variables.items():
        (warning,) = [line for line in warnings if f"{name}=" in fields(line)["event"]]
        assert repr(value) in fields(warning)["event"]


def test_bad_standard_variables_stay_out_of_the_clients_way(system: System) -> None:
    """The client says nothing of a bad value of OpenTelemetry's variables."""
    result = system.client("echo", "hello", OTEL_TRACES_SAMPLER="sometimes", OTEL_PROPAGATORS="pigeons")

    assert ('{"echo": "hello"}\n', "", 0) == (result.stdout, result.stderr, result.returncode)


def test_client_listens_nowhere(system: System) -> None:
    """A port for /metrics in the environment is not the client's, even one that is in use."""
    port = system.a.metrics_url.removesuffix("/metrics").rpartition(":")[2]

    result = system.client("echo", "hello", OTEL_EXPORTER_PROMETHEUS_PORT=port)

    assert ('{"echo": "hello"}\n', "", 0) == (result.stdout, result.stderr, result.returncode)


@pytest.mark.parametrize("folder", FOLDERS)
def test_help_lists_options_with_variable_and_default(folder: str) -> None:
    """--help names each option, its variable and its default."""
    result = subprocess.run(
        [sys.executable, "app.py", "--help"],
        cwd=ROOT / folder,
        env=environment(COLUMNS="200"),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    text = " ".join(result.stdout.split())

    for option in options(folder):
        default = "(off)" if option.is_flag else option.default
        assert option.opts[0] in text
        assert f"[env var: {option.envvar}; default: {default}]" in text
