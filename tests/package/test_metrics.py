"""Metrics: their names, labels and buckets, what they count, and what a scrape of them looks like."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import prometheus_client
import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families as parse

from client.processes import ROOT
from observability import ClientInterceptor, ServerInterceptor, measure_calls
from protos import echo_pb2
from tests.support.recorder import Recorder
from tests.support.rpc import (
    ARITIES,
    ECHOES,
    NAMES,
    SERVICE,
    CatchAll,
    as_asked,
    connected,
    echo,
    method,
    requests,
    serving,
)

ECHO = "echo.v1.EchoService"
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# What grpc itself ends calls with and what most services refuse with: the codes that a declared method's latency has.
LIKELY = {
    "OK",
    "CANCELLED",
    "INVALID_ARGUMENT",
    "RESOURCE_EXHAUSTED",
    *("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
}
LABELS = {"grpc_type", "grpc_service", "grpc_method"}
CODED = LABELS | {"grpc_code"}
HOSTILE_NAMES = ["/a\nb/c", '/say "hi"/x', "/back\\slash/x", "/\x1b[31m/x", "/\u2028/x", "/{}/x", "/€/😀", "/#/x"]


def scrape(registry: CollectorRegistry) -> str:
    """Return what a scrape of the classic format shows."""
    return prometheus_client.generate_latest(registry).decode()


Labels = frozenset[tuple[str, str]]


def samples_of(registry: CollectorRegistry) -> dict[tuple[str, Labels], float]:
    """Return the value of each sample that there is, by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }


def openmetrics_samples(recorder: Recorder) -> list[Any]:
    """Return the samples of an OpenMetrics scrape, by the format's own parser."""
    text = openmetrics.generate_latest(recorder.registry).decode()  # type: ignore[no-untyped-call]  # it has no types
    families = openmetrics_parser.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # likewise
    return [sample for family in families for sample in family.samples]


def call_unary(address: str, *names: str, request: bytes = b"a") -> None:
    """Make one call of each name, whatever comes of it."""
    with grpc.insecure_channel(address) as channel:
        for name in names:
            method(channel, "unary", name).future(request, timeout=10).exception()


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    """Give the signals of one call of each arity, on both sides; nobody adds to them."""
    recorder = Recorder()
    with connected(
        ServerInterceptor(*recorder.observers), **ECHOES, client=[ClientInterceptor(*recorder.observers)]
    ) as channel:
        for arity in ARITIES:
            answer = method(channel, arity)(requests(arity))
            _ = answer if isinstance(answer, bytes) else list(answer)
        recorder.wait_for(8)
    return recorder


@pytest.mark.parametrize(
    ("name", "type_", "labels"),
    [
        ("grpc_server_started", "counter", LABELS),
        ("grpc_server_handled", "counter", CODED),
        ("grpc_server_handling_seconds", "histogram", CODED),
        ("grpc_server_msg_received", "counter", LABELS),
        ("grpc_server_msg_sent", "counter", LABELS),
        ("grpc_server_in_flight", "gauge", LABELS),
        ("grpc_server_queue_seconds", "histogram", LABELS),
        ("grpc_server_handlers_running", "gauge", LABELS),
        ("grpc_client_started", "counter", LABELS),
        ("grpc_client_handled", "counter", CODED),
        ("grpc_client_handling_seconds", "histogram", CODED),
        ("grpc_client_msg_received", "counter", LABELS),
        ("grpc_client_msg_sent", "counter", LABELS),
        ("grpc_client_in_flight", "gauge", LABELS),
    ],
)
def test_names_types_and_labels(recorder: Recorder, name: str, type_: str, labels: set[str]) -> None:
    """Each metric of the contract is there, with its type and labels."""
    [metric] = [metric for metric in recorder.registry.collect() if metric.name == name]

    assert type_ == metric.type
    assert {frozenset(labels)} == {frozenset(sample.labels) - {"le"} for sample in metric.samples}


def test_no_other_metrics(recorder: Recorder) -> None:
    """There are the contract's metrics and no more."""
    assert 14 == len(list(recorder.registry.collect()))


