"""What is shown of values that may hold a secret."""

import pytest

from observability.redaction import (
    Redactor,
    secrets_of_address,
    secrets_of_headers,
    shown_address,
    shown_variable,
    user_information,
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:port"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/no/such/key.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/dev/null"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.crt"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=x,"),
    ],
)
def test_shown(name: str, value: str) -> None:
    """A value that holds no secret is shown: it is what helps."""
    assert f"{name}={value!r}" == shown_variable(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_HEADERS", "x"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http//user:pass@host"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "token@host:port"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://host:port?key=abc"),
        ("OTEL_EXPORTER_PROMETHEUS_HOST", "user:pass@host"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "MIGHAgEAMBMGByqGSM49/AgEGCCqGSM49+AwEHBG0wawIBAQ=="),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "-----BEGIN CERTIFICATE-----"),
    ],
)
def test_hidden(name: str, value: str) -> None:
    """Headers, user information, a query, and a key where its path is meant, are not."""
    assert f"{name}=***" == shown_variable(name, value)


@pytest.mark.parametrize(
    ("address", "shown", "user"),
    [
        ("http://localhost:4317", "http://localhost:4317", ""),
        ("http://user:pass@host:4317/v1/traces?key=1#2", "http://host:4317/v1/traces", "user:pass"),
        ("http://user:p@ss/w?rd@host", "http://host", "user:p@ss/w?rd"),
        ("user:pass@proxy:3128", "proxy:3128", "user:pass"),
        ("dns:///collector:4317", "dns:///collector:4317", ""),
        ("unix:/a/b", "unix:/a/b", ""),
        ("", "", ""),
    ],
)
def test_addresses(address: str, shown: str, user: str) -> None:
    """Of an address, its user information, query and fragment are not shown."""
    assert (shown, user) == (shown_address(address), user_information(address))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("invalid key abcd1234", "invalid key ***"),
        ("no Bearer: t0ken was sent", "no Bearer: *** was sent"),
        ("Bearer t0ken", "***"),
        ("p%40ss or p@ss", "*** or ***"),
        ("at http://else:where@host/", "at http://***@host/"),
        ("1 of 12 spans", "1 of 12 spans"),
        ("nothing at all", "nothing at all"),
    ],
)
def test_redactor(text: str, expected: str) -> None:
    """Secrets that are known are replaced wherever they stand, in every form they have; what is too short is none."""
    secrets = [
        *secrets_of_headers("api-key = abcd1234,authorization=Bearer%20t0ken, x-tenant=1"),
        *secrets_of_address("http://user:p%40ss@host"),
    ]

    assert expected == Redactor(secrets)(text)
