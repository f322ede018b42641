"""What may stand in Service A's place, and with which codes Service B may answer its caller then."""

import itertools
import random
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.support import h2
from tests.support.h2 import Headers, Wire, frame, grpc_message

INSIDE = "db at 10.1.2.3:5432 refused root"
"""What A's place says of its inside, and no caller of B's may read."""
ECHO = b"\x0a\x05hello"
OPENING = [(":status", "200"), ("content-type", "application/grpc")]
LAST_STREAM = 2**31 - 1
DRIP = 0.02  # seconds between two bytes

Behavior = Callable[[Wire], None]


@dataclass(frozen=True)
class BadPeer:
    """What a peer does, and the codes that are right for B's caller."""

    behave: Behavior
    codes: frozenset[str]


PEERS: dict[str, BadPeer] = {}


def peer(name: str, *codes: str) -> Callable[[Behavior], Behavior]:
    """Have a function be what the peer of this name does."""

    def keep(behave: Behavior) -> Behavior:
        PEERS[name] = BadPeer(behave, frozenset(codes))
        return behave

    return keep


def answering(name: str, *codes: str) -> Callable[[Callable[[Wire, int], None]], None]:
    """Have a function be how the peer of this name answers a call, on a connection that is as it should be."""

    def keep(answer: Callable[[Wire, int], None]) -> None:
        peer(name, *codes)(h2.answering(answer))

    return keep


def greeted(name: str, frames: Callable[[Wire], Sequence[Frame | bytes]], *codes: str) -> None:
    """Have a peer of this name send frames after its settings, and then take whatever comes."""

    @peer(name, *codes)
    def behave(wire: Wire) -> None:
        wire.greet()
        wire.send(*frames(wire))
        wire.hold()


def said(name: str, text: bytes, *codes: str) -> None:
    """Have a peer of this name send bytes that are no HTTP/2, and close."""

    @peer(name, *codes)
    def behave(wire: Wire) -> None:
        wire.receive(None)
        wire.send(text)


def sent(name: str, headers: Headers, body: bytes, trailers: Headers | None, *codes: str) -> None:
    """Have a peer of this name answer each call with these headers, this body, and these trailers if any."""

    @answering(name, *codes)
    def answer(wire: Wire, stream: int) -> None:
        wire.send(*wire.header_frames(stream, headers, end=not body and trailers is None))
        if body:
            wire.send(DataFrame(stream, body, flags=["END_STREAM"] * (trailers is None)))
        if trailers is not None:
            wire.send(*wire.header_frames(stream, trailers, end=True))


def pause(seconds: float) -> None:
    """Wait, where the waiting is what the peer does wrong."""
    threading.Event().wait(seconds)


GONE = ("UNAVAILABLE",)
SILENT = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
FAILED = ("INTERNAL", "UNKNOWN", "UNAVAILABLE")

# What is no gRPC server at all.


@peer("closes at once", *GONE)
def _(wire: Wire) -> None:
    pass


@peer("resets at once", *GONE)
def _(wire: Wire) -> None:
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@peer("accepts and never speaks", *SILENT)
def _(wire: Wire) -> None:
    wire.hold()


@peer("garbage", *SILENT)
def _(wire: Wire) -> None:
    wire.send(random.Random(1).randbytes(1_000))  # noqa: S311 - anything but a secret
    wire.hold()


@peer("garbage without end", *SILENT)
def _(wire: Wire) -> None:
    for seed in itertools.count():
        wire.send(random.Random(seed).randbytes(10_000))  # noqa: S311 - as above


def _http1(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(INSIDE)}\r\n\r\n{INSIDE}".encode()


for _status in ("200 OK", "401 Unauthorized", "503 Service Unavailable"):
    said(f"HTTP/1.1 {_status}", _http1(_status), *GONE)
said("a TLS alert", b"\x15\x03\x03\x00\x02\x02\x28", *GONE)
said("SSH", b"SSH-2.0-OpenSSH_9.2\r\n", *GONE)
said("an echo of the preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", *GONE)


# What is one, and does not serve.


@peer("settings and closes", *GONE)
def _(wire: Wire) -> None:
    wire.greet()


greeted("settings and never answers", lambda _wire: [], *SILENT)


@peer("settings, never acknowledged, and never answers", *SILENT)
def _(wire: Wire) -> None:
    wire.polite = False
    wire.greet()
    wire.hold()


greeted("GOAWAY at once", lambda _wire: [GoAwayFrame(0, last_stream_id=0)], *SILENT)
greeted("GOAWAY at once, of the last stream", lambda _wire: [GoAwayFrame(0, last_stream_id=LAST_STREAM)], *SILENT)
greeted(
    "GOAWAY for too many pings",
    lambda _wire: [GoAwayFrame(0, last_stream_id=0, error_code=11, additional_data=b"too_many_pings")],
    *SILENT,
)
greeted(
    "GOAWAY that says more than it should",
    lambda _wire: [GoAwayFrame(0, last_stream_id=0, error_code=2, additional_data=INSIDE.encode())],
    *SILENT,
)
greeted("GOAWAY that is too short", lambda _wire: [frame(7, body=b"abc")], *SILENT, *FAILED)


