"""Who called, by the certificate that it has shown, is on a call's line and span; metrics have no such label."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from observability import AioServerInterceptor, ServerInterceptor
from observability.logs.render import render_json, render_keyvalue
from tests.support.recorder import Recorder
from tests.support.rpc import AIO_ECHOES, ARITIES, ECHOES, STREAMS, aio_serving, method, requests, serving
from tests.support.tls import Authority, Pair

AUTHORITY = Authority()
CALLER = AUTHORITY.issue("client.example", "10.0.0.1", common_name="another name")
NAMES = "client.example,10.0.0.1"
# The stacks with the behaviours that they serve: on asyncio, plain functions too.
SERVED = {"sync": ECHOES, "aio": AIO_ECHOES, "aio blocking": ECHOES}


def call(served: str, recorder: Recorder, channel: grpc.ChannelCredentials | None, **options: Any) -> None:
    """Make a call of each arity, with these credentials or in plain text."""
    if served == "sync":
        with serving(ServerInterceptor(*recorder.observers), **ECHOES, **options) as address:
            call_each(address, channel)
    else:
        asyncio.run(call_aio(SERVED[served], recorder, channel, **options))
    recorder.wait_for(len(ARITIES))


async def call_aio(behaviors: dict[str, Any], recorder: Recorder, *channel: Any, **options: Any) -> None:
    """Do it on an asyncio server."""
    async with aio_serving(AioServerInterceptor(*recorder.observers), **behaviors, **options) as address:
        await asyncio.to_thread(call_each, address, *channel)


def call_each(address: str, credentials: grpc.ChannelCredentials | None) -> None:
    """Make a call of each arity, and read it to its end."""
    with grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address) as channel:
        for arity in ARITIES:
            answer = method(channel, arity)(requests(arity), timeout=10)
            if arity in STREAMS:
                list(answer)


def identities(recorder: Recorder) -> list[Any]:
    """Return what each call, line and span says of its caller's identity."""
    spans = [(span.attributes or {}).get("peer_identity") for span in recorder.spans]
    lines = [line.get("peer_identity") for line in recorder.lines]
    return [*lines, *spans, *(each.peer_identity for each in recorder.calls)]


def mutual(pair: Pair) -> tuple[grpc.ChannelCredentials, dict[str, Any]]:
    """Return the credentials of a channel that shows this certificate, and the options of a server that wants one."""
    return AUTHORITY.client(pair), {"credentials": AUTHORITY.server(wants_certificate=True)}


@pytest.mark.parametrize("served", SERVED)
def test_names_in_the_certificate(served: str) -> None:
    """The alternative names of the caller's certificate are its identity, with commas between."""
    recorder = Recorder()
    channel, options = mutual(CALLER)
    call(served, recorder, channel, **options)

    assert [NAMES] * 3 * len(ARITIES) == identities(recorder)
    assert ["peer", "peer_identity"] == [key for key in recorder.lines[0] if key.startswith("peer")]
    assert not [
        sample for metric in recorder.registry.collect() for sample in metric.samples if NAMES in sample.labels.values()
    ]


@pytest.mark.parametrize("served", SERVED)
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain text", "TLS"])
def test_caller_without_a_certificate(served: str, *, encrypted: bool) -> None:
    """A call in plain text has no such pair, nor has one whose caller shows no certificate."""
    recorder = Recorder()
    if encrypted:
        call(served, recorder, AUTHORITY.client(), credentials=AUTHORITY.server())
    else:
        call(served, recorder, None)

    assert {None} == set(identities(recorder))
    assert not [line for line in recorder.lines if "peer_identity" in line]
    assert not [span for span in recorder.spans if "peer_identity" in (span.attributes or {})]


def test_hostile_common_name() -> None:
    """Without alternative names it is the common name, which forges no line and leaves no byte of its own in it."""
    name = 'a" level=error\nservice=B endpoint=/echo \u202e\x1b[31mé'
    recorder = Recorder()
    channel, options = mutual(AUTHORITY.issue(common_name=name))
    call("sync", recorder, channel, **options)

    assert {name} == set(identities(recorder))
    for render in (render_keyvalue, render_json):
        text = render(dict(recorder.lines[0]))
        assert text.isprintable()
        assert r"\nservice=B endpoint=/echo \u202e\u001b[31m" in text


def test_very_many_names() -> None:
    """Of very many names there are the first 1,024 bytes."""
    names = [f"name-{number}.client.example" for number in range(100)]
    recorder = Recorder()
    channel, options = mutual(AUTHORITY.issue(*names))
    call("sync", recorder, channel, **options)

    assert {",".join(names)[:1024]} == set(identities(recorder))


@pytest.mark.parametrize("engine", ["native", "contrib"])
def test_both_engines(engine: str) -> None:
    """The line and the span have it with either engine for spans."""
    recorder = Recorder()
    telemetry = recorder.telemetry(engine)
    options = mutual(CALLER)[1]
    with (
        serving(*telemetry.server_interceptors(), unary=ECHOES["unary"], **options) as address,
        grpc.secure_channel(address, AUTHORITY.client(CALLER)) as channel,
    ):
        method(channel, "unary")(b"a", timeout=10)
    telemetry.close()

    assert [NAMES] == [line["peer_identity"] for line in recorder.lines]
    assert [NAMES] == [(span.attributes or {}).get("peer_identity") for span in recorder.spans]
