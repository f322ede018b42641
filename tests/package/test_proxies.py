"""Proxies: inner collectors are reached past them, outer ones through them, and the line on lost spans names them."""

import pytest

from client.lines import fields
from observability.traces.proxies import grpc_proxy, host_of, is_inner
from tests.support.invalid_values import NEVER_SHOWN
from tests.support.process import Words, sending
from tests.support.receiver import HttpReceiver, Proxy, Receiver

# No host is excluded from the proxy, as it is for the other processes of these tests.
EVERYTHING = {"no_grpc_proxy": "", "no_proxy": "", "NO_PROXY": ""}


def proxied(proxy: Proxy, user: str = "") -> dict[str, str]:
    """Return the variables that name a proxy for all there is, in every way."""
    url = f"http://{user}127.0.0.1:{proxy.port}"
    names = ("grpc_proxy", "http_proxy", "https_proxy", "all_proxy")
    return {**EVERYTHING, **{form: url for name in names for form in (name, name.upper())}}


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_goes_past_the_proxy(protocol: str, host: str) -> None:
    """A collector on loopback gets its spans, whatever proxy the environment names, and that proxy is not asked."""
    kind = Receiver if protocol == "grpc" else HttpReceiver
    with Proxy() as proxy, kind() as receiver:
        endpoint = f"http://{host}:{receiver.port}"
        with Words({**sending(endpoint, OTEL_EXPORTER_OTLP_PROTOCOL=protocol), **proxied(proxy)}) as words:
            words.call()
            words.close()
            warnings = words.stdout.lines(" level=warning ")

    assert ([], []) == (proxy.asked, warnings)
    assert {"server", "client"} == {span.kind for span in receiver.spans()}


@pytest.mark.parametrize(
    ("protocol", "endpoint", "asked", "code", "reason"),
    [
        ("grpc", "http://collector.example:4317", "CONNECT collector.example:4317 ", "UNAVAILABLE", "403"),
        ("grpc", "https://collector.example", "CONNECT collector.example", "UNAVAILABLE", "403"),
        ("grpc", "http://198.51.100.1:4317", "CONNECT 198.51.100.1:4317 ", "UNAVAILABLE", "403"),
        ("http/protobuf", "http://collector.example", "POST http://collector.example/v1/traces ", "403", "Forbidden"),
        ("http/protobuf", "https://collector.example", "CONNECT collector.example:443 ", "ProxyError", "403"),
    ],
)
def test_outer_goes_through_the_proxy(protocol: str, endpoint: str, asked: str, code: str, reason: str) -> None:
    """An outer collector is asked of the proxy; where that refuses, the line names it, without user or password."""
    with Proxy() as proxy:
        variables = sending(endpoint, timeout=0.8, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
        with Words({**variables, **proxied(proxy, f"user:{NEVER_SHOWN}@")}) as words:
            words.call()
            [line, *_] = words.stdout.wait_for("spans cannot be exported")
            words.close()
            words.end()
            said = [*words.stdout.wait_for_end(), *words.stderr.wait_for_end()]
    found = fields(line)

    assert proxy.asked
    assert all(line.startswith(asked) for line in proxy.asked)
    assert (f"http://127.0.0.1:{proxy.port}", endpoint, code) == (found["proxy"], found["endpoint_url"], found["code"])
    assert reason in found["reason"]
    assert [] == [line for line in said if NEVER_SHOWN in line]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_outer_that_is_excluded(protocol: str) -> None:
    """What no_proxy names is not asked of the proxy, and the line names none."""
    with Proxy() as proxy:
        variables = sending("http://collector.invalid:1", timeout=0.5, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
        excluded = {"no_grpc_proxy": "example.com, .invalid", "no_proxy": "example.com,.invalid"}
        with Words({**variables, **proxied(proxy), **excluded}) as words:
            words.call()
            [line, *_] = words.stdout.wait_for("spans cannot be exported")

    assert [] == proxy.asked
    assert "proxy" not in fields(line)


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("http://localhost:4317", "localhost"),
        ("https://Collector.Example/v1/traces", "collector.example"),
        ("http://[::1]:4317", "::1"),
        ("http://user:pass@collector:4317", "collector"),
        ("collector", "collector"),
        ("collector:4317", "collector"),
        ("[::1]:4317", "::1"),
        ("dns:collector:4317", "collector"),
        ("dns:///collector.example:4317", "collector.example"),
        ("ipv4:10.1.2.3:4317", "10.1.2.3"),
        ("ipv6:[fe80::1%eth0]:4317", "fe80::1%eth0"),
        ("unix:/absolute/socket", ""),
        ("unix-abstract:name", ""),
        ("vsock:1:2", ""),
    ],
)
def test_host_of_an_endpoint(endpoint: str, host: str) -> None:
    """The host is found in every form that an endpoint may have."""
    assert host == host_of(endpoint)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "jaeger",
        "app.localhost",
        "printer.local",
        "host.docker.internal",
        "collector.monitoring.svc",
        "collector.monitoring.svc.cluster.local.",
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",  # noqa: S104 - an address to send to
        "10.1.2.3",
        "172.17.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "fd00::1",
        "fe80::1%eth0",
    ],
)
def test_inner_hosts(host: str) -> None:
    """Loopback, private addresses, and names that only an inner network knows are inner."""
    assert is_inner(host)


@pytest.mark.parametrize(
    "host",
    [
        "collector.example",
        "localhost.example",
        "jaeger.example.com",
        "8.8.8.8",
        "198.51.100.1",
        "172.32.0.1",
        "::ffff:8.8.8.8",
        "2001:db8::1",
    ],
)
def test_outer_hosts(host: str) -> None:
    """Everything else is outer."""
    assert not is_inner(host)


PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ""),
        ({"http_proxy": PROXY}, PROXY),
        ({"HTTP_PROXY": PROXY}, ""),
        ({"grpc_proxy": PROXY, "https_proxy": "http://other:1"}, PROXY),
        ({"grpc_proxy": "", "http_proxy": PROXY}, ""),
        ({"http_proxy": "socks5://proxy:3128"}, ""),
        ({"http_proxy": PROXY, "no_proxy": "localhost, example"}, ""),
        ({"http_proxy": PROXY, "no_proxy": "Collector.Example"}, ""),
        ({"http_proxy": PROXY, "no_proxy": "other.example,,"}, PROXY),
        ({"http_proxy": PROXY, "no_proxy": "example", "no_grpc_proxy": "other"}, PROXY),
    ],
    ids=str,
)
def test_proxy_that_grpc_asks(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str) -> None:
    """The proxy that is named is the one that gRPC's core asks, by the variables that it reads."""
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert expected == grpc_proxy("collector.example")


def test_networks_that_grpc_excludes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network in no_proxy excludes the addresses in it."""
    monkeypatch.setenv("grpc_proxy", PROXY)
    monkeypatch.setenv("no_grpc_proxy", "198.51.100.0/24,nonsense/99")

    assert ("", PROXY, PROXY) == tuple(map(grpc_proxy, ("198.51.100.7", "198.51.101.7", "collector.example")))
