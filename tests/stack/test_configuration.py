"""The files of the viewing stack are valid, fit each other, and are what the documents say."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from client.processes import ROOT
from tests.stack.dashboards import DASHBOARDS, DATA_SOURCES, titles
from tests.stack.programs import DEPLOY, run
from tests.stack.prometheus import COMPOSE_FILE, COPIES_FILE

PROMETHEUS = DEPLOY / "prometheus"
# What is recorded of each objective, and the share of calls that it allows to fail it.
RATIOS = {"job:grpc_server_errors": "0.001", "job:grpc_server_slow": "0.01"}
STACK = (ROOT / "docs" / "stack.md").read_text()
# Each stands in the place of the service of its name without the ending.
WITH_TLS = {"service-a-tls", "service-b-tls"}
# The Collector's, whose image has nothing in it that a health check could run.
COLLECTOR = {"collector", "sampler-1", "sampler-2"}
TEXT = (ROOT / COMPOSE_FILE).read_text()


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Return the services of the compose file, as Compose itself reads it."""
    config = run("docker-compose", "-f", COMPOSE_FILE, "--profile", "*", "config", "--format", "json")
    found: dict[str, Any] = json.loads(config)["services"]
    return found


def test_compose_file() -> None:
    """Compose accepts the file, without a warning."""
    assert "" == run("docker-compose", "-f", COMPOSE_FILE, "--profile", "*", "config", "--quiet")


def test_copies_file(services: dict[str, Any]) -> None:
    """Compose accepts the file for several copies, which publishes no port of theirs and changes nothing else."""
    files = ("-f", COMPOSE_FILE, "-f", COPIES_FILE, "--profile", "*")
    scaled = json.loads(run("docker-compose", *files, "config", "--format", "json"))["services"]
    expected = copy.deepcopy(services)
    configuration, *others = expected["prometheus"].pop("command")
    expected["prometheus"].pop("extra_hosts")
    expected["service-a"].pop("ports")

    assert "" == run("docker-compose", *files, "config", "--quiet")
    assert "--config.file=/etc/prometheus/prometheus.yml" == configuration
    assert ["--config.file=/etc/prometheus/copies.yml", *others] == scaled["prometheus"].pop("command")
    assert expected == scaled


@pytest.mark.parametrize("name", ["prometheus.yml", "copies.yml"])
def test_prometheus_configuration(name: str) -> None:
    """Promtool accepts Prometheus's configuration and every file that it names."""
    assert "FAILED" not in run("promtool", "check", "config", PROMETHEUS / name)


def test_prometheus_configuration_of_copies() -> None:
    """For several copies all but how the services are found is as ever."""
    before, after = ((PROMETHEUS / name).read_text() for name in ("prometheus.yml", "copies.yml"))

    assert without_discovery(before) == without_discovery(after)


def without_discovery(text: str) -> list[str]:
    """Return the lines of a configuration without comments, and without how its first job finds its targets."""
    text = re.sub(r"(?<=job_name: services\n).*?(?= +metric_relabel_configs)", "", text, flags=re.DOTALL)
    return [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def test_rules() -> None:
    """Promtool finds nothing wrong, nor doubtful, in the rules."""
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *(PROMETHEUS / "rules").glob("*.yml"))


@pytest.mark.parametrize("cases", sorted((PROMETHEUS / "tests").glob("*.yml")), ids=lambda path: path.stem)
def test_alerts_fire_when_they_should(cases: Path) -> None:
    """Each alert fires in the cases that it is for, and in no other."""
    run("promtool", "test", "rules", cases)


