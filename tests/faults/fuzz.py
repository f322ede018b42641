"""Frames that nobody should send, as a seed gives them."""

import random
from collections.abc import Callable

from hyperframe.frame import DataFrame, Frame, HeadersFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from tests.support.h2 import Header, Wire, frame, grpc_message, request_headers

LENGTHS = (0, 1, 4, 5, 6, 8, 9, 17, 100, 5_000)  # bytes: those of every type of frame, one more, one less, and more

Make = Callable[[random.Random, Wire, int], Frame | bytes]


def any_frame(dice: random.Random, _wire: Wire, stream: int) -> Frame:
    """Return a frame of any type, of those that there are and those that there are not, with any flags and body."""
    streams = (0, stream, stream + 1, stream + 2, 2**31 - 1)
    return frame(
        dice.randrange(16),
        stream=dice.choice(streams),
        flags=dice.randrange(256),
        body=dice.randbytes(dice.choice(LENGTHS)),
    )


def false_length(dice: random.Random, wire: Wire, stream: int) -> bytes:
    """Return a frame whose length is not that of its body."""
    whole = any_frame(dice, wire, stream).serialize()
    return dice.choice((0, 1, 2**14 + 1, 2**24 - 1)).to_bytes(3) + whole[3:]


def garbage(dice: random.Random, _wire: Wire, _stream: int) -> bytes:
    """Return bytes that are no frame."""
    return dice.randbytes(dice.choice(LENGTHS[1:]))


def altered(dice: random.Random, wire: Wire, stream: int) -> bytes:
    """Return a frame as it should be, but for one to three bytes."""
    sound: list[Frame] = [
        *wire.header_frames(stream + 2, request_headers("/echo.v1.EchoService/Echo")),
        DataFrame(stream, grpc_message(b"\x0a\x05hello")),
        SettingsFrame(0, {4: 65_535}),
        WindowUpdateFrame(stream, 1_000),
        RstStreamFrame(stream, 8),
    ]
    data = bytearray(dice.choice(sound).serialize())
    for _ in range(dice.randint(1, 3)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(data)


def message(dice: random.Random, _wire: Wire, stream: int) -> Frame:
    """Return data that hold no message, or one that is none of the method's."""
    body = dice.randbytes(dice.choice(LENGTHS))
    data = dice.choice(
        (
            grpc_message(body),
            grpc_message(body, compressed=True),
            bytes([dice.randrange(256)]) + len(body).to_bytes(4) + body,
            b"\0" + dice.choice((1, 2**31, 2**32 - 1)).to_bytes(4) + body,
            body,
        )
    )
    return DataFrame(stream, data, flags=["END_STREAM"] * dice.randrange(2))


MAKES: tuple[Make, ...] = (any_frame, false_length, garbage, altered, message)


def headers(dice: random.Random, wire: Wire, path: str, *metadata: Header) -> list[Frame]:
    """Return a call's headers, of which one is missing, doubled, out of place or without sense."""
    block = request_headers(path, *metadata)
    place = dice.randrange(len(block))
    strange: list[Header] = [
        (block[place][0], dice.choice((b"", b"?", dice.randbytes(9), b"x" * 9_000))),
        (dice.choice((b"", b"Upper", b":other", dice.randbytes(5), b"content-length", b"connection")), b"5"),
        ("grpc-timeout", dice.choice((b"1", b"-1S", b"99999999H", b"0n", b"soon", b"123456789S"))),
        ("grpc-encoding", dice.choice((b"gzip", b"rot13", b"identity", b""))),
        ("grpc-accept-encoding", b"," * 100),
        ("x-bin", dice.choice((b"AAA", b"*", b"=", b"x" * 100))),
    ]
    act = dice.randrange(4)
    if act == 0:
        del block[place]
    elif act == 1:
        block[place] = strange[0]
    elif act == 2:
        dice.shuffle(block)
    else:
        block.insert(dice.randrange(len(block) + 1), dice.choice(strange))
    [first, *more] = wire.header_frames(1, block)
    assert isinstance(first, HeadersFrame)
    return [first, *more, DataFrame(1, grpc_message(b"\x0a\x05hello"), flags=["END_STREAM"])]
