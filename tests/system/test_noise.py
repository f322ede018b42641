"""What strangers can make a service write: less than they can send."""

from collections import Counter
from typing import Any

import grpc
import pytest
from hyperframe.frame import GoAwayFrame, PingFrame

from client.lines import fields
from client.web import get
from tests.support.h2 import dial
from tests.support.process import PlainService as Service
from tests.support.rpc import method

MANY, AT_ONCE = 2_000, 50
GARBAGE = bytes(range(256))


@pytest.fixture(scope="module")
def flooded() -> tuple[list[dict[str, str]], str]:
    """Give the lines and the metrics of a Service A that was asked often for methods that it has not."""
    with Service("service-a", OTEL_TRACES_EXPORTER="none") as service:
        with grpc.insecure_channel(service.address) as channel:
            codes: Counter[grpc.StatusCode] = Counter()
            for start in range(0, MANY, AT_ONCE):
                names = [f"/no.Such/Method{number}" for number in range(start, start + AT_ONCE)]
                calls: list[Any] = [method(channel, "unary", name).future(b"") for name in names]
                codes.update(call.code() for call in calls)
        page = get(service.metrics_url)
        service.stop()
        lines = [fields(line) for line in service.stdout.wait_for_end()]
    assert Counter({grpc.StatusCode.UNIMPLEMENTED: MANY}) == codes
    return lines, page


def test_lines_of_a_flood(flooded: tuple[list[dict[str, str]], str]) -> None:
    """Of many calls of unknown methods few have a line; the rest are a number on lines of their kind."""
    lines, _ = flooded
    each = [line for line in lines if "endpoint" in line]
    others = [line for line in lines if "calls" in line]

    assert MANY == len(each) + sum(int(line["calls"]) for line in others)
    assert len(each) < MANY / 2
    assert ("service", "level", "event", "code", "calls") == tuple(others[0])
    assert {("A", "error", "UNIMPLEMENTED")} == {(line["service"], line["level"], line["code"]) for line in others}


def test_counts_of_a_flood(flooded: tuple[list[dict[str, str]], str]) -> None:
    """/metrics counts every call, and those that have no line each."""
    lines, page = flooded
    labels = 'grpc_code="UNIMPLEMENTED",grpc_method="unknown",grpc_service="unknown",grpc_type="unary"'
    numbers = sum(int(line["calls"]) for line in lines if "calls" in line)

    assert f"grpc_server_handled_total{{{labels}}} {MANY}.0" in page
    assert f"observability_log_lines_limited_total {numbers}.0" in page


@pytest.mark.parametrize(("variables", "shown"), [({}, False), ({"GRPC_VERBOSITY": "INFO"}, True)])
def test_lines_of_grpcs_core(variables: dict[str, str], shown: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """What a stranger sends is in no line of gRPC's core, unless somebody wants to know."""
    with Service("service-a", OTEL_TRACES_EXPORTER="none", **variables) as service:
        with dial(service.address) as wire:
            goaway = GoAwayFrame(0, last_stream_id=0, error_code=2, additional_data=GARBAGE)
            wire.send(goaway, PingFrame(0, b"all read"))
            wire.wait_for(lambda: wire.pongs == 1)
        service.stop()
        said = service.stderr.wait_for_end()

    assert shown == any("goaway" in line for line in said)
    assert shown or [] == said
