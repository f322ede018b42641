"""Reporting in batches: an outcome is reported soon after the call's end, once, in order, and before a scrape."""

import contextvars
import random
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from opentelemetry.trace import SpanContext, TraceFlags
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics import exposition as openmetrics

from observability import Call, Outcome, ServerInterceptor, measure_calls
from observability.calls import batch_reporter
from observability.calls.batch_reporter import CALL_LIMIT, BatchReporter
from observability.calls.method import method_at
from observability.calls.observation import Observation
from observability.calls.observers import Observers
from observability.metrics.collectors import APPLY_AFTER
from observability.metrics.observer import add_pre_scrape_hook
from tests.support.rpc import NAMES, SERVICE, connected, echo, method

LABELS = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": NAMES["unary"]}


class Kept:
    """An observer that keeps the outcomes that are reported to it, each when `free` is set."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.threads: set[str] = set()
        self.reported = threading.Event()
        self.free = threading.Event()
        self.free.set()

    def __call__(self, _call: Call) -> Callable[[Outcome], None]:
        """Observe one call."""

        def finish(outcome: Outcome) -> None:
            self.free.wait(10)
            self.threads.add(threading.current_thread().name)
            self.outcomes.append(outcome)
            self.reported.set()

        return finish


def fail(_request: bytes, context: grpc.ServicerContext) -> bytes:
    """Fail at once."""
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")


def test_reported_in_the_reporters_thread() -> None:
    """A call that has succeeded is reported by the reporter's thread, within 100 ms."""
    kept = Kept()
    with connected(ServerInterceptor(BatchReporter(kept)), unary=echo) as channel:
        method(channel, "unary")(b"a", timeout=10)
        assert kept.reported.wait(5)

    assert {"observability-reporter"} == kept.threads
    assert ["OK"] == [outcome.code.name for outcome in kept.outcomes]
    assert batch_reporter.DELAY_SECONDS < 0.1


def test_reported_at_once() -> None:
    """An observer whose order others depend on is reported to where the call ends, before and after all others are."""
    batched, at_once = Kept(), Kept()
    batched.free.clear()
    reporter = BatchReporter(batched, at_once=[at_once])
    with connected(ServerInterceptor(reporter), unary=echo) as channel:
        method(channel, "unary")(b"")
        assert at_once.reported.wait(5)
        assert [] == batched.outcomes
        batched.free.set()
        reporter.close(5)
        at_once.reported.clear()
        method(channel, "unary")(b"")
        assert at_once.reported.wait(5)

    assert batched.outcomes == at_once.outcomes
    assert [] == [name for name in at_once.threads if name.startswith("observability")]


def test_beside_another_observer() -> None:
    """A batch reporter may stand beside an observer that is called at once: both see the call, once."""
    later, at_once, registry = Kept(), Kept(), CollectorRegistry()
    reporter = BatchReporter(measure_calls(registry), later)
    with connected(ServerInterceptor(reporter, at_once), unary=echo) as channel:
        method(channel, "unary")(b"a", timeout=10)
        assert at_once.reported.wait(5)
        assert reporter.flush(5)

    assert (1, 1) == (len(later.outcomes), len(at_once.outcomes))
    assert 0 == registry.get_sample_value("grpc_server_handlers_running", LABELS)


def test_failure_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that failed waits for no other, and those before it are reported with it."""
    monkeypatch.setattr(batch_reporter, "DELAY_SECONDS", 60)
    kept = Kept()
    with connected(ServerInterceptor(BatchReporter(kept)), unary=echo, server_stream=fail) as channel:
        method(channel, "unary")(b"a", timeout=10)
        with pytest.raises(grpc.RpcError):
            list(method(channel, "server_stream")(b"a", timeout=10))
        assert kept.reported.wait(5)

    assert ["OK", "NOT_FOUND"] == [outcome.code.name for outcome in kept.outcomes]


def test_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush reports what has ended; where an observer hangs, it gives up in time and returns False."""
    monkeypatch.setattr(batch_reporter, "DELAY_SECONDS", 60)
    kept = Kept()
    reporter = BatchReporter(kept)
    ended(reporter, 3)
    assert reporter.flush(5)
    assert 3 == len(kept.outcomes)

    kept.free.clear()
    ended(reporter, 1)
    start = time.monotonic()
    assert not reporter.flush(0.1)
    assert time.monotonic() - start < 2
    kept.free.set()


