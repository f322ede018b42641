"""Who decides whether a call is traced: its caller, or on an edge the share alone."""

import grpc
import pytest

from protos.echo_pb2 import EchoRequest
from protos.echo_pb2_grpc import EchoServiceStub
from tests.support.process import PlainService as Service
from tests.support.receiver import Receiver

TRACED, UNTRACED = "a" * 16 + "0" * 15 + "1", "a" * 16 + "f" * 16
"""Ids of traces that are within the share, and that are not: it goes by their lower half."""


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ("parentbased_traceidratio", {(TRACED, "01"), (UNTRACED, "01")}),
        ("traceidratio", {(TRACED, "00"), (TRACED, "01")}),
    ],
    ids=["caller", "edge"],
)
def test_who_decides(sampler: str, expected: set[tuple[str, str]]) -> None:
    """With traceidratio the share decides whatever callers say, and with parentbased_traceidratio callers do."""
    last = "b" * 16 + "0" * 15 + "1"
    parents = {(TRACED, "00"): 1, (TRACED, "01"): 2, (UNTRACED, "00"): 3, (UNTRACED, "01"): 4, (last, "01"): 5}
    with (
        Receiver() as receiver,
        Service(
            "service-a",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
            OTEL_BSP_SCHEDULE_DELAY="50",
            OTEL_TRACES_SAMPLER=sampler,
            OTEL_TRACES_SAMPLER_ARG="0.5",
        ) as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        for (trace_id, flags), parent in parents.items():
            metadata = (("traceparent", f"00-{trace_id}-{parent:016x}-{flags}"),)
            EchoServiceStub(channel).Echo(EchoRequest(msg="hello"), timeout=5, metadata=metadata)
        receiver.wait_for(1, trace_id=last)  # spans are sent in the order of their calls
        seen = {int(span.parent_id, 16) for span in receiver.spans()}

    assert {parents[each] for each in expected} | {5} == seen
