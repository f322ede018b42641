"""Every option and every variable with an invalid value: one line, and what the contract says of the start."""

import importlib.util
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import click
import pytest

from client.__main__ import COMMANDS, client
from client.demo import Certs
from client.jaeger import TraceId
from client.lines import fields
from client.load import Duration, Share
from client.processes import ROOT
from observability import settings
from programs.options import GrpcTarget, ListenHost, NewFile, Number, PeerAddress, ReadableFile, Text, Url
from tests.support import python
from tests.support.invalid_values import NEVER_SHOWN, OURS, STANDARD, complaint
from tests.support.process import Service
from tests.system.conftest import System, run_client

FOLDERS = ("service-a", "service-b")
# The default port of /metrics may be someone else's: one that is in use is reported, and is no fault of ours.
OF_SERVICES = {name: bad for name, bad in STANDARD.items() if name != "OTEL_EXPORTER_PROMETHEUS_PORT"}
# Of each type, an invalid value and what is allowed.
BAD = {
    ListenHost: ("no.such.host.invalid", "an address of this machine, such as 127.0.0.1, 0.0.0.0 or [::]"),
    PeerAddress: ("nowhere", "HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080"),
    GrpcTarget: (
        "ipv4:nowhere:1",
        "HOST:PORT, dns:///HOST:PORT, or several addresses, such as ipv4:127.0.0.1:8080,127.0.0.1:8082",
    ),
    Url: ("nowhere", "a URL such as http://localhost:16686"),
    Duration: ("soon", "a duration such as 500ms, 30s, 5m or 1h"),
    Share: ("101%", "a share from 0% to 100%"),
    ReadableFile: ("/no/such/file.pem", "a file that can be read"),
    Certs: ("/no/such/certs", "a folder that `make certs` has written"),
    NewFile: ("/no/such/folder/demo.svg", "a file that can be written, in a folder that is there"),
    Text: ("\udcff", "UTF-8 text"),
    TraceId: ("abc", "32 hex digits"),
    click.types.BoolParamType: ("perhaps", "a valid boolean"),
}
GOOD_ARGUMENTS = {"call-echo": ["hello"], "echo": ["hello"], "trace": ["0" * 32]}


@dataclass(frozen=True)
class Setting:
    """An option, a variable or an argument of a program, and an invalid value of it."""

    program: str
    arguments: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]
    kind: type
    name: str
    value: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.program} {self.name}"


def service_command(folder: str) -> click.Command:
    """Return the command line of a service."""
    spec = importlib.util.spec_from_file_location(folder.replace("-", "_"), ROOT / folder / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: click.Command = module.main
    return main


def client_command(name: str) -> click.Command:
    """Return a command of the client's."""
    assert isinstance(client, click.Group)
    command = client.get_command(click.Context(client), name)
    assert command is not None
    return command


PROGRAMS = {folder: service_command(folder) for folder in FOLDERS} | {name: client_command(name) for name in COMMANDS}


def invalid_value(type_: click.ParamType[object]) -> tuple[str, str]:
    """Return an invalid value of a type, and what is allowed."""
    if isinstance(type_, Number):
        whole = "whole " if isinstance(type_.minimum, int) else ""
        return "many", f"a {whole}number from {type_.minimum:g} to {type_.maximum:,}"
    return BAD[type(type_)]


def settings_of(program: str) -> list[Setting]:
    """Return an invalid value for each option, variable and argument of a program."""
    good = GOOD_ARGUMENTS.get(program, [])
    found = []
    for param in PROGRAMS[program].params:
        is_flag = isinstance(param, click.Option) and param.is_flag
        if is_flag and not param.envvar:
            continue  # a flag of the client's has no value
        kind = type(param.type)
        value, allowed = invalid_value(param.type)
        if isinstance(param, click.Argument):
            found.append(Setting(program, (value,), (), kind, param.make_metavar(CONTEXT), value, allowed))
        elif not is_flag:
            found.append(Setting(program, (*good, param.opts[0], value), (), kind, param.opts[0], value, allowed))
        if param.envvar:
            name = str(param.envvar)
            found.append(Setting(program, tuple(good), ((name, value),), kind, name, value, allowed))
    return found


CONTEXT = click.Context(click.Command("any"))
SETTINGS = [setting for program in PROGRAMS for setting in settings_of(program)]
# One of each kind, as an option or argument and as a variable.
KINDS = {(setting.kind, bool(setting.variables), setting.program in FOLDERS): setting for setting in SETTINGS}


def test_every_kind_of_setting_is_here() -> None:
    """These tests have an invalid value for each kind of setting that a program has, and for each variable of ours."""
    assert {Number, *BAD} == {setting.kind for setting in SETTINGS}
    assert set(settings.OURS) == {*OURS, "OBSERVABILITY_LOG_BAGGAGE"}
    assert set(settings.STANDARD) == set(STANDARD)


def assert_reported(setting: Setting, text: str) -> None:
    """Compare what is printed of a setting's invalid value with the contract."""
    (line,) = text.splitlines()
    assert setting.name in line
    assert f"{setting.value!r} is not {setting.allowed}" in line


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_invalid_values_stop_the_start(monkeypatch: pytest.MonkeyPatch, setting: Setting) -> None:
    """An invalid value of an option, variable or argument is one line that names it, its value and what is allowed."""
    for name, value in setting.variables:
        monkeypatch.setenv(name, value)

    with pytest.raises(click.UsageError) as caught:
        PROGRAMS[setting.program].make_context(setting.program, list(setting.arguments))

    assert_reported(setting, caught.value.format_message())


def start(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Start a service, or a command of the client's, that does not get far; return what became of it."""
    if program not in FOLDERS:
        return run_client(program, *arguments, **variables)
    return python.run("app.py", *arguments, folder=ROOT / program, variables=variables)


@pytest.mark.parametrize("setting", KINDS.values(), ids=str)
def test_invalid_values_in_a_process(setting: Setting) -> None:
    """In a real process the line is all that is printed, and the exit status is 2."""
    result = start(setting.program, *setting.arguments, **dict(setting.variables))

    assert ("", 2) == (result.stdout, result.returncode)
    assert_reported(setting, result.stderr)


@pytest.mark.parametrize("url", [f"http://user:{NEVER_SHOWN}@localhost:16686", f"user:{NEVER_SHOWN}@localhost"])
def test_secrets_of_a_url(url: str) -> None:
    """A user and a password in Jaeger's URL, which would lead nowhere, are refused, and not shown."""
    result = run_client("trace", "0" * 32, JAEGER_URL=url)

    assert ("", 2) == (result.stdout, result.returncode)
    assert "'--jaeger' (env var: 'JAEGER_URL'): *** is not a URL such as http://localhost:16686" in result.stderr
    assert NEVER_SHOWN not in result.stderr


@pytest.mark.parametrize("program", [*FOLDERS, "health-a", "call-echo", "load"])
def test_invalid_variables_of_ours(program: str) -> None:
    """An invalid value of a variable of ours stops each program with the one line, and exit status 2."""
    arguments = GOOD_ARGUMENTS.get(program, [])
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda item: start(program, *arguments, **{item[0]: item[1][0]}), OURS.items()))

    assert [(f"{name}={value!r} is not {allowed}\n", "", 2) for name, (value, allowed) in OURS.items()] == [
        (result.stderr, result.stdout, result.returncode) for result in results
    ]