@peer("GOAWAY at once, and closes", *GONE)
def _(wire: Wire) -> None:
    wire.greet()
    wire.send(GoAwayFrame(0, last_stream_id=0))


@answering("GOAWAY before the call, after it came", *SILENT)
def _(wire: Wire, _stream: int) -> None:
    wire.send(GoAwayFrame(0, last_stream_id=0, error_code=0, additional_data=INSIDE.encode()))
    wire.hold()


@answering("GOAWAY after the call, and no answer", *SILENT)
def _(wire: Wire, stream: int) -> None:
    wire.send(GoAwayFrame(0, last_stream_id=stream))
    wire.hold()


@answering("GOAWAY after the call, and closes", *GONE)
def _(wire: Wire, stream: int) -> None:
    wire.send(GoAwayFrame(0, last_stream_id=stream, error_code=2))
    raise ConnectionError


@answering("GOAWAY twice, the second before the call", *SILENT)
def _(wire: Wire, _stream: int) -> None:
    wire.send(GoAwayFrame(0, last_stream_id=LAST_STREAM), GoAwayFrame(0, last_stream_id=0))
    wire.hold()


@answering("closes in the middle of a call", *GONE)
def _(_wire: Wire, _stream: int) -> None:
    raise ConnectionError


# RST_STREAM with each code of RFC 9113, section 7, and one that is none of them.

RESET_CODES = {
    "NO_ERROR": FAILED,
    "PROTOCOL_ERROR": FAILED,
    "INTERNAL_ERROR": FAILED,
    "FLOW_CONTROL_ERROR": FAILED,
    "SETTINGS_TIMEOUT": FAILED,
    "STREAM_CLOSED": FAILED,
    "FRAME_SIZE_ERROR": FAILED,
    "REFUSED_STREAM": SILENT,
    "CANCEL": GONE,
    "COMPRESSION_ERROR": FAILED,
    "CONNECT_ERROR": FAILED,
    "ENHANCE_YOUR_CALM": ("RESOURCE_EXHAUSTED", *GONE),
    "INADEQUATE_SECURITY": ("PERMISSION_DENIED", *FAILED),
    "HTTP_1_1_REQUIRED": FAILED,
}


def resetting(name: str, number: int, *codes: str) -> None:
    """Have a peer of this name reset each call with this code."""

    @answering(name, *codes)
    def answer(wire: Wire, stream: int) -> None:
        wire.send(RstStreamFrame(stream, number))


for _number, (_name, _codes) in enumerate(RESET_CODES.items()):
    resetting(f"RST_STREAM {_name}", _number, *_codes)
resetting("RST_STREAM 99", 99, *FAILED)


# Answers that are none of gRPC's.

sent("headers without trailers", OPENING, grpc_message(ECHO), None, *FAILED)
sent("headers alone", OPENING, b"", None, *FAILED)
sent("trailers without a status", OPENING, grpc_message(ECHO), [("x-more", "1")], *FAILED)
sent("headers of text/html", [(":status", "200"), ("content-type", "text/html")], INSIDE.encode(), None, *FAILED)
sent("no content-type", [(":status", "200")], grpc_message(ECHO), [("grpc-status", "0")], "OK", *FAILED)
sent("no :status", [("content-type", "application/grpc")], grpc_message(ECHO), [("grpc-status", "0")], "OK", *FAILED)
for _status, _codes in {
    "302": FAILED,
    "400": FAILED,
    "401": ("UNAUTHENTICATED", *FAILED),
    "403": ("PERMISSION_DENIED", *FAILED),
    "404": ("UNIMPLEMENTED", *FAILED),
    "429": GONE,
    "500": FAILED,
    "503": GONE,
}.items():
    sent(f"HTTP/2 {_status}", [(":status", _status), ("content-type", "text/html")], INSIDE.encode(), None, *_codes)
for _value in ("42", "-1", "abc", "", "99999999999999999999"):
    sent(f"status {_value!r}", OPENING, grpc_message(ECHO), [("grpc-status", _value)], *FAILED)
sent(
    "a text that says more than it should",
    OPENING,
    b"",
    [("grpc-status", "8"), ("grpc-message", f"{INSIDE}%"), ("grpc-status-details-bin", "AAAA")],
    "RESOURCE_EXHAUSTED",
)
_HUGE = [("grpc-status", "0"), *((f"x-{number}", "x" * 1_000) for number in range(100))]
sent("huge metadata first", [*OPENING, *_HUGE[1:]], grpc_message(ECHO), _HUGE[:1], "RESOURCE_EXHAUSTED", *FAILED)
sent("huge metadata last", OPENING, grpc_message(ECHO), _HUGE, "RESOURCE_EXHAUSTED", *FAILED)


# Messages that are none.

