"""Both engines of OBSERVABILITY_TRACES, case by case: what their spans say, as docs/conformance.md has it."""

import gc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from tests.support.recorder import Span

from . import expected
from .cases import CASES
from .play import Played, play
from .vocabulary import ARITIES, Arity, Case, Way, requests_stream
from .ways import ways

Verdicts: TypeAlias = dict[tuple[Arity, str], dict[str, str]]
"""What the spans say, by arity and case, then by column of the table."""

PAGE: Final = Path(__file__).parents[2] / "docs" / "conformance.md"
RIGHT: Final = "✓"
_COLUMNS: Final = ("native", "sync client", "sync server", "asyncio client", "asyncio server")
_PLAINEST: Final = {"sync": ("call", "iterate", "future"), "aio": ("aio_await", "aio_iterate")}
_TITLES: Final[dict[Arity, str]] = {
    "unary": "Unary",
    "client_stream": "Client-streaming",
    "server_stream": "Server-streaming",
    "bidi_stream": "Bidirectional",
}
_INTRODUCTION: Final = """\
# Two engines, case by case

What the spans of a call say, with `OBSERVABILITY_TRACES=native` and with `contrib`, which traces through
opentelemetry-instrumentation-grpc's own interceptors: those are the last four columns. The tests write this page
(`python -m tests.conformance --write`) and hold it against what they see.

Log lines and metrics are ours under both, and right in every case below, except `limit`: a call over the limit is
reported as CANCELLED by a server with `contrib`, whose interceptor stands before ours and reads the handler of a call
that is refused. Some calls the official interceptors break themselves: on asyncio servers those of plain handlers, and
streams of handlers that use `context.write`; on asyncio channels client-streaming calls that are written by hand, which
wait for their answer first. What is reported of them is what came of them.

✓ is one span, with the code of the call, a status by the conventions, and an exception where the handler raised one;
the official client also records the error that its caller gets, which is no fault. Else the cell says what there is:
the status of the span, the gRPC code that it names, and how many exceptions it records. An empty cell is what cannot be
so on that stack, or depends on luck there. `native` is right on all four sides.
"""

UNPLAYABLE: Final[dict[tuple[str, Arity, str], str]] = {
    ("cancel", "server_stream", "sync"): "the stream has no `cancel`",
    ("finished_then_cancelled", "server_stream", "sync"): "the stream has no `cancel`",
    ("drop_unread", "server_stream", "sync"): "the call is never sent",
    ("cancel", "unary", "aio"): "never cancelled on the wire",
    ("cancel_task", "unary", "aio"): "never cancelled on the wire",
    ("cancel_before", "unary", "aio"): "never cancelled on the wire",
    ("close_channel", "unary", "aio"): "never cancelled on the wire",
    ("drop", "client_stream", "aio"): "never cancelled on the wire",
}
"""What the official client interceptors change in what a call does, by case, arity and stack."""
_LUCK: Final = (
    "request_of_stream_too_large",
    "request_of_stream_too_large_to_send",
    "request_of_stream_unserialisable",
)
"""Cases in which what the official server interceptors record depends on which of two events comes first."""


class Cell(NamedTuple):
    """One case on one arity of one stack, called as plainly as can be."""

    case: Case
    way: Way

    def __str__(self) -> str:
        return f"{self.case}-{self.way.arity}-{self.way.server}"

    def verdict(self, kind: str, spans: list[Span]) -> str:
        """Say in a few words what the spans of a side say, or that they are right."""
        if kind == "client":
            spans = [span._replace(exceptions=max(span.exceptions - 1, 0)) for span in spans]
        if spans == expected.spans(kind, self.case.codes[kind], error=self.case.error):
            return RIGHT
        return "; ".join(map(_words, spans)) or "no span"

    def lucky(self, kind: str) -> bool:
        """Whether what the official spans of a side say depends on luck."""
        return kind == "server" and self.case.name in _LUCK

    def column(self, kind: str) -> str:
        """Name the column of one of its sides."""
        return f"{'asyncio' if self.way.server == 'aio' else 'sync'} {kind}"


def _words(span: Span) -> str:
    events = {0: "", 1: ", 1 exception"}.get(span.exceptions, f", {span.exceptions} exceptions")
    return f"{span.status} {span.code}{events}"


def cells() -> Iterator[Cell]:
    """
    List the cells that can be played with both engines, to the same end each time.

    While requests are still being written the end of an asyncio call is a matter of luck.
    """
    for case in CASES:
        for arity in ARITIES:
            for server in _PLAINEST:
                way = plainest(case, arity, server)
                racy = case.caller.still_writing and server == "aio" and requests_stream(arity)
                if way and not racy and (case.name, arity, server) not in UNPLAYABLE:
                    yield Cell(case, way)


def plainest(case: Case, arity: Arity, server: str) -> Way | None:
    """Find the plainest way on one stack in which a case can come to pass."""
    possible = [way for way in ways(case) if (way.arity, way.server) == (arity, server)]
    return next((way for client in _PLAINEST[server] for way in possible if way.client == client), None)


def play_with(engine: str, cell: Cell) -> Played:
    """Play a cell, and let go of what the official interceptors leave to the garbage collector."""
    played = play(cell.case, cell.way, engine)
    gc.collect()
    return played


def see() -> Verdicts:
    """Play every cell with both engines."""
    verdicts: Verdicts = {}
    for cell in cells():
        row = verdicts.setdefault((cell.way.arity, cell.case.name), {"native": RIGHT})
        native, official = play_with("native", cell).recorder, play_with("contrib", cell).recorder
        for kind in ("client", "server"):
            if not cell.lucky(kind):
                row[cell.column(kind)] = cell.verdict(kind, official.side(kind).spans)
            if row["native"] == RIGHT:
                row["native"] = cell.verdict(kind, native.side(kind).spans)
    for (name, arity, server), reason in UNPLAYABLE.items():
        row = verdicts.setdefault((arity, name), {"native": RIGHT})
        row[f"{'asyncio' if server == 'aio' else 'sync'} client"] = reason
    return verdicts


def render(verdicts: Verdicts) -> str:
    """Write the page."""
    return "\n".join([_INTRODUCTION, *(_section(arity, verdicts) for arity in ARITIES)])


def _section(arity: Arity, verdicts: Verdicts) -> str:
    header = ["Case", "", "Code", *_COLUMNS]
    rows = [
        [f"`{case}`", case.says, _codes(case), *(verdicts[arity, case.name].get(name, "") for name in _COLUMNS)]
        for case in CASES
        if (arity, case.name) in verdicts
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))
    return f"## {_TITLES[arity]}\n\n{table}\n"


def _codes(case: Case) -> str:
    client, server = (code.name if code else "(none)" for code in case.codes.values())
    return client if client == server else f"{client}, server {server}"


def read() -> Verdicts:
    """Read back from the page what it says."""
    verdicts: Verdicts = {}
    for section in PAGE.read_text("utf-8").split("\n## ")[1:]:
        arity = next(arity for arity in ARITIES if section.startswith(f"{_TITLES[arity]}\n"))
        for name, columns in re.findall(r"^\| `(\w+)` \|[^|]*\|[^|]*\| (.*) \|$", section, re.MULTILINE):
            cells = zip(_COLUMNS, columns.split(" | "), strict=True)
            verdicts[arity, name] = {column: verdict for column, verdict in cells if verdict}
    return verdicts