@pytest.mark.parametrize("name", ["grpc_server_handling_seconds", "grpc_server_queue_seconds"])
def test_buckets(recorder: Recorder, name: str) -> None:
    """The histograms' buckets are the contract's."""
    bounds = {
        sample.labels["le"]
        for metric in recorder.registry.collect()
        for sample in metric.samples
        if sample.name == f"{name}_bucket"
    }

    assert {*map(str, BUCKETS), "+Inf"} == bounds


def test_buckets_can_be_chosen() -> None:
    """measure_calls takes other buckets."""
    registry = CollectorRegistry()
    measure_calls(registry, services=[ECHO], buckets=(1, 2))

    assert {"1.0", "2.0", "+Inf"} == {
        sample.labels["le"]
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "grpc_server_handling_seconds_bucket"
    }


@pytest.mark.parametrize("render", [prometheus_client.generate_latest, openmetrics.generate_latest])
def test_no_created_series(recorder: Recorder, render: Any) -> None:
    """No format shows _created series."""
    assert b"_created" not in render(recorder.registry)


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("arity", ARITIES)
def test_one_call(recorder: Recorder, side: str, arity: str) -> None:
    """One call counts once in each metric of its side, and is not in flight any more."""
    labels = {"grpc_type": arity, "grpc_service": SERVICE, "grpc_method": NAMES[arity]}
    counts = [
        recorder.value(f"grpc_{side}_started_total", **labels),
        recorder.value(f"grpc_{side}_handled_total", **labels, grpc_code="OK"),
        recorder.value(f"grpc_{side}_handling_seconds_count", **labels, grpc_code="OK"),
        recorder.value(f"grpc_{side}_in_flight", **labels),
    ]

    assert [1, 1, 1, 0] == counts


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize(
    ("arity", "requests_", "responses"),
    [("unary", 1, 1), ("client_stream", 3, 1), ("server_stream", 1, 2), ("bidi_stream", 3, 3)],
)
def test_messages(recorder: Recorder, side: str, arity: str, requests_: int, responses: int) -> None:
    """Messages are counted each way; a unary message counts as one."""
    labels = {"grpc_type": arity, "grpc_service": SERVICE, "grpc_method": NAMES[arity]}
    sent = recorder.value(f"grpc_{side}_msg_sent_total", **labels)
    received = recorder.value(f"grpc_{side}_msg_received_total", **labels)

    expected = (responses, requests_) if side == "server" else (requests_, responses)
    assert expected == (sent, received)


def test_histogram_takes_the_calls_own_time(recorder: Recorder) -> None:
    """The histograms' sums are the seconds of the calls' own outcomes."""
    sums = [recorder.total(f"grpc_{side}_handling_seconds_sum") for side in ("server", "client")]

    assert sum(outcome.seconds for outcome in recorder.outcomes) == pytest.approx(sum(sums))
    assert min(sums) > 0


@contextlib.contextmanager
def observed_on(side: str, recorder: Recorder, **served: Any) -> Iterator[grpc.Channel]:
    """Serve this, and give a channel; the calls of one side are recorded."""
    server = [ServerInterceptor(*recorder.observers)] if side == "server" else []
    client = [ClientInterceptor(*recorder.observers)] if side == "client" else []
    with connected(*server, client=client, **served) as channel:
        yield channel


@pytest.mark.parametrize("side", ["server", "client"])
def test_every_code(side: str) -> None:
    """A call is counted under its code's name, in the counter and in the histogram alike."""
    recorder = Recorder()
    labels = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "Unary"}
    with observed_on(side, recorder, unary=as_asked) as channel:
        for count, code in enumerate(grpc.StatusCode, 1):
            method(channel, "unary").future(code.name.encode()).exception()
            recorder.wait_for(count)

            for name in ("handled_total", "handling_seconds_count"):
                assert 1 == recorder.value(f"grpc_{side}_{name}", **labels, grpc_code=code.name)
                assert count == recorder.total(f"grpc_{side}_{name}")


