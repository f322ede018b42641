"""The examples' observers: slow calls in a file, calls by tenant, and messages in the log without what is secret."""

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from grpc_tools import protoc  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry

from examples.payloads import LogPayloads, text_of
from examples.slow_calls import note_slow_calls
from examples.tenants import LONGEST, CountByTenant
from observability import (
    AioServerInterceptor,
    ClientInterceptor,
    LifecycleObserver,
    Observer,
    ServerInterceptor,
    aio_client_interceptors,
)
from protos.echo_pb2 import EchoRequest
from tests.support.recorder import Recorder
from tests.support.rpc import ARITIES, NAMES, SERVICE, aio_connected, as_asked, connected, method, talk

STACKS = pytest.mark.parametrize("stack", ["sync", "aio"])
SIDES = pytest.mark.parametrize("side", ["server", "client"])


def behind(stack: str, side: str, *observers: Observer) -> dict[str, list[Any]]:
    """Return the interceptors of one side, as `talk` takes them."""
    if side == "server":
        return {"server": [(ServerInterceptor if stack == "sync" else AioServerInterceptor)(*observers)]}
    return {"client": [ClientInterceptor(*observers)] if stack == "sync" else aio_client_interceptors(*observers)}


@STACKS
@SIDES
def test_slow_calls(tmp_path: Path, stack: str, side: str) -> None:
    """A call that takes too long is a line of its own; one that does not, and a stream, is none."""
    recorder, path = Recorder(), tmp_path / "slow"
    observers: list[Observer] = [
        note_slow_calls(path, 0.0),
        note_slow_calls(tmp_path / "never", 3600.0),
        *recorder.observers,
    ]
    for arity in ARITIES:
        talk(stack, arity, **behind(stack, side, *observers))
    recorder.wait_for(len(ARITIES))
    [line] = map(json.loads, path.read_text("utf-8").splitlines())

    assert {"kind": side, "method": f"{SERVICE}/Unary", "code": "OK"}.items() <= line.items()
    assert 0 < line["seconds"] < 3600
    assert not (tmp_path / "never").exists()


def ask(channel: grpc.Channel, request: bytes, *metadata: tuple[str, str | bytes]) -> None:
    """Make a call that ends as its request says."""
    method(channel, "unary").future(request, metadata=metadata, timeout=10).exception()


def test_tenants() -> None:
    """Tenants have a label each from their first call that succeeds on, up to the limit; others share one."""
    recorder, registry = Recorder(), CollectorRegistry()
    observers: list[Observer] = [CountByTenant(registry, key="tenant", limit=2), *recorder.observers]
    asked: list[tuple[Any, ...]] = [
        (b"NOT_FOUND", ("tenant", "made-up")),
        (b"OK", ("tenant", "acme")),
        (b"OK", ("tenant", "acme"), ("tenant", "evil")),
        (b"NOT_FOUND", ("tenant", "acme")),
        (b"OK", ("tenant", "x" * (LONGEST + 1))),
        (b"OK", ("tenant", "bolt")),
        (b"OK", ("tenant", "late")),
        (b"OK",),
    ]
    with connected(ServerInterceptor(*observers), unary=as_asked) as channel:
        for request, *metadata in asked:
            ask(channel, request, *metadata)
        recorder.wait_for(len(asked))

    assert {
        ("other", "NOT_FOUND"): 1,
        ("acme", "OK"): 2,
        ("acme", "NOT_FOUND"): 1,
        ("other", "OK"): 2,
        ("bolt", "OK"): 1,
        ("none", "OK"): 1,
    } == counts(registry)


def test_tenants_that_are_bytes() -> None:
    """A tenant's name that is no text is one of the others."""
    recorder, registry = Recorder(), CollectorRegistry()
    observers: list[Observer] = [CountByTenant(registry, key="tenant-bin"), *recorder.observers]
    with connected(ServerInterceptor(*observers), unary=as_asked) as channel:
        ask(channel, b"OK", ("tenant-bin", b"acme"))
        recorder.wait_for()

    assert {("other", "OK"): 1} == counts(registry)


def test_tenants_on_asyncio() -> None:
    """They are counted on asyncio too, and on the side that serves alone."""
    recorder, registry = Recorder(), CollectorRegistry()
    observers: list[Observer] = [CountByTenant(registry, key="tenant"), *recorder.observers]

    async def echo(request: bytes, _context: Any) -> bytes:
        return request

    async def run() -> None:
        client = aio_client_interceptors(*observers)
        async with aio_connected(AioServerInterceptor(*observers), client=client, unary=echo) as channel:
            await method(channel, "unary")(b"", metadata=(("tenant", "acme"),), timeout=10)

    asyncio.run(run())
    recorder.wait_for(2)

    assert {("acme", "OK"): 1} == counts(registry)


