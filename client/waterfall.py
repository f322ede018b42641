"""A trace as a waterfall: who called whom, when, for how long, and how it ended."""

from collections.abc import Iterator, Sequence

from rich.bar import Bar
from rich.table import Table
from rich.text import Text

from client.spans import Span

# Colours distinguish services, in the order in which a trace meets them.
COLOURS = ("cyan", "magenta", "green", "yellow", "blue")
ARROWS = {"client": "→", "server": "←"}
SLIVER = 0.012  # of the whole width: what even the shortest span shows


def waterfall(spans: Sequence[Span]) -> Table:
    """Return a trace as a table with a row per span; times count from the trace's first start."""
    colours = service_colours(spans)
    begin = min((span.start for span in spans), default=0)
    whole = max((span.end for span in spans), default=0) - begin or 1
    table = Table(box=None, padding=(0, 1), expand=True, header_style="dim", pad_edge=False)
    table.add_column("span", no_wrap=True, overflow="ellipsis")
    table.add_column("code", no_wrap=True)
    table.add_column("start", justify="right", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("", ratio=1, min_width=16)
    for branch, span in tree(spans):
        colour = colours[span.service]
        offset, length = span.start - begin, span.end - span.start
        table.add_row(
            title(span, branch, colour),
            Text(span.code, style="red" if span.status == "error" else "green"),
            milliseconds(offset),
            milliseconds(length),
            bar(whole, offset, length, colour),
        )
    return table


def bar(whole: int, offset: int, length: int, colour: str) -> Bar:
    """Return a span's place in the whole trace, wide enough to be seen."""
    shown = max(length, whole * SLIVER)
    begin = min(offset, whole - shown)
    return Bar(whole, begin, begin + shown, color=colour)


def title(span: Span, branch: str, colour: str) -> Text:
    """Return what a row begins with: its place in the tree, the service, and what it calls or serves."""
    return Text.assemble(
        (branch, "dim"), (span.service, f"bold {colour}"), f" {ARROWS.get(span.kind, '·')} {span.name}"
    )


def milliseconds(nanoseconds: int) -> str:
    """Return a time as a person reads it."""
    return f"{nanoseconds / 1e6:,.2f} ms"


def service_colours(spans: Sequence[Span]) -> dict[str, str]:
    """Return a colour for each service, the caller's first."""
    services = dict.fromkeys(span.service for _, span in tree(spans))
    return {service: COLOURS[place % len(COLOURS)] for place, service in enumerate(services)}


def tree(spans: Sequence[Span]) -> Iterator[tuple[str, Span]]:
    """Yield each span once, callers before those they called, with the lines that lead to it."""
    by_parent: dict[str, list[Span]] = {}
    known = {span.span_id for span in spans}
    for span in sorted(spans, key=lambda span: span.start):
        # The caller may be someone who keeps their spans elsewhere.
        parent = span.parent_id if span.parent_id in known - {span.span_id} else ""
        by_parent.setdefault(parent, []).append(span)

    def below(parent: str, lines: str) -> Iterator[tuple[str, Span]]:
        children = by_parent.pop(parent, [])
        for place, span in enumerate(children, 1):
            last = place == len(children)
            lead = ("└─ " if last else "├─ ") if parent else ""
            yield lines + lead, span
            yield from below(span.span_id, lines + ("" if not parent else "   " if last else "│  "))

    yield from below("", "")