def declared(side: str) -> CollectorRegistry:
    """Return a registry whose EchoService is declared on one side."""
    registry = CollectorRegistry()
    option = {"server": "services", "client": "client_services"}[side]
    measure_calls(registry, **{option: [ECHO]})  # type: ignore[arg-type]  # one of two options
    return registry


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize(
    ("name", "arity"),
    [
        ("Echo", "unary"),
        ("EchoJoin", "client_stream"),
        ("EchoRepeat", "server_stream"),
        ("EchoChat", "bidi_stream"),
    ],
)
def test_declared_methods_exist_at_zero(side: str, name: str, arity: str) -> None:
    """The methods of a named service exist at zero: handled under every code, the histogram under the likely ones."""
    samples = samples_of(declared(side))

    def value(what: str, **code: str) -> float | None:
        labels = {"grpc_type": arity, "grpc_service": ECHO, "grpc_method": name, **code}
        return samples.get((f"grpc_{side}_{what}", frozenset(labels.items())))

    values = [value("handled_total", grpc_code=code.name) for code in grpc.StatusCode]
    values += [value("started_total"), value("msg_sent_total")]
    values += [value(f"handling_seconds_{what}", grpc_code=code) for code in LIKELY for what in ("count", "sum")]

    assert [0.0] * (17 + 2 + 2 * 10) == values


@pytest.mark.parametrize("side", ["server", "client"])
def test_first_failure_of_a_declared_method(side: str) -> None:
    """
    The first call that ends with a likely code adds no series, as rate() needs it; another code adds its histogram.
    """
    recorder = Recorder(measure={"services": [ECHO], "client_services": [ECHO]})
    with observed_on(side, recorder, handlers=[CatchAll(as_asked)]) as channel:
        for count, code in enumerate(grpc.StatusCode, 1):
            before = samples_of(recorder.registry)
            method(channel, "unary", f"/{ECHO}/Echo").future(code.name.encode()).exception()
            recorder.wait_for(count)
            born = samples_of(recorder.registry).keys() - before.keys()

            assert count == recorder.total(f"grpc_{side}_handling_seconds_count")
            assert [] == [name for name, _ in born if not name.startswith(f"grpc_{side}_handling_seconds_")]
            assert (0 if code.name in LIKELY else 17) == len(born)


@pytest.mark.parametrize(("side", "count"), [("server", 209), ("client", 191)])
def test_series_of_a_declared_method(side: str, count: int) -> None:
    """A declared method is as many series as the guide says, which each scrape pays for."""
    registry = declared(side)

    assert count == sum(("grpc_method", "Echo") in labels for _, labels in samples_of(registry))
    assert f" {count} " in (ROOT / "docs" / "observability.md").read_text()


def test_unknown_service() -> None:
    """A service that no imported module defines is a ValueError that names it."""
    with pytest.raises(ValueError, match=r"service 'shop\.v1\.Tea' is not known: import its _pb2 module first"):
        measure_calls(CollectorRegistry(), services=["shop.v1.Tea"])


def test_twice_on_one_registry() -> None:
    """A second measure_calls on a registry shares its metrics, and declares its own services."""
    registry = CollectorRegistry()
    measure_calls(registry, services=["echo.v1.HealthService", ECHO])
    recorder = Recorder(registry=registry, measure={"services": [ECHO]})
    with serving(ServerInterceptor(*recorder.observers), unary=echo) as address:
        call_unary(address, f"/{SERVICE}/Unary")
        recorder.wait_for()

    assert 1 == recorder.total("grpc_server_started_total")
    assert 0 == recorder.value("grpc_server_started_total", grpc_type="unary", grpc_service=ECHO, grpc_method="Echo")
    assert echo_pb2.DESCRIPTOR.services_by_name["EchoService"].full_name == ECHO


def test_unknown_methods_share_one_series() -> None:
    """500 unknown method names add one series, and grow no cache."""
    recorder = Recorder(log={"only": 60_000.0}, sampler=ALWAYS_OFF)
    interceptor = ServerInterceptor(*recorder.observers)
    with serving(interceptor, unary=echo) as address:
        call_unary(address, *(f"/nobody.v1.Knows/Method{number}" for number in range(10)))
        recorder.wait_for(10)
        size = len(scrape(recorder.registry))
        flood(address, "/nobody.v1.Knows/Other", 490)
        recorder.wait_for(500)

    assert {("unary", "unknown", "unknown")} == series(recorder)
    assert 500 == recorder.total("grpc_server_handled_total")
    assert abs(len(scrape(recorder.registry)) - size) < 500
    assert {} == interceptor._methods