def counts(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """Return the calls by tenant and code."""
    return {
        (sample.labels["tenant"], sample.labels["grpc_code"]): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "tenant_calls_total"
    }


class Lines:
    """A structlog logger's lines."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []
        self.logger = structlog.wrap_logger(None, processors=[self._keep])

    def _keep(self, _logger: Any, _level: str, fields: Any) -> Any:
        self.kept.append(fields)
        raise structlog.DropEvent


@STACKS
@SIDES
@pytest.mark.parametrize("arity", ARITIES)
def test_payloads(stack: str, side: str, arity: str) -> None:
    """Each message of a chosen method is a line with its call's span, be it a server's or a client's."""
    recorder, lines = Recorder(), Lines()
    name = f"{SERVICE}/{NAMES[arity]}"
    payloads: LifecycleObserver = LogPayloads(lines.logger, [name])
    trace, *others = recorder.observers
    talk(stack, arity, **behind(stack, side, trace, payloads, *others))
    recorder.wait_for()
    [call] = recorder.calls
    numbers = {way: [line["number"] for line in lines.kept if line["direction"] == way] for way in ("sent", "received")}

    assert {(name, side, call.span_id, "<bytes>")} == {
        tuple(line[key] for key in ("method", "kind", "call_span_id", "message")) for line in lines.kept
    }
    assert {"sent": [*range(1, call.sent + 1)], "received": [*range(1, call.received + 1)]} == numbers


@STACKS
def test_payloads_of_other_methods(stack: str) -> None:
    """Nothing of any other method is logged."""
    recorder, lines = Recorder(), Lines()
    payloads = LogPayloads(lines.logger, ["other.v1.Service/Get"])
    talk(stack, "unary", **behind(stack, "server", payloads, *recorder.observers))
    recorder.wait_for()

    assert [] == lines.kept


PROTO = """
syntax = "proto2";
package shop.v1;
import "google/protobuf/any.proto";
enum Kind {
  PLAIN = 0;
  HUSHED = 1 [debug_redact = true];
}
message Card {
  optional string number = 1 [debug_redact = true];
  optional string holder = 2;
}
message Order {
  optional string id = 1;
  optional Card card = 2;
  repeated Card cards = 3;
  map<string, Card> by_name = 4;
  map<string, string> notes = 5 [debug_redact = true];
  repeated string tags = 6;
  optional bytes token = 7;
  optional Kind kind = 8;
  optional Kind other_kind = 9;
  optional google.protobuf.Any extra = 10;
  oneof contact {
    string mail = 11;
    string phone = 12 [debug_redact = true];
  }
  optional int32 cups = 13;
  optional bool paid = 14;
  repeated Card secret_cards = 15 [debug_redact = true];
  extensions 100 to 200;
}
extend Order {
  optional string nickname = 100;
  optional string pin = 101 [debug_redact = true];
}
"""


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> Message:
    """Give a message with a field of each kind, and the word s3cret wherever none may see it."""
    folder = tmp_path_factory.mktemp("protos")
    (folder / "shop.proto").write_text(PROTO)
    (folder / "google" / "protobuf").mkdir(parents=True)
    pool = descriptor_pool.DescriptorPool()
    well_known = Path(protoc.__file__).parent / "_proto"
    arguments = [f"-I{folder}", f"-I{well_known}", f"--descriptor_set_out={folder}/set", "--include_imports"]
    assert 0 == protoc.main(["protoc", *arguments, "shop.proto"])
    for file in descriptor_pb2.FileDescriptorSet.FromString((folder / "set").read_bytes()).file:
        pool.Add(file)
    class_: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.v1.Order"))
    found: Any = class_(id="1\n2", tags=["a", "b"], token=b"s3cret", kind=0, other_kind=1, cups=3, paid=True)
    found.card.number, found.card.holder = "s3cret", "Ada"
    found.cards.add(number="s3cret", holder="Bob")
    found.by_name["c"].number = "s3cret"
    found.notes["s3cret"] = "s3cret"
    found.phone = "s3cret"
    found.secret_cards.add(holder="s3cret")
    found.extra.type_url = "type.googleapis.com/shop.v1.Card"
    found.extra.value = b"s3cret"
    found.Extensions[pool.FindExtensionByName("shop.v1.nickname")] = "ada"
    found.Extensions[pool.FindExtensionByName("shop.v1.pin")] = "s3cret"
    return found  # type: ignore[no-any-return]  # it is one


WHOLE = (
    'id: "1\\n2" card { number: [REDACTED] holder: "Ada" } cards { number: [REDACTED] holder: "Bob" } '
    'by_name: "c" by_name { number: [REDACTED] } notes: [REDACTED] tags: "a" tags: "b" token: <6 bytes> kind: PLAIN '
    "other_kind: [REDACTED] extra { [type.googleapis.com/shop.v1.Card] } phone: [REDACTED] cups: 3 paid: True "
    'secret_cards: [REDACTED] [shop.v1.nickname]: "ada" [shop.v1.pin]: [REDACTED]'
)


def test_text_of_message(order: Message) -> None:
    """A message is text on one line, without what is marked as secret, wherever that is."""
    assert WHOLE == text_of(order, 10_000)


def test_text_is_cut(order: Message) -> None:
    """It is never longer than the limit, and at no length does it show a secret."""
    for limit in range(1, len(WHOLE)):
        text = text_of(order, limit)

        assert limit == len(text)
        assert text.endswith("…")
        assert "s3c" not in text


def test_long_text_is_cut() -> None:
    """A long text is cut, before it is escaped; so is that of an Any's type."""
    message = EchoRequest(msg="\n" * 5_000_000)
    extra = any_pb2.Any(type_url="x" * 5_000_000)

    assert [100, 100] == [len(text_of(each, 100)) for each in (message, extra)]


def test_no_message() -> None:
    """What is no protobuf message is shown by its type alone."""
    assert ["<bytes>", "<NoneType>"] == [text_of(each, 100) for each in (b"s3cret", None)]
