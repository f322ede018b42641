"""
Clients that hold calls: they begin as many as a connection may have, of one kind, and end none until stdin ends.

    python -m tests.faults.holders KIND ADDRESS PATH CONNECTIONS

It prints `sent` once all are, and the server has answered a ping behind them, and for each line on stdin how many it
holds. gRPC's core refuses some of so many calls at once, while it waits for Python to take those before.
"""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from hyperframe.frame import DataFrame, Frame, PingFrame, SettingsFrame

from client.processes import ROOT
from protos.echo_pb2 import CallEchoRequest, EchoRepeatRequest
from tests.support.h2 import LARGEST, Wire, dial, grpc_message

PING = b"all sent"
WINDOW = 65_535  # bytes that a stream takes before the server has asked for more
NEVER_ENDING = EchoRepeatRequest(msg="x" * 1_000, times=2**31 - 1).SerializeToString()
MESSAGE = CallEchoRequest(msg="x" * 30_000).SerializeToString()


def without_a_message(wire: Wire, path: str) -> list[Frame]:
    """Begin a call, and send nothing on it."""
    return wire.call_frames(path, message=None, end=False)


def repeated(wire: Wire, path: str) -> list[Frame]:
    """Ask for more answers than anybody reads."""
    return wire.call_frames(path, message=NEVER_ENDING)


def chatting(wire: Wire, path: str) -> list[Frame]:
    """Say enough for more answers than the server keeps for somebody who does not read them."""
    return with_data(wire, path, grpc_message(MESSAGE) * 2)


def unfinished(size: int) -> Callable[[Wire, str], list[Frame]]:
    """Return what begins a message of so many bytes, and sends of it what a stream takes at first."""
    return lambda wire, path: with_data(wire, path, grpc_message(bytes(size))[:WINDOW])


def with_data(wire: Wire, path: str, data: bytes) -> list[Frame]:
    """Begin a call, and send this of its messages."""
    frames = wire.call_frames(path, message=None, end=False)
    stream = frames[0].stream_id
    return [*frames, *(DataFrame(stream, data[at : at + LARGEST]) for at in range(0, len(data), LARGEST))]


@dataclass(frozen=True)
class Held:
    """How calls of one kind are begun, and the settings of a connection that holds them."""

    begin: Callable[[Wire, str], list[Frame]]
    settings: dict[int, int] = field(default_factory=dict)


UNREAD = {SettingsFrame.INITIAL_WINDOW_SIZE: 0}
HOLDERS = {
    "without a message": Held(without_a_message),
    "unread answers": Held(repeated, UNREAD),
    "unread chats": Held(chatting, UNREAD),
    "half a message": Held(unfinished(2 * WINDOW - 100)),
    "a part of 4 MB": Held(unfinished(4 * 2**20)),
}


@dataclass(frozen=True)
class Holding:
    """What another process holds."""

    stdin: IO[str]
    stdout: IO[str]

    def calls(self) -> int:
        """Return how many calls that are now."""
        print(file=self.stdin, flush=True)
        return int(self.stdout.readline())


@contextlib.contextmanager
def holding(kind: str, address: str, path: str, connections: int) -> Iterator[Holding]:
    """Hold calls of this kind, as many as so many connections may have."""
    command = [sys.executable, "-m", "tests.faults.holders", kind, address, path, str(connections)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert "sent\n" == process.stdout.readline()
            yield Holding(process.stdin, process.stdout)
        finally:
            process.stdin.close()


def hold(holder: Held, address: str, path: str, connections: int) -> None:
    """Begin the calls; hold them until stdin ends."""
    with contextlib.ExitStack() as ends:
        wires = [ends.enter_context(dial(address, holder.settings)) for _ in range(connections)]
        begun = sum(hold_all_of(wire, holder, path) for wire in wires)
        print("sent", flush=True)  # noqa: T201 - what the test reads
        for _ in sys.stdin:
            for wire in wires:
                wire.receive_what_came()
            streams = [stream for wire in wires for stream in wire.streams.values()]
            ended = sum(stream.ended or stream.error_code is not None for stream in streams)
            print(begun - ended, flush=True)  # noqa: T201 - as above


def hold_all_of(wire: Wire, holder: Held, path: str) -> int:
    """Begin as many calls as a connection may have; return how many."""
    wire.wait_for(lambda: SettingsFrame.MAX_CONCURRENT_STREAMS in wire.settings)
    streams = wire.settings[SettingsFrame.MAX_CONCURRENT_STREAMS]
    for _ in range(streams):
        for frame in holder.begin(wire, path):
            wire.send_in_window(frame)
    wire.send(PingFrame(0, PING))
    wire.wait_for(lambda: wire.pongs > 0)
    return streams


if __name__ == "__main__":
    kind, address, path, connections = sys.argv[1:]
    hold(HOLDERS[kind], address, path, int(connections))
