"""Instrumentation never changes a call: whatever fails in it, results stay, and the failure is reported once."""

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from prometheus_client import CollectorRegistry

from observability import (
    AioServerInterceptor,
    Call,
    ClientInterceptor,
    Observer,
    Outcome,
    ServerInterceptor,
    aio_client_interceptors,
    log_calls,
    measure_calls,
    trace_calls,
)
from observability.calls.errors import ObserverErrors, observer_errors
from observability.calls.observer import LifecycleObserver
from observability.metrics import collectors
from tests.support.handlers import KINDS, Kind
from tests.support.recorder import Recorder
from tests.support.rpc import ARITIES, ECHOES, RESPONSES, connected, method, talk

pytestmark = pytest.mark.expects_errors("^observability: observer .* failed")
STACKS = pytest.mark.parametrize("stack", ["sync", "aio"])
SIDES = pytest.mark.parametrize("side", ["server", "client"])
_numbers = itertools.count()


class Trouble(Exception):  # noqa: N818 - not an error of ours
    """What a broken part raises."""


def fail(*_args: Any, **_kwargs: Any) -> Any:
    """Raise."""
    raise Trouble


def interceptors(stack: str, side: str, observers: list[Observer]) -> dict[str, list[Any]]:
    """Return the interceptors of one side, as `talk` takes them."""
    if side == "server":
        interceptor: Any = ServerInterceptor if stack == "sync" else AioServerInterceptor
        return {"server": [interceptor(*observers)]}
    return {"client": [ClientInterceptor(*observers)] if stack == "sync" else aio_client_interceptors(*observers)}


def raises_at_start() -> Observer:
    """Return an observer that raises when a call starts."""

    def observer(_call: Call) -> Any:
        raise Trouble

    return observer


def raises_at_finish() -> Observer:
    """Return an observer that raises when a call ends."""

    def observer(_call: Call) -> Any:
        return fail

    return observer


def cancel(*_args: Any) -> Any:
    """Raise what ends a task."""
    raise asyncio.CancelledError


def cancels_at_start() -> Observer:
    """Return an observer that raises CancelledError when a call starts."""
    return cancel


def cancels_at_finish() -> Observer:
    """Return an observer that raises CancelledError when a call ends."""

    def observer(_call: Call) -> Any:
        return cancel

    return observer


def returns_nonsense() -> Observer:
    """Return an observer that returns what cannot be called."""

    def observer(_call: Call) -> Any:
        return 42

    return observer


def returns_nothing() -> Observer:
    """Return an observer that forgets to return a function."""

    def observer(_call: Call) -> Any:
        return None

    return observer


def changes_the_call() -> Observer:
    """Return an observer that leaves nothing of a call as it was, and then raises."""

    def observer(call: Call) -> Any:
        call.service = call.method = call.peer = call.span_context = None  # type: ignore[assignment]  # it should not
        raise Trouble

    return observer


def logs_in_vain() -> Observer:
    """Return log_calls with a logger that raises."""
    return log_calls(structlog.wrap_logger(None, processors=[fail]))


def measures_in_vain() -> Observer:
    """Return measure_calls with a registry whose metrics raise."""
    registry = CollectorRegistry()
    observer = measure_calls(registry)
    for side in collectors._registries[registry].values():
        for name in ("started", "handled", "handling", "received", "sent", "in_flight"):
            setattr(side, name, type("Broken", (), {"labels": fail})())
    return observer


class Raising(LifecycleObserver):
    """Raises at each message, when a handler starts and ends, when something is annotated, and at the call's end."""

    on_message_sent = on_message_received = staticmethod(fail)
    on_handler_start = on_handler_end = on_annotate = on_end = staticmethod(fail)


def watches_in_vain() -> Observer:
    """Return an observer that raises at every moment but the start."""
    return Raising()


class BrokenSampler(Sampler):
    """Raises where it should decide."""

    should_sample = fail
    get_description = fail


class BrokenPropagator(TextMapPropagator):
    """Raises at reading and at writing."""

    extract = inject = fail
    fields: set[str] = set()  # noqa: RUF012 - as its base has it


class BrokenExporter(SpanExporter):
    """Raises where it should send."""

    export = fail


def samples_in_vain() -> Observer:
    """Return trace_calls with a sampler that raises."""
    return trace_calls(TracerProvider(sampler=BrokenSampler(), shutdown_on_exit=False))


def carries_in_vain() -> Observer:
    """Return trace_calls with a propagator that raises."""
    return trace_calls(TracerProvider(shutdown_on_exit=False), BrokenPropagator())


def filters_in_vain() -> Observer:
    """Return trace_calls with a filter that raises."""
    return trace_calls(TracerProvider(shutdown_on_exit=False), filter_=fail)