_OK = [("grpc-status", "0")]
sent("no message", OPENING, b"", _OK, "INTERNAL")
sent("two messages", OPENING, grpc_message(ECHO) * 2, _OK, "UNIMPLEMENTED", *SILENT, *FAILED)
sent("half a message", OPENING, grpc_message(ECHO)[:-3], _OK, "INTERNAL")
sent("half a message, and no trailers", OPENING, grpc_message(ECHO)[:-3], None, *FAILED)
sent("a message that cannot be parsed", OPENING, grpc_message(b"\xff\xff"), _OK, *FAILED)
sent("a message with a flag that is none", OPENING, b"\x07" + grpc_message(ECHO)[1:], _OK, "OK", *FAILED)
sent("a message too large", OPENING, b"\0" + (2**24).to_bytes(4) + ECHO, _OK, "RESOURCE_EXHAUSTED")
sent("a compressed message without an encoding", OPENING, grpc_message(ECHO, compressed=True), _OK, *FAILED)
sent(
    "an unknown encoding",
    [*OPENING, ("grpc-encoding", "rot13")],
    grpc_message(ECHO, compressed=True),
    _OK,
    "UNIMPLEMENTED",
    *FAILED,
)
sent("gzip that is none", [*OPENING, ("grpc-encoding", "gzip")], grpc_message(ECHO, compressed=True), _OK, *FAILED)


@answering("half a message, and no more", *SILENT)
def _(wire: Wire, stream: int) -> None:
    wire.send(*wire.header_frames(stream, OPENING), DataFrame(stream, grpc_message(ECHO)[:-3]))


@answering("half a message, and reset", *FAILED)
def _(wire: Wire, stream: int) -> None:
    wire.send(
        *wire.header_frames(stream, OPENING), DataFrame(stream, grpc_message(ECHO)[:-3]), RstStreamFrame(stream, 2)
    )


@answering("slow drip", *SILENT)
def _(wire: Wire, stream: int) -> None:
    wire.send(*wire.header_frames(stream, OPENING), DataFrame(stream, b"\0" + (1_000_000).to_bytes(4)))
    while True:
        wire.send(DataFrame(stream, b"x"))
        pause(DRIP)


@peer("slow drip of the settings", *SILENT)
def _(wire: Wire) -> None:
    for byte in SettingsFrame(0, settings=dict.fromkeys(range(10, 200), 0)).serialize():
        wire.send(bytes([byte]))
        pause(DRIP)


@answering("headers that never end", *SILENT, "RESOURCE_EXHAUSTED", "INTERNAL")
def _(wire: Wire, stream: int) -> None:
    [headers] = wire.header_frames(stream, OPENING)
    headers.flags.discard("END_HEADERS")
    wire.send(headers)
    part = wire.encoder.encode([("x-more", "x" * 1_000)], huffman=False)
    while True:
        wire.send(ContinuationFrame(stream, part))
        pause(DRIP)


# Frames that break the protocol.

BROKEN = ("UNAVAILABLE", "INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED")


def breaking(name: str, frames: Callable[[int], Sequence[Frame]]) -> None:
    """Have a peer of this name send frames in the place of an answer."""

    @answering(name, *BROKEN)
    def answer(wire: Wire, stream: int) -> None:
        wire.send(*frames(stream))
        wire.hold()


breaking("a header block that is none", lambda stream: [HeadersFrame(stream, b"\xff\xff\xff", flags=["END_HEADERS"])])
breaking("a frame that is too large", lambda stream: [frame(0, stream=stream, body=bytes(2**20))])
breaking("a type of frame that there is not", lambda stream: [frame(99, stream=stream, flags=255, body=b"?")])
breaking("data of a stream that there is not", lambda stream: [DataFrame(stream + 100, b"?")])
breaking("data before headers", lambda stream: [DataFrame(stream, grpc_message(ECHO), flags=["END_STREAM"])])
breaking("a stray CONTINUATION", lambda stream: [ContinuationFrame(stream, b"", flags=["END_HEADERS"])])
breaking("a push", lambda stream: [PushPromiseFrame(stream, promised_stream_id=2, flags=["END_HEADERS"])])
breaking("a window that is too large", lambda stream: [WindowUpdateFrame(stream, 2**31 - 1)] * 2)
breaking("settings of no length", lambda _stream: [frame(4, body=b"123")])
breaking("settings without sense", lambda _stream: [SettingsFrame(0, {4: 2**32 - 1, 5: 1})])
breaking("data on no stream", lambda _stream: [frame(0, body=b"?")])


@answering("pings without end", *SILENT)
def _(wire: Wire, _stream: int) -> None:
    wire.socket.settimeout(1)
    while True:
        wire.send(*[PingFrame(0, b"12345678")] * 100)
        pause(DRIP)


@answering("settings without end", *SILENT)
def _(wire: Wire, _stream: int) -> None:
    wire.socket.settimeout(1)
    while True:
        wire.send(*[SettingsFrame(0, {4: 65_535})] * 100)
        pause(DRIP)
