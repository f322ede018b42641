"""
HTTP/2 frame by frame (RFC 9113): a client that sends any frame, and a peer that answers as a test says.

    with dial(address) as wire:
        stream = wire.call("/echo.v1.EchoService/Echo", message=b"")
        wire.wait_for(lambda: wire.streams[stream].ended)
        wire.send(RstStreamFrame(stream, 8), frame(0x9, stream=3, body=b"stray"))

    def goaway(wire: Wire) -> None:
        wire.greet()
        wire.send(GoAwayFrame(0, last_stream_id=0, error_code=11))
        wire.hold()

    with Peer(goaway) as peer:
        ... peer.address
"""

import contextlib
import select
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self, cast

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER = 9  # bytes
LARGEST = 16_384  # bytes of a frame's body, unless the other end allows more
PATIENCE = 10.0  # seconds that a test waits for what must come

Header = tuple[str | bytes, str | bytes]
Headers = Iterable[Header]


class ClosedError(ConnectionError):
    """The other end has closed the connection before what was waited for."""


@dataclass
class Stream:
    """What the other end has sent on a stream: its header blocks, data, and whether it has ended it or reset it."""

    blocks: list[dict[str, str]] = field(default_factory=list)
    data: bytes = b""
    ended: bool = False
    error_code: int | None = None

    @property
    def status(self) -> int | None:
        """The gRPC status code, once it is there."""
        value = self.blocks[-1].get("grpc-status") if self.blocks else None
        return None if value is None else int(value)