def exports_in_vain() -> Observer:
    """Return trace_calls with an exporter that raises."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(BrokenExporter()))
    return trace_calls(provider)


BROKEN = [
    raises_at_start,
    raises_at_finish,
    cancels_at_start,
    cancels_at_finish,
    returns_nonsense,
    returns_nothing,
    changes_the_call,
    logs_in_vain,
    measures_in_vain,
    watches_in_vain,
    samples_in_vain,
    carries_in_vain,
    filters_in_vain,
    exports_in_vain,
]


@STACKS
@SIDES
@pytest.mark.parametrize("arity", ARITIES)
@pytest.mark.parametrize("broken", BROKEN)
def test_results_stay(stack: str, side: str, arity: str, broken: Callable[[], Observer]) -> None:
    """A call has its responses, even through a broken observer."""
    assert RESPONSES[arity] == talk(stack, arity, **interceptors(stack, side, [broken()]))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_handler_runs_once(kind: Kind) -> None:
    """Behind broken observers a handler of any kind takes its steps as often as behind none."""
    bare: list[int] = []
    observed: list[int] = []
    kind.serve_once(lambda: bare.append(1), [])

    kind.serve_once(lambda: observed.append(1), [broken() for broken in BROKEN])

    assert bare == observed


@STACKS
@SIDES
@pytest.mark.parametrize("broken", [broken for broken in BROKEN if broken is not changes_the_call])
def test_other_observers_are_not_affected(stack: str, side: str, broken: Callable[[], Observer]) -> None:
    """The observers beside a broken one report the call once, as ever."""
    recorder, before = Recorder(extra=(broken(),)), observer_errors.count
    talk(stack, "bidi_stream", **interceptors(stack, side, recorder.observers))
    recorder.wait_for()

    assert broken is exports_in_vain or before < observer_errors.count  # OpenTelemetry catches that one
    assert ["OK"] == recorder.codes == [line["code"] for line in recorder.lines]
    assert 1 == len(recorder.spans)
    assert (1, 0) == (recorder.total(f"grpc_{side}_handled_total"), recorder.total(f"grpc_{side}_in_flight"))


@pytest.mark.parametrize("at", ["start", "finish"])
def test_observer_that_exits(at: str) -> None:
    """An observer that asks the process to end, in a thread of grpc's, ends no server."""

    def leave(*_args: Any) -> Any:
        raise SystemExit

    def observer(_call: Call) -> Any:
        return leave() if at == "start" else leave

    recorder = Recorder(extra=(observer,))
    with connected(ServerInterceptor(*recorder.observers), **ECHOES) as channel:
        answers = [method(channel, "unary")(b"a", timeout=10) for _ in range(2)]
        recorder.wait_for(2)

    assert ([b"a"] * 2, ["OK"] * 2) == (answers, recorder.codes)


@pytest.mark.parametrize("at", ["start", "finish"])
def test_interrupt_goes_on(at: str) -> None:
    """An interrupt that comes while an observer runs in the main thread is the process's, and goes on."""

    def interrupt(*_args: Any) -> Any:
        raise KeyboardInterrupt

    def observer(_call: Call) -> Any:
        return interrupt() if at == "start" else interrupt

    with pytest.raises(KeyboardInterrupt):
        talk("sync", "unary", client=[ClientInterceptor(observer)])


@STACKS
@SIDES
@pytest.mark.parametrize("at", ["start", "finish"])
def test_failure_is_reported_once_and_counted(caplog: pytest.LogCaptureFixture, stack: str, side: str, at: str) -> None:
    """An observer's first failure is reported with its stack trace, and its later ones are counted."""

    def observer(_call: Call) -> Any:
        return fail() if at == "start" else fail

    observer.__qualname__ = f"observer_{next(_numbers)}"
    recorder = Recorder(extra=(observer,))
    before = observer_errors.count
    for _ in range(3):
        talk(stack, "unary", **interceptors(stack, side, recorder.observers))
    recorder.wait_for(3)

    reports = [record for record in caplog.records if observer.__qualname__ in record.getMessage()]
    assert [(logging.ERROR, Trouble)] == [
        (record.levelno, record.exc_info and record.exc_info[0]) for record in reports
    ]
    assert before + 3 == observer_errors.count


def test_reports_are_bounded() -> None:
    """Of observers without number, each a new one, a bounded number is reported, and every failure counted."""
    own = ObserverErrors()
    for number in range(1100):
        try:
            fail()
        except Trouble:
            own.record(type(f"Observer{number}", (), {})())

    assert (1100, 1000) == (own.count, len(own._reported))


class Deaf(logging.Handler):
    """A logging handler that raises, as one with a full disk might."""

    def emit(self, _record: logging.LogRecord) -> None:
        """Raise."""
        raise Trouble

    handleError = fail  # noqa: N815 - logging's name


@STACKS
def test_report_that_fails(stack: str) -> None:
    """A logging handler that raises at the report of a failure changes no call either."""
    logger = logging.getLogger("observability")
    handler = Deaf()
    logger.addHandler(handler)
    try:

        def observer(_call: Call) -> Any:
            raise Trouble

        observer.__qualname__ = f"observer_{next(_numbers)}"
        responses = talk(stack, "unary", **interceptors(stack, "server", [observer]))
    finally:
        logger.removeHandler(handler)

    assert RESPONSES["unary"] == responses


@STACKS
@pytest.mark.parametrize("arity", ARITIES)
def test_metadata_may_be_changed_until_it_is_sent(stack: str, arity: str) -> None:
    """What an observer adds to a client's metadata is sent; the server's observers see it."""
    seen: list[str] = []

    def observer(call: Call) -> Callable[[Outcome], None]:
        if call.kind == "client":
            call.metadata.append(("added", "here"))
        else:
            seen.extend(value for key, value in call.metadata if key == "added")
        return lambda _outcome: None

    talk(stack, arity, **interceptors(stack, "server", [observer]), **interceptors(stack, "client", [observer]))

    assert ["here"] == seen