def test_catch_all_adds_a_thousand_series() -> None:
    """1,500 names through a catch-all handler add 1,000 series and then one for the rest, and grow no cache more."""
    recorder = Recorder(log={"only": 60_000.0}, sampler=ALWAYS_OFF)
    interceptor = ServerInterceptor(*recorder.observers)
    with serving(interceptor, handlers=[CatchAll(echo)]) as address:
        flood(address, "/made.v1.Up/Method", 1_100)
        recorder.wait_for(1_100)
        size = len(scrape(recorder.registry))
        flood(address, "/made.v1.Up/Other", 400)
        recorder.wait_for(1_500)

    assert 1001 == len(series(recorder))
    assert ("unary", "unknown", "unknown") in series(recorder)
    assert 1_500 == recorder.total("grpc_server_handled_total")
    assert abs(len(scrape(recorder.registry)) - size) < 1000
    assert 1000 == len(interceptor._methods)
    assert 2 >= max(len(known.extensions) for known in interceptor._methods.values())


def test_a_declared_method_has_its_own_series_after_any_flood() -> None:
    """Declared methods count under their own names, however many others came before."""
    recorder = Recorder(measure={"services": [ECHO]}, log={"only": 60_000.0}, sampler=ALWAYS_OFF)
    with serving(ServerInterceptor(*recorder.observers), handlers=[CatchAll(echo)]) as address:
        flood(address, "/made.v1.Up/Method", 1_100)
        call_unary(address, f"/{ECHO}/Echo")
        recorder.wait_for(1_101)

    labels = {"grpc_type": "unary", "grpc_service": ECHO, "grpc_method": "Echo"}
    assert 1 == recorder.value("grpc_server_started_total", **labels)


def test_a_clients_names_are_bounded_too() -> None:
    """Names that a client makes up add 1,000 series and then one for the rest, and grow no cache more."""
    recorder = Recorder(log={"only": 60_000.0}, sampler=ALWAYS_OFF)
    interceptor = ClientInterceptor(*recorder.observers)
    with connected(client=[interceptor], unary=echo) as channel:
        for number in range(1_100):
            method(channel, "unary", f"/made.v1.Up/Method{number}").future(b"", timeout=60).exception()
        recorder.wait_for(1_100)

    assert 1001 == len(series(recorder, "client"))
    assert 1000 == len(interceptor._methods)
    assert 2 >= max(len(known.extensions) for known in interceptor._methods.values())


