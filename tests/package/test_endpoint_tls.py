"""/metrics over TLS: its certificate, its scrapers' certificates, and its limits, which stay."""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter

from observability import Certificates, SettingError, Telemetry
from observability.metrics import endpoint
from observability.metrics.endpoint import CONNECTION_LIMIT, MetricsEndpoint
from observability.settings import METRICS_TLS
from tests.package.conftest import Log
from tests.support.connections import end_of
from tests.support.tls import Authority, Files, Pair, shown_certificate

AUTHORITY = Authority()
LOCAL = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is warned of
Serve = Callable[[Certificates], str]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Give files of a server's certificate."""
    return Files(tmp_path, AUTHORITY)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve /metrics with these certificates until the test's end; gives the address."""
    with contextlib.ExitStack() as ends:

        def serve(certificates: Certificates) -> str:
            registry = CollectorRegistry()
            Counter("tea", "Cups.", registry=registry).inc(3)
            served = MetricsEndpoint(registry, LOCAL, 0, certificates)
            ends.callback(served.close)
            return served.address

        yield serve


def certificates(files: Files, *, of_scrapers: bool = False) -> Certificates:
    """Return the certificates in these files; scrapers may need some as well."""
    return Certificates(
        certificate_chain=files.certificate,
        private_key=files.key,
        root_certificates=files.authority if of_scrapers else None,
    )


def scraper(tmp_path: Path, pair: Pair | None = None) -> ssl.SSLContext:
    """Return what a scraper connects with: it trusts the authority, and may show a certificate."""
    context = ssl.create_default_context(cadata=AUTHORITY.certificate.decode())
    if pair is not None:
        both = tmp_path / "scraper.pem"
        both.write_bytes(pair.key + pair.certificate)
        context.load_cert_chain(both)
    return context


def scrape(address: str, context: ssl.SSLContext) -> str:
    """Scrape, and return the page."""
    connection = http.client.HTTPSConnection(address, timeout=20, context=context)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


def connect(address: str, sent: bytes = b"") -> socket.socket:
    """Connect without TLS, and send this."""
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), 20)
    connection.sendall(sent)
    return connection


def test_page(files: Files, tmp_path: Path, serve: Serve) -> None:
    """A scraper that trusts the authority gets the page."""
    assert "tea_total 3.0" in scrape(serve(certificates(files)), scraper(tmp_path))


def test_plain_text(files: Files, serve: Serve) -> None:
    """What comes without TLS gets nothing of the page."""
    assert b"tea" not in end_of(connect(serve(certificates(files)), b"GET /metrics HTTP/1.1\r\n\r\n"))


def test_certificates_of_scrapers(files: Files, tmp_path: Path, serve: Serve) -> None:
    """Where scrapers need a certificate, one without, or with that of another authority, gets nothing."""
    address = serve(certificates(files, of_scrapers=True))

    assert "tea_total 3.0" in scrape(address, scraper(tmp_path, AUTHORITY.issue("prometheus")))
    for pair in (None, Authority().issue("prometheus")):
        with pytest.raises(OSError, match=r"alert|reset|closed|EOF|Broken pipe"):
            scrape(address, scraper(tmp_path, pair))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_versions_of_tls(files: Files, tmp_path: Path, serve: Serve) -> None:
    """TLS before 1.2 is refused, and 1.2 is not."""
    address = serve(certificates(files))
    context = scraper(tmp_path)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert "tea_total 3.0" in scrape(address, context)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        scrape(address, context)


def test_new_certificate(files: Files, serve: Serve) -> None:
    """A new connection gets the new certificate."""
    address = serve(certificates(files))
    shown = [shown_certificate(address)]
    pair = AUTHORITY.issue(LOCAL)
    files.put(pair, AUTHORITY)
    shown.append(shown_certificate(address))

    assert shown[0] != shown[1] == pair.certificate.decode()


def test_connections_that_are_silent(
    files: Files, tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that never begin with TLS, or say nothing after, are cut off in time, and keep nobody out."""
    monkeypatch.setattr(endpoint, "REQUEST_SECONDS", 0.5)
    address = serve(certificates(files))
    silent = [connect(address) for _ in range(CONNECTION_LIMIT)]
    page = scrape(address, scraper(tmp_path))
    mute = scraper(tmp_path).wrap_socket(connect(address), server_hostname=LOCAL)
    ends = [end_of(connection) for connection in [*silent, mute]]

    assert "tea_total 3.0" in page
    assert {b""} == set(ends)
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(20)
            assert not thread.is_alive()


def variables(monkeypatch: pytest.MonkeyPatch, files: Files, *leave_out: str) -> None:
    """Set the variables of the files, but for these."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    for role, name in METRICS_TLS.items():
        if name not in leave_out:
            monkeypatch.setenv(name, str(files.path(role)))


def test_variables(monkeypatch: pytest.MonkeyPatch, files: Files, tmp_path: Path) -> None:
    """The variables give /metrics its certificate, and say which scrapers' are taken."""
    variables(monkeypatch, files)
    with Telemetry.start("tea", registry=CollectorRegistry(), metrics_port=0, logging=False) as telemetry:
        assert telemetry.metrics_address is not None
        page = scrape(telemetry.metrics_address, scraper(tmp_path, AUTHORITY.issue("prometheus")))
        with pytest.raises(OSError, match=r"alert|reset|closed|EOF|Broken pipe"):
            scrape(telemetry.metrics_address, scraper(tmp_path))

    assert "target_info" in page


@pytest.mark.parametrize(
    ("missing", "needed"),
    [("CERT", "CERT"), ("KEY", "KEY"), ("CERT KEY", "CERT")],
)
def test_variables_without_others(monkeypatch: pytest.MonkeyPatch, files: Files, missing: str, needed: str) -> None:
    """A certificate, a key or an authority without the others is an invalid setting."""
    variables(monkeypatch, files, *(f"OBSERVABILITY_METRICS_TLS_{name}" for name in missing.split()))
    with pytest.raises(SettingError, match=f"is not used without OBSERVABILITY_METRICS_TLS_{needed}$"):
        Telemetry.start("tea", registry=CollectorRegistry(), metrics_port=0, logging=False)


def test_variables_of_files_that_do_not_do(monkeypatch: pytest.MonkeyPatch, files: Files) -> None:
    """Files that are no pair are an invalid setting, which names its variable."""
    files.key.write_bytes(AUTHORITY.issue(LOCAL).key)
    variables(monkeypatch, files)
    with pytest.raises(SettingError) as caught:
        Telemetry.start("tea", registry=CollectorRegistry(), metrics_port=0, logging=False)

    text = f"{str(files.key)!r} is not the key of the certificate in {str(files.certificate)!r}"
    assert f"OBSERVABILITY_METRICS_TLS_KEY={text}" == str(caught.value)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain text", "TLS"])
@pytest.mark.parametrize("host", [LOCAL, EVERYWHERE])
def test_warning(monkeypatch: pytest.MonkeyPatch, files: Files, log: Log, host: str, *, encrypted: bool) -> None:
    """/metrics beyond loopback and without TLS is one warning, which names the address."""
    variables(monkeypatch, files, *(() if encrypted else METRICS_TLS.values()))
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_HOST", host)
    with Telemetry.start("tea", registry=CollectorRegistry(), metrics_port=0, logging=False) as telemetry:
        warned = [line["address"] for line in log.lines(level="warning") if "without TLS" in line["event"]]

    assert [telemetry.metrics_address] * (host == EVERYWHERE and not encrypted) == warned