class Wire:
    """
    One end of a connection. It sends what it is given, without a look at the protocol, and keeps what it receives.

    While it waits it acknowledges settings and answers pings, unless it is not `polite`. `window` is how many bytes of
    data the connection takes, if all are sent by `send_in_window`.
    """

    def __init__(self, connection: socket.socket, *, over: threading.Event | None = None) -> None:
        self.socket = connection
        self.encoder = Encoder()
        self.polite = True
        self.goaways: list[GoAwayFrame] = []
        self.pongs = 0
        self.settings: dict[int, int] = {}
        self.window = 65_535
        self.streams: defaultdict[int, Stream] = defaultdict(Stream)
        self._decoder = Decoder(max_header_list_size=2**24)
        self._over = over or threading.Event()
        self._received = bytearray()
        self._block = b""
        self._next = 1

    def send(self, *frames: Frame | bytes) -> None:
        """Send frames, or bytes as they are, in one go; raise ClosedError if the test is over."""
        if self._over.is_set():
            raise ClosedError("the test is over")
        self.socket.sendall(b"".join(part if isinstance(part, bytes) else part.serialize() for part in frames))

    def send_in_window(self, frame: Frame) -> None:
        """Send a frame once the connection has room for it, if it is one of data."""
        if isinstance(frame, DataFrame):
            self.wait_for(lambda: self.window >= len(frame.data))
            self.window -= len(frame.data)
        self.send(frame)

    def send_settings(self, settings: Mapping[int, int] = {}) -> None:
        """Send a SETTINGS frame."""
        self.send(SettingsFrame(0, settings=dict(settings)))

    def greet(self, settings: Mapping[int, int] = {}) -> None:
        """Take the preface of a client, and send settings as a server does."""
        self.receive_exactly(len(PREFACE))
        self.send_settings(settings)

    def header_frames(self, stream: int, headers: Headers, *, end: bool = False) -> list[Frame]:
        """Return a header block as HEADERS and, if it is long, CONTINUATION frames."""
        # Not in Huffman's code: gRPC's core hangs up in the middle of a very long header in it.
        block = self.encoder.encode([(bytes_of(name), bytes_of(value)) for name, value in headers], huffman=False)
        first, *more = [block[start : start + LARGEST] for start in range(0, len(block), LARGEST)] or [b""]
        frames: list[Frame] = [HeadersFrame(stream, data=first, flags=["END_STREAM"] * end)]
        frames += [ContinuationFrame(stream, data=part) for part in more]
        frames[-1].flags.add("END_HEADERS")
        return frames

    def call(
        self,
        path: str | bytes,
        *metadata: Header,
        message: bytes | None = b"",
        end: bool = True,
    ) -> int:
        """Begin a call with one message, or none, and end its requests if asked; return its stream."""
        frames = self.call_frames(path, *metadata, message=message, end=end)
        self.send(*frames)
        return frames[0].stream_id

    def call_frames(
        self, path: str | bytes, *metadata: Header, message: bytes | None = b"", end: bool = True
    ) -> list[Frame]:
        """Return the frames of such a call, to be sent later, but in order: they change the table of headers."""
        stream, self._next = self._next, self._next + 2
        frames = self.header_frames(stream, request_headers(path, *metadata), end=end and message is None)
        if message is not None:
            frames.append(DataFrame(stream, grpc_message(message), flags=["END_STREAM"] * end))
        return frames

    def answer(self, stream: int, *messages: bytes, status: int | str | None = 0, trailers: Headers = ()) -> None:
        """Answer a call with these messages and a status; without one, it does not end."""
        headers = [(":status", "200"), ("content-type", "application/grpc")]
        self.send(*self.header_frames(stream, headers))
        self.send(*(DataFrame(stream, grpc_message(message)) for message in messages))
        if status is not None:
            self.send(*self.header_frames(stream, [("grpc-status", str(status)), *trailers], end=True))

    def next_call(self) -> int:
        """Wait for the next call of a client; return its stream. ClosedError if the client leaves."""
        stream, self._next = self._next, self._next + 2
        self.wait_for(lambda: bool(self.streams[stream].blocks), None)
        return stream

    def wait_for(self, condition: Callable[[], bool], seconds: float | None = PATIENCE) -> None:
        """
        Receive until the condition is met.

        Raises ClosedError if the other end, or the peer itself, closes before, and TimeoutError after so many seconds.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while not condition():
            self.receive(None if deadline is None else deadline - time.monotonic())

    def ending(self, stream: int, seconds: float = PATIENCE) -> dict[str, str]:
        """Wait until the other end has ended or reset a stream; return its last header block, or nothing."""
        here = self.streams[stream]
        self.wait_for(lambda: here.ended or here.error_code is not None, seconds)
        return here.blocks[-1] if here.blocks else {}

    def hold(self) -> None:
        """Take whatever comes until the other end closes, or the test is over."""
        with contextlib.suppress(OSError):
            self.wait_for(lambda: False, None)

    def receive(self, seconds: float | None = PATIENCE) -> Frame:
        """Return the next frame; raise ClosedError at the end, and TimeoutError after so many seconds."""
        head = self.peek_exactly(HEADER, seconds)
        received, length = Frame.parse_frame_header(memoryview(head))
        body = self.peek_exactly(HEADER + length, seconds)[HEADER:]
        received.parse_body(memoryview(body))
        del self._received[: HEADER + length]
        self._keep(received)
        return received

    def receive_what_came(self) -> None:
        """Receive the frames that are here already; raise ClosedError at the end."""
        while self._received or select.select([self.socket], [], [], 0)[0]:
            try:
                self.receive(0.0)
            except TimeoutError:
                break

    def receive_exactly(self, count: int, seconds: float | None = PATIENCE) -> bytes:
        """Return so many bytes as they came, whatever they are."""
        taken = self.peek_exactly(count, seconds)
        del self._received[:count]
        return taken

    def peek_exactly(self, count: int, seconds: float | None) -> bytes:
        """Return so many bytes, and leave them where they are."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while len(self._received) < count:
            if self._over.is_set():
                raise ClosedError("the test is over")
            left = 0.1 if deadline is None else deadline - time.monotonic()
            if not select.select([self.socket], [], [], min(max(left, 0.0), 0.1))[0]:
                if left <= 0:
                    raise TimeoutError(f"the other end sent {len(self._received)} of {count} bytes")
                continue
            try:
                data = self.socket.recv(2**16)
            except OSError as error:
                raise ClosedError(str(error)) from error
            if not data:
                raise ClosedError("the other end has closed the connection")
            self._received += data
        return bytes(self._received[:count])

    def _keep(self, received: Frame) -> None:
        if received.stream_id:
            self._keep_of_stream(received, self.streams[received.stream_id])
        elif isinstance(received, SettingsFrame) and "ACK" not in received.flags:
            self.settings |= received.settings
            if self.polite:
                self.send(SettingsFrame(0, flags=["ACK"]))
        elif isinstance(received, PingFrame):
            self.pongs += "ACK" in received.flags
            if self.polite and "ACK" not in received.flags:
                self.send(PingFrame(0, received.opaque_data, flags=["ACK"]))
        elif isinstance(received, GoAwayFrame):
            self.goaways.append(received)
        elif isinstance(received, WindowUpdateFrame):
            self.window += received.window_increment

    def _keep_of_stream(self, received: Frame, stream: Stream) -> None:
        if isinstance(received, HeadersFrame | ContinuationFrame):
            self._block += received.data
            if "END_HEADERS" in received.flags:
                block, self._block = self._block, b""
                headers = self._decoder.decode(block, raw=True)
                stream.blocks.append({text_of(name): text_of(value) for name, value in headers})
        elif isinstance(received, DataFrame):
            stream.data += received.data
        elif isinstance(received, RstStreamFrame):
            stream.error_code = received.error_code
        stream.ended |= "END_STREAM" in received.flags