@pytest.mark.parametrize("program", [*FOLDERS, "health-a", "call-echo", "load"])
def test_invalid_folder_of_prometheus(program: str) -> None:
    """A folder for prometheus_client's multiprocess mode that is missing stops each program likewise."""
    result = start(program, *GOOD_ARGUMENTS.get(program, []), PROMETHEUS_MULTIPROC_DIR="/no/such/folder")

    assert ("PROMETHEUS_MULTIPROC_DIR='/no/such/folder' is not a folder that can be written\n", "", 2) == (
        result.stderr,
        result.stdout,
        result.returncode,
    )


@pytest.mark.parametrize("folder", FOLDERS)
def test_invalid_standard_variables_are_warned_of(system: System, folder: str) -> None:
    """An invalid value of OpenTelemetry's variables is one warning that names it, and the default is used."""
    with Service(folder, **{name: value for name, (value, _) in OF_SERVICES.items()}) as service:
        health = {"SERVICE_A_ADDRESS": service.address, "SERVICE_B_ADDRESS": service.address}
        answer = system.client(f"health-{folder[-1]}", **health)
        warnings = [fields(line)["event"] for line in service.stdout.lines("level=warning")]
        errors = service.stderr.lines()

    assert '{"status": "ok"}\n' == answer.stdout
    assert [] == errors
    assert NEVER_SHOWN not in "".join(warnings)
    for name in OF_SERVICES:
        (warning,) = [text for text in warnings if text.startswith(f"{name}=")]
        assert warning.startswith(complaint(name))
        assert warning.endswith(": the default is used instead")


@pytest.mark.parametrize("family", sorted({"_".join(name.split("_")[:2]) for name in STANDARD}))
def test_invalid_standard_variables_stay_out_of_the_clients_way(system: System, family: str) -> None:
    """The client prints nothing of an invalid value of OpenTelemetry's variables, be it beside its family's."""
    variables = {name: value for name, (value, _) in STANDARD.items() if name.startswith(family)}
    result = system.client("echo", "hello", **variables)

    assert ('{"echo": "hello"}\n', "", 0) == (result.stdout, result.stderr, result.returncode)


def test_client_listens_nowhere(system: System) -> None:
    """A port for /metrics in the environment is not the client's, even one that is in use."""
    port = system.a.metrics_url.removesuffix("/metrics").rpartition(":")[2]

    result = system.client("echo", "hello", OTEL_EXPORTER_PROMETHEUS_PORT=port)

    assert ('{"echo": "hello"}\n', "", 0) == (result.stdout, result.stderr, result.returncode)


@pytest.mark.parametrize("folder", FOLDERS)
def test_help_lists_options_with_variable_and_default(folder: str) -> None:
    """--help names each option, its variable and its default."""
    result = python.run("app.py", "--help", folder=ROOT / folder, variables={"COLUMNS": "200"})
    text = " ".join(result.stdout.split())

    assert 0 == result.returncode
    for option in PROGRAMS[folder].params:
        assert isinstance(option, click.Option)
        default = "(off)" if option.is_flag else option.default
        assert option.opts[0] in text
        assert f"[env var: {option.envvar}{f'; default: {default}' if default is not None else ''}]" in text