def test_windows_of_ratios() -> None:
    """A ratio over a window looks at that window alone, in all that it is made of."""
    text = (PROMETHEUS / "rules" / "objectives.yml").read_text()
    rules = re.findall(r"- record: (\S+):ratio_rate(\w+)\n((?: {8,}.*\n)+)", text)
    expected = [(ratio, window) for ratio in RATIOS for window in ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")]

    assert expected == [(ratio, window) for ratio, window, _ in rules]
    assert [[window] * 2 for _, window in expected] == [re.findall(r"\[(\w+)\]", rule) for *_, rule in rules]


@pytest.mark.parametrize(("ratio", "allowed"), RATIOS.items())
def test_windows_of_burn_rates(ratio: str, allowed: str) -> None:
    """Each alert on a budget compares two windows, a long and a short one, with the rate that is too fast for them."""
    text = (PROMETHEUS / "rules" / "alerts.yml").read_text()
    compared = rf"{ratio}:ratio_rate(\w+) > (\S+) \* {allowed}\n"
    rules = re.findall(rf"{compared} +and\n +{compared} +for: .*\n +labels: {{ severity: (\w+), window: (\w+) }}", text)

    assert [
        ("1h", "14.4", "5m", "14.4", "page", "1h"),
        ("6h", "6", "30m", "6", "page", "6h"),
        ("1d", "3", "2h", "3", "ticket", "1d"),
        ("3d", "1", "6h", "1", "ticket", "3d"),
    ] == rules


def test_every_alert_has_cases() -> None:
    """There are cases for each alert, of its firing and of its not firing."""
    rules = (PROMETHEUS / "rules" / "alerts.yml").read_text()
    cases = "".join(path.read_text() for path in (PROMETHEUS / "tests").glob("*.yml"))
    alerts = set(re.findall(r"- alert: (\w+)", rules))
    fires = re.findall(r'alertname: (\w+)\n +exp_alerts:\n|alertname="(\w+)".*\n.*\n +exp_samples:\n', cases)
    silent = re.findall(r'alertname: (\w+)\n +exp_alerts: \[\]|alertname="(\w+)".*\n.*\n +exp_samples: \[\]', cases)

    assert alerts == {name for names in fires for name in names if name}
    assert alerts == {name for names in silent for name in names if name}


def test_jaeger_configuration() -> None:
    """Jaeger accepts its configuration with no variable set, as in its container."""
    run("jaeger", "validate", f"--config={DEPLOY / 'jaeger' / 'config.yaml'}")


def test_ports_are_local(services: dict[str, Any]) -> None:
    """Every published port is one of this machine alone."""
    hosts = {port["host_ip"] for service in services.values() for port in service.get("ports", [])}

    assert {"127.0.0.1"} == hosts


def test_mounts_exist(services: dict[str, Any]) -> None:
    """What is mounted cannot be written to; all but what `make certs` writes is there, and lies in deploy/."""
    mounts = [mount for service in services.values() for mount in service.get("volumes", [])]
    ours = [Path(mount["source"]) for mount in mounts if mount["source"] != str(ROOT / "certs")]

    assert len(mounts) - len(WITH_TLS) == len(ours) > 0
    assert [] == [path for path in ours if not (path.exists() and path.is_relative_to(DEPLOY))]
    assert {True} == {mount.get("read_only", False) for mount in mounts}


def test_services_are_bounded(services: dict[str, Any]) -> None:
    """Each service has a limit to its memory; each but the Collector has a health check here or in our Dockerfile."""
    assert set(services) == {name for name, service in services.items() if service.get("mem_limit")}
    assert {"jaeger", "prometheus", "grafana"} == {
        name for name, service in services.items() if service.get("healthcheck")
    }
    assert {"deploy/Dockerfile"} == {
        service["build"]["dockerfile"]
        for name, service in services.items()
        if not service.get("healthcheck") and name not in COLLECTOR
    }


def test_inner_ways_go_past_a_proxy(services: dict[str, Any]) -> None:
    """Health checks, and viewers that ask each other, go past a proxy that Docker puts into the environment."""
    checks = [service["healthcheck"]["test"] for service in services.values() if service.get("healthcheck")]
    excluded = [
        services[name]["environment"][form]
        for name in ("jaeger", "grafana", *sorted(COLLECTOR))
        for form in ("NO_PROXY", "no_proxy")
    ]

    assert [["CMD", "wget", "-Y", "off"]] * 3 == [check[:4] for check in checks]
    assert ["jaeger,prometheus,sampler-1,sampler-2"] * 10 == excluded


def test_images_are_exact(services: dict[str, Any]) -> None:
    """An image of others has an exact version, and each image is a variable."""
    others = {name: service["image"] for name, service in services.items() if "build" not in service}

    assert {"jaeger", "prometheus", "grafana", *COLLECTOR} == {
        name for name, image in others.items() if re.search(r":v?\d+\.\d+\.\d+$", image)
    }
    # The samplers' is the gateway's.
    named = services.keys() - WITH_TLS - {"sampler-1", "sampler-2"}
    assert len(named) == len(re.findall(r"^    image: \$\{\w+_IMAGE:-\S+\}$", TEXT, re.MULTILINE))


def test_page_names_every_port(services: dict[str, Any]) -> None:
    """docs/stack.md has every published port."""
    ports = {port["published"] for service in services.values() for port in service.get("ports", [])}

    assert set() == {port for port in ports if port not in STACK}


def test_page_has_every_variable() -> None:
    """Each variable of the compose file stands in a row of the page's table, and its default in the same place."""
    documented: dict[str, str] = {}
    for names, defaults in re.findall(r"^\| ([^|]+) \| ([^|]+) \|", STACK, re.MULTILINE):
        documented |= dict(zip(re.findall(r"`(\w+)`", names), defaults.split(", "), strict=False))

    assert dict(re.findall(r"\$\{(\w+):-([^}]+)\}", TEXT)) == documented


def test_every_variable_has_a_default() -> None:
    """No variable of the compose file stands there without its default."""
    assert [] == re.findall(r"\$\{\w+\}|\$\w+", TEXT)


def test_commands_of_the_page() -> None:
    """The commands of docs/stack.md are those of the compose file's own comment, `down` included."""
    commands = r"(docker compose -f \S+(?: --profile \w+)* (?:up -d|down))"

    assert re.findall(rf"^#   {commands}", TEXT, re.MULTILINE) == re.findall(
        rf"^    \$ {commands}", STACK, re.MULTILINE
    )
    ends = "services --profile tls --profile collector down"
    assert ["up -d", "services up -d", "tls up -d", "collector up -d", ends] == [
        command.partition(".yml ")[2].removeprefix("--profile ") for command in re.findall(commands, STACK)
    ]
    assert "OTEL_EXPORTER_PROMETHEUS_HOST" in STACK


def test_services_are_built_here(services: dict[str, Any]) -> None:
    """Compose builds each service's image as the Dockerfile's stage of its name, with all of the project in reach."""
    built = {name: service["build"] for name, service in services.items() if "build" in service}

    assert {"service-a", "service-b", *WITH_TLS} == set(built)
    assert {name: name.removesuffix("-tls") for name in built} == {
        name: found["target"] for name, found in built.items()
    }
    assert {str(ROOT)} == {build["context"] for build in built.values()}


def test_services_are_built_on_an_exact_python(services: dict[str, Any]) -> None:
    """The Python that the services' images are built on has an exact version, the same in both places that name it."""
    [base] = re.findall(r"^ARG BASE=(\S+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)

    assert re.fullmatch(r"python:\d+\.\d+\.\d+-\S+", base)
    assert {base} == {service["build"]["args"]["BASE"] for service in services.values() if "build" in service}


def test_grafana_data_sources(services: dict[str, Any]) -> None:
    """Grafana's data sources are the compose file's services, at the ports that their programs listen on."""
    text = DATA_SOURCES.read_text()
    urls = re.findall(r"^    url: http://([\w-]+):(\d+)$", text, re.MULTILINE)

    assert {"prometheus": "9090", "jaeger": "16686"} == dict(urls)
    for name, port in urls:
        assert int(port) in {published["target"] for published in services[name]["ports"]}


def test_grafana_links() -> None:
    """Every data source that a dashboard or a link names is one that is provisioned."""
    text = DATA_SOURCES.read_text()
    dashboards = "".join(path.read_text() for path in DASHBOARDS.glob("*.json"))
    known = set(re.findall(r"^    uid: (\w+)$", text, re.MULTILINE))
    linked = set(re.findall(r"datasourceUid: (\w+)$", text, re.MULTILINE))
    used = set(re.findall(r'"datasource": \{\s*"type": "\w+",\s*"uid": "([^"]+)"', dashboards))

    assert {"prometheus", "jaeger"} == known == linked
    assert {"prometheus"} == used


def test_grafana_exemplars() -> None:
    """The label that Grafana follows from an exemplar to its trace is the one that exemplars carry."""
    text = DATA_SOURCES.read_text()

    assert re.search(r"exemplarTraceIdDestinations:\n +- name: trace_id\n +datasourceUid: jaeger\n", text)


def test_grafana_mounts(services: dict[str, Any]) -> None:
    """Grafana looks for its dashboards where they are mounted, and the home page is one of them."""
    provider = (DEPLOY / "grafana/provisioning/dashboards/dashboards.yml").read_text()
    [mount] = [m for m in services["grafana"]["volumes"] if m["source"].endswith("/dashboards")]
    home = Path(services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])

    assert f"path: {mount['target']}" in provider
    assert mount["target"] == str(home.parent)
    assert (DASHBOARDS / home.name).exists()


def test_guide_names_what_is_there() -> None:
    """Whatever the guide says to look for is the name of a panel, of a row or of an alert."""
    guide = (ROOT / "docs" / "observability.md").read_text()
    rules = (PROMETHEUS / "rules" / "alerts.yml").read_text()
    names = set(titles()) | set(re.findall(r"- alert: (\w+)", rules))

    assert {"bold"} == set(re.findall(r"\*\*([^*]+)\*\*", guide)) - names
    assert set() == set(re.findall(r"job:\w+:\w+", guide)) - set(
        re.findall(r"- record: (\S+)", (PROMETHEUS / "rules" / "objectives.yml").read_text())
    )


def test_guide_names_what_is_tested(services: dict[str, Any]) -> None:
    """The guide says which versions the tests run, and which Jaeger the stack runs in its place."""
    guide = re.sub(r"\s+", " ", (ROOT / "docs" / "observability.md").read_text())
    [prometheus] = re.findall(r"prometheus, version (\S+)", run("prometheus", "--version"))
    [jaeger] = re.findall(r'"gitVersion":"v([\d.]+)', run("jaeger", "version"))
    runs = services["jaeger"]["image"].partition(":")[2]

    assert f"Prometheus {prometheus}, and Jaeger {jaeger}, since Jaeger {runs}, which the stack runs," in guide
    assert f"v{prometheus}" == services["prometheus"]["image"].partition(":")[2]