@contextlib.contextmanager
def dial(address: str, settings: Mapping[int, int] = {}, *, greeting: bool = True) -> Iterator[Wire]:
    """Connect to a server, and greet it unless asked not to; hang up at the end."""
    host, _, port = address.rpartition(":")
    with contextlib.closing(socket.create_connection((host, int(port)))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = Wire(connection)
        if greeting:
            wire.send(PREFACE, SettingsFrame(0, settings=dict(settings)))
        yield wire


class Peer:
    """
    A server that treats each connection as `behave` says, in a thread, and then closes it; from `with` to its end.

    It listens on a free port unless it is given one. Whatever `behave` does with its wire at the end is a ClosedError.
    """

    def __init__(self, behave: Callable[[Wire], None], *, port: int = 0) -> None:
        self.connections = 0
        self._behave = behave
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self._threads: list[threading.Thread] = []
        self.address = f"127.0.0.1:{cast('tuple[str, int]', self._listener.getsockname())[1]}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _start(self, act: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=act, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._start(partial(self._serve, connection))

    def _serve(self, connection: socket.socket) -> None:
        # The other end may leave at any time, and the test may be over.
        with connection, contextlib.suppress(OSError):
            self._behave(Wire(connection, over=self._over))


def answering(answer: Callable[[Wire, int], None]) -> Callable[[Wire], None]:
    """Return what a peer does that answers each call so, by its stream, on a connection that is as it should be."""

    def behave(wire: Wire) -> None:
        wire.greet()
        while True:
            answer(wire, wire.next_call())

    return behave


def frame(kind: int, *, stream: int = 0, flags: int = 0, body: bytes = b"") -> Frame:
    """Return a frame of any type, with any flags and body, whether or not the protocol knows such a one."""
    made = ExtensionFrame(kind, stream, flags, body)
    made.body_len = len(body)
    return made


def request_headers(
    path: str | bytes, *metadata: tuple[str | bytes, str | bytes]
) -> list[tuple[str | bytes, str | bytes]]:
    """Return the headers with which a call begins."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *metadata,
    ]


def grpc_message(message: bytes, *, compressed: bool = False) -> bytes:
    """Return a message as gRPC has it on the wire, its flag and length first."""
    return bytes([compressed]) + len(message).to_bytes(4) + message


def bytes_of(value: str | bytes) -> bytes:
    """Return a text as bytes; bytes as they are."""
    return value.encode() if isinstance(value, str) else value


def text_of(value: str | bytes) -> str:
    """Return a header's bytes as text, whatever they are."""
    return value if isinstance(value, str) else value.decode(errors="surrogateescape")