def flood(address: str, prefix: str, count: int) -> None:
    """Call this many methods, all under different names, from a few threads."""
    with grpc.insecure_channel(address) as channel:

        def part(start: int) -> None:
            for number in range(start, count, 2):
                method(channel, "unary", f"{prefix}{number}").future(b"", timeout=60).exception()

        threads = [threading.Thread(target=part, args=(start,)) for start in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def series(recorder: Recorder, side: str = "server") -> set[tuple[str, str, str]]:
    """Return the label sets of a side's started calls."""
    return {
        (sample.labels["grpc_type"], sample.labels["grpc_service"], sample.labels["grpc_method"])
        for metric in recorder.registry.restricted_registry([f"grpc_{side}_started_total"]).collect()
        for sample in metric.samples
    }


@pytest.mark.parametrize("known", [False, True])
def test_hostile_names_do_not_break_a_scrape(known: bool) -> None:  # noqa: FBT001 - a parameter
    """Method names full of control characters, quotes and half characters leave both formats parseable."""
    recorder = Recorder()
    handlers = [CatchAll(echo)] if known else []
    with serving(ServerInterceptor(*recorder.observers), handlers=handlers) as address:
        call_unary(address, *HOSTILE_NAMES)
        recorder.wait_for(len(HOSTILE_NAMES))

    names = {
        f"/{sample.labels['grpc_service']}/{sample.labels['grpc_method']}"
        for family in parse(scrape(recorder.registry))
        for sample in family.samples
        if sample.name == "grpc_server_started_total"
    }
    assert names == (set(HOSTILE_NAMES) if known else {"/unknown/unknown"})
    assert openmetrics_samples(recorder)


def test_half_a_character_in_a_name_does_not_break_a_scrape() -> None:
    """A lone surrogate in a method's name, which Python lets a client have, is replaced in its labels."""
    recorder = Recorder()
    with connected(unary=echo, client=[ClientInterceptor(*recorder.observers)]) as channel:
        with pytest.raises(UnicodeEncodeError):
            method(channel, "unary", "/half\ud800/x")(b"a")
        recorder.wait_for()

    assert 'grpc_service="half?"' in scrape(recorder.registry)


@pytest.mark.parametrize("sampled", [True, False])
def test_exemplars(sampled: bool) -> None:  # noqa: FBT001 - a parameter
    """Under OpenMetrics a bucket carries the ids of a sampled call, and of no other."""
    recorder = Recorder(sampler=ALWAYS_ON if sampled else ALWAYS_OFF)
    with serving(ServerInterceptor(*recorder.observers), unary=echo) as address:
        call_unary(address, f"/{SERVICE}/Unary")
        recorder.wait_for()
    exemplars = [sample.exemplar.labels for sample in openmetrics_samples(recorder) if sample.exemplar]

    ids = {"trace_id": recorder.calls[0].trace_id, "span_id": recorder.calls[0].span_id}
    assert ([ids] if sampled else []) == exemplars


def test_one_metric_alone() -> None:
    """A scrape that asks for some metrics only, as `?name[]=` does, sees of them what any other sees."""
    recorder = Recorder()
    with serving(ServerInterceptor(*recorder.observers), unary=echo) as address:
        call_unary(address, f"/{SERVICE}/Unary")
        recorder.wait_for()

    for name, value in (("started_total", 1), ("in_flight", 0), ("handlers_running", 0)):
        alone = recorder.registry.restricted_registry([f"grpc_server_{name}"])
        assert [value] == [sample.value for metric in alone.collect() for sample in metric.samples]


def test_in_flight_and_running_while_a_call_goes_on() -> None:
    """While its handler runs, a call is in flight and its handler running."""
    recorder = Recorder()
    entered, leave = threading.Event(), threading.Event()

    def wait(request: bytes, _context: grpc.ServicerContext) -> bytes:
        entered.set()
        leave.wait(10)
        return request

    with serving(ServerInterceptor(*recorder.observers), unary=wait) as address:
        with grpc.insecure_channel(address) as channel:
            future = method(channel, "unary").future(b"a")
            entered.wait(10)
            during = recorder.total("grpc_server_in_flight"), recorder.total("grpc_server_handlers_running")
            leave.set()
            future.result(10)
        recorder.wait_for()

    assert (1, 1) == during
    assert (0, 0) == (recorder.total("grpc_server_in_flight"), recorder.total("grpc_server_handlers_running"))


def test_handler_that_outlives_its_call() -> None:
    """A handler whose caller has left is still running, though its call is in flight no more."""
    recorder = Recorder()
    entered, leave = threading.Event(), threading.Event()

    def wait(request: bytes, _context: grpc.ServicerContext) -> bytes:
        entered.set()
        leave.wait(10)
        return request

    with serving(ServerInterceptor(*recorder.observers), unary=wait) as address:
        with grpc.insecure_channel(address) as channel:
            future = method(channel, "unary").future(b"a")
            entered.wait(10)
            future.cancel()
            recorder.wait_for()
        during = recorder.total("grpc_server_in_flight"), recorder.total("grpc_server_handlers_running")
        leave.set()

    assert (0, 1) == during
    assert 0 == recorder.total("grpc_server_handlers_running")


def test_queue_seconds_is_the_wait_for_a_thread() -> None:
    """queue_seconds is how long a call waited for a pool thread, which is part of its latency too."""
    recorder = Recorder()
    entered, leave = threading.Semaphore(0), threading.Event()

    def wait(request: bytes, _context: grpc.ServicerContext) -> bytes:
        entered.release()
        leave.wait(10)
        return request

    with serving(ServerInterceptor(*recorder.observers), workers=1, unary=wait) as address:
        with grpc.insecure_channel(address) as channel:
            futures = [method(channel, "unary").future(b"a") for _ in range(2)]
            entered.acquire(timeout=10)
            while len(recorder.calls) < 2:
                threading.Event().wait(0.001)
            threading.Event().wait(0.06)  # so long does the second call wait at least
            leave.set()
            for future in futures:
                future.result(10)
        recorder.wait_for(2)

    assert 2 == recorder.total("grpc_server_queue_seconds_count")
    assert (
        0.05
        < recorder.total("grpc_server_queue_seconds_sum")
        < max(outcome.seconds for outcome in recorder.outcomes) * 2
    )