def test_nothing_is_lost_where_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the thread that ends a call reports it: every call is reported, once."""
    monkeypatch.setattr(batch_reporter, "DELAY_SECONDS", 60)
    kept = Kept()
    reporter = BatchReporter(kept)
    ended(reporter, CALL_LIMIT + 10)

    assert 10 == len(kept.outcomes)
    assert {threading.current_thread().name} == kept.threads
    assert reporter.flush(10)
    assert CALL_LIMIT + 10 == len(kept.outcomes)


def test_closing_ends_the_thread() -> None:
    """Closing reports what has ended, and ends the thread; a later call is reported by the thread that ends it."""
    kept = Kept()
    reporter = BatchReporter(kept)
    thread = reporter._ended._thread
    ended(reporter, 3)
    reporter.close(5)
    thread.join(5)
    assert (3, False) == (len(kept.outcomes), thread.is_alive())

    ended(reporter, 1)
    assert 4 == len(kept.outcomes)


def test_messages_are_those_of_the_end() -> None:
    """What a handler that outlives its call hands over afterwards is not counted."""
    kept = Kept()
    kept.free.clear()
    reporter = BatchReporter(kept)
    call = ended(reporter, 1)
    call.sent = 7
    kept.free.set()
    reporter.flush()

    assert [0] == [outcome.sent for outcome in kept.outcomes]


def test_scrape_sees_all_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape misses no call that has ended: what waits in the queue is reported before."""
    monkeypatch.setattr(batch_reporter, "DELAY_SECONDS", 60)
    registry, kept = CollectorRegistry(), Kept()
    reporter = BatchReporter(measure_calls(registry), kept)
    stop = add_pre_scrape_hook(registry, reporter.flush)
    with connected(ServerInterceptor(reporter), unary=echo) as channel:
        for _ in range(APPLY_AFTER + 1):
            method(channel, "unary")(b"a", timeout=10)

    # The first look of all is the one that counts.
    [started] = [metric for metric in registry.collect() if metric.name == "grpc_server_started"]
    found = {
        name: registry.get_sample_value(f"grpc_server_{name}", LABELS) for name in ("in_flight", "handlers_running")
    }
    stop()

    assert [APPLY_AFTER + 1.0] == [sample.value for sample in started.samples]
    assert {"in_flight": 0.0, "handlers_running": 0.0} == found
    assert APPLY_AFTER + 1 == len(kept.outcomes)


def test_metrics_are_those_of_calls_reported_one_by_one() -> None:
    """Counts, sums, buckets and exemplars do not depend on how many calls are reported together."""
    together, one_by_one = CollectorRegistry(), CollectorRegistry()
    reporter = BatchReporter(measure_calls(together))
    for observers in (reporter, Observers(measure_calls(one_by_one))):
        # Each is the current call from its start on, which no other test shall find.
        contextvars.copy_context().run(end_variously, observers, random.Random(6))  # noqa: S311 - the same for both
    reporter.flush()

    assert exposed(one_by_one) == exposed(together)
    assert len(re.findall("# {span_id=", exposed(together))) > 10


def end_variously(observers: Observers, chance: random.Random) -> None:
    """End 300 calls of two methods: with several codes, fast and slow, sampled and not."""
    methods = [method_at(f"/test.v1.Service/{name}", "bidi_stream") for name in ("One", "Other")]
    for number in range(1, 301):
        call = Observation(chance.choice(methods), "server", [], observers, time.perf_counter(), time.time_ns())
        call.span_context = SpanContext(number, number, is_remote=False, trace_flags=TraceFlags(number % 2))
        call.queue_seconds = chance.choice([None, chance.random()])
        call.sent, call.received = chance.randrange(3), chance.randrange(3)
        call.end(chance.choice([*grpc.StatusCode]), seconds=chance.lognormvariate(-4, 2))


def exposed(registry: CollectorRegistry) -> str:
    """Return an OpenMetrics scrape; when an exemplar was seen is left out, and sums are rounded."""
    text = openmetrics.generate_latest(registry).decode()  # type: ignore[no-untyped-call]  # it has no types
    text = re.sub(r"(# {.*} \S+) \S+$", r"\1", text, flags=re.MULTILINE)
    return re.sub(r"(_sum{.*}) (\S+)", lambda match: f"{match[1]} {float(match[2]):.9f}", text)


def ended(reporter: BatchReporter, count: int) -> Any:
    """Start and end this many calls without a server; return the last."""
    called = method_at("/test.v1.Service/Unary", "unary")
    for _ in range(count):
        call = Observation(called, "client", [], reporter, time.perf_counter(), time.time_ns())
        call.end(grpc.StatusCode.OK)
    return call
