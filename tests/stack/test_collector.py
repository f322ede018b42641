"""What the Collector keeps of many traces, with the real program and the configuration that compose mounts."""

import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import grpc
import pytest

from client.lines import fields
from client.processes import Service
from client.spans import Span
from protos.echo_pb2 import CallEchoRequest
from protos.echo_pb2_grpc import CallEchoServiceStub
from tests.stack.collector import DECIDED, GATEWAY, NAME, SAMPLER, Collectors
from tests.stack.programs import run
from tests.stack.stack import call_echo
from tests.stack.traces import SIDES, Trace, made_up, send
from tests.stack.waiting import eventually
from tests.support.freezing import freeze

# What the samplers' configuration says: as long as this is slow, in milliseconds, and so many of the rest are kept.
LIMIT, SHARE = 250, 0.05
EARLY, PLAIN, SLOW, FAILED = 60, 3_000, 100, 100


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent through the gateway, and what came out behind the samplers once all was decided."""

    early: list[Trace]
    """While one of the samplers was away."""
    traces: list[Trace]
    unreachable: str
    """The trace of a real call through a B that cannot reach A."""
    slow: str
    """The trace of a real call to B that A, which stood still meanwhile, answers late."""
    arrived: Mapping[str, int]
    """How many spans came out, by trace."""
    decided: Mapping[bool, int]
    """How many traces the samplers say to have kept and dropped."""


@pytest.fixture(scope="module")
def sent(collectors: Collectors) -> Sent:
    """Send traces of every kind, and real calls; wait until the samplers have decided on all of them."""
    early, traces = made_up(1, failed=EARLY), made_up(2, plain=PLAIN, slow=SLOW, failed=FAILED)
    otlp = collectors.gateway.otlp
    collectors.samplers[0].kill()
    codes = send(early, otlp)
    collectors.samplers[0].start()

    with (
        Service("service-a", OTEL_EXPORTER_OTLP_ENDPOINT=otlp) as a,
        Service("service-b", SERVICE_A_ADDRESS=a.address, OTEL_EXPORTER_OTLP_ENDPOINT=otlp) as b,
        Service("service-b", SERVICE_A_ADDRESS="127.0.0.1:1", OTEL_EXPORTER_OTLP_ENDPOINT=otlp) as lonely,
    ):
        real = [call_echo("hello", service_b=service.address, otlp=otlp)[1] for service in (lonely, b)]
        slow = slowed(a, b)
        codes += send(traces, otlp)

    every = len(early) + len(traces) + len([*real, slow])
    decided = eventually(
        lambda: {kept: collectors.decided(kept=kept) for kept in (True, False)},
        lambda found: sum(found.values()) >= every,
    )
    spans = collectors.receiver.wait_for(lambda spans: whole(spans, decided[True]), timeout=20)
    assert {grpc.StatusCode.OK} == set(codes)
    return Sent(early, traces, real[0], slow, Counter(span.trace_id for span in spans), decided)


def slowed(a: Service, b: Service) -> str:
    """Call B while A stands still for longer than a call may take, and return the trace's id."""
    with grpc.insecure_channel(b.address) as channel:
        freeze(a)
        call = CallEchoServiceStub(channel).CallEcho.future(CallEchoRequest(msg="slow"), timeout=10)
        time.sleep(0.4)
        a.signal(signal.SIGCONT)
        call.exception()  # where the machine stands still as well, B may have given up
    return fields(b.stdout.wait_for("endpoint=/call-echo", count=2)[-1])["trace_id"]


def whole(spans: list[Span], traces: int) -> bool:
    """Return whether there are spans of so many traces, and no trace has fewer than a call without a client's has."""
    counts = Counter(span.trace_id for span in spans)
    return len(counts) >= traces and min(counts.values()) >= len(SIDES) - 1


@pytest.mark.parametrize("configuration", [GATEWAY, SAMPLER], ids=lambda path: path.stem)
def test_configuration(configuration: Path) -> None:
    """The Collector accepts its configuration with no variable set, as in its container."""
    run(NAME, "validate", f"--config={configuration}")


def test_failed_and_slow_traces_are_kept(sent: Sent) -> None:
    """Every trace with a failed span, and every one of 250 ms or longer, comes out."""
    wanted = {trace.id for trace in sent.traces if trace.failed_at is not None or trace.milliseconds >= LIMIT}

    assert FAILED + SLOW == len(wanted)
    assert set() == wanted - sent.arrived.keys()


def test_share_of_the_rest(sent: Sent) -> None:
    """Of the other traces a twentieth comes out, within four standard deviations of the binomial distribution."""
    rest = {trace.id for trace in sent.traces if trace.failed_at is None and trace.milliseconds < LIMIT}
    kept = len(rest & sent.arrived.keys())

    assert PLAIN == len(rest)
    assert abs(kept - SHARE * PLAIN) <= 4 * sqrt(PLAIN * SHARE * (1 - SHARE))


def test_traces_are_whole(sent: Sent) -> None:
    """Every trace that comes out has all its spans, though each service has sent its own by itself, and once."""
    counts = {sent.arrived[trace.id] for trace in sent.traces if trace.id in sent.arrived}

    assert {len(SIDES)} == counts


def test_pair(sent: Sent, collectors: Collectors) -> None:
    """Each of the two samplers has decided on about half of the traces."""
    shares = [one.count(DECIDED) / sum(sent.decided.values()) for one in collectors.samplers]

    # How the ring is divided depends on the addresses; by some 5 % as a rule.
    assert all(0.25 < share < 0.75 for share in shares), shares


def test_what_is_dropped_is_counted(sent: Sent) -> None:
    """The samplers count as many traces kept as come out, and all others as dropped."""
    every = len(sent.early) + len(sent.traces) + 3

    assert {True: len(sent.arrived), False: every - len(sent.arrived)} == sent.decided


def test_sampler_that_was_away(sent: Sent) -> None:
    """What is sent while a sampler is away waits in the gateway, and nothing of it is lost."""
    assert dict.fromkeys((trace.id for trace in sent.early), len(SIDES)) == {
        trace.id: sent.arrived.get(trace.id, 0) for trace in sent.early
    }


def test_failed_call(sent: Sent) -> None:
    """A real call that fails comes out whole: services send to the gateway by OTEL_EXPORTER_OTLP_ENDPOINT alone."""
    assert len(SIDES) - 1 == sent.arrived.get(sent.unreachable)


def test_slow_call(sent: Sent) -> None:
    """A real call that succeeds late comes out whole, of a caller who traces nothing."""
    assert len(SIDES) - 1 == sent.arrived.get(sent.slow)


def test_full_gateway(collectors: Collectors) -> None:
    """A gateway whose queue is full refuses spans, counts them, and says so to who sends them."""
    assert grpc.StatusCode.UNAVAILABLE in send(made_up(3, failed=1_000), collectors.full.otlp)
    assert 0 < collectors.full.count("otelcol_receiver_refused_spans")


LOSSES = [
    "otelcol_exporter_enqueue_failed_spans",
    "otelcol_processor_tail_sampling_sampling_trace_dropped_too_early",
    "otelcol_processor_tail_sampling_traces_dropped_too_large",
]


@pytest.mark.parametrize("metric", LOSSES)
def test_forgetful_sampler(collectors: Collectors, metric: str) -> None:
    """A sampler counts what it drops for want of memory, for its size, or since nobody takes what it keeps."""
    assert eventually(lambda: collectors.forgetful.count(metric))
