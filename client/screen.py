"""What the demo looks like."""

import re
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.highlighter import JSONHighlighter, RegexHighlighter
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from client.spans import Span
from client.waterfall import waterfall
from programs.streams import draw_on

WIDTH = 120  # columns at most; lines that are longer are hard to read
PLAIN_WIDTH = 110  # columns where the terminal does not say how many it has
COLOURS = {"client": "cyan", "B": "magenta", "A": "green"}  # as in the trace
THEME = Theme(
    {
        "line.time": "dim",
        "line.key": "cyan",
        "line.good": "bold green",
        "line.bad": "bold red",
        "line.trace": "bold yellow",
        "line.number": "bold",
    }
)


class LineHighlighter(RegexHighlighter):
    """Colours what a person looks for in a log line or a metric."""

    base_style = "line."
    highlights = (
        r"^(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})",
        r"(?P<key>\b\w+=)",
        r"\b(status|code|level)=(?P<good>ok|OK|info)\b",
        r"\b(status|code|level|error)=(?P<bad>error|warning|[A-Z]{3,}[A-Z_]*|\"[^\"]*\")",
        r"grpc_code=\"((?P<good>OK)|(?P<bad>[A-Z_]+))\"",
        r"trace_id=\"?(?P<trace>[0-9a-f]{32})",
        r"\} (?P<number>[\d.]+)",
    )


class Screen:
    """Prints the parts of the demo on a console, one below the other."""

    def __init__(self, console: Console) -> None:
        self._console = sized(console)
        console.push_theme(THEME)

    def introduce(self, service_a: str, service_b: str) -> None:
        """Show what is running."""
        way = [("client", ""), ("Service B", service_b), ("Service A", service_a)]
        self._console.print()
        self._console.print(Text(" ──▶ ").join(Text.assemble((n, "bold"), (f" {at}", "dim")) for n, at in way))
        self._console.print(Text("Their spans go to this demo, in the place of Jaeger.", "dim"))

    def title(self, number: str, text: str) -> None:
        """Begin a call."""
        self._console.print()
        self._console.print(Rule(Text(f" {number}  {text} ", "bold reverse"), align="left", style="dim"))

    def answer(self, command: str, answer: str, status: int) -> None:
        """Show what the person sees who calls."""
        self._console.print()
        self._console.print(Text.assemble(("$ ", "dim"), (command, "bold")))
        self._console.print(JSONHighlighter()(Text(answer)))
        self._console.print(Text(f"exit status {status}", "dim"))

    def log_lines(self, lines: Sequence[tuple[str, str]]) -> None:
        """Show log lines, each after the name of the program that wrote it."""
        self._part("log lines", "one per call and side")
        self._beside(lines)

    def trace(self, trace_id: str, spans: Sequence[Span]) -> None:
        """Show a trace as a waterfall."""
        self._part("trace", trace_id)
        self._console.print(Padding(waterfall(spans), (0, 0, 0, 2)))

    def metrics(self, lines: Mapping[str, Sequence[str]]) -> None:
        """Show metrics, each after the name of the program that has it."""
        self._part("/metrics", "the counts that the call changed, and the bucket with its trace as exemplar")
        self._beside([(name, line) for name, shown in lines.items() for line in shown])

    def farewell(self) -> None:
        """Show where to go from here."""
        self._part("everything is stopped", "by hand, in three terminals:")
        for folder in ("service-a", "service-b"):
            self._console.print(Text(f"  cd {folder} && ../.venv/bin/python app.py"))
        self._console.print(Text("  .venv/bin/python client call-echo hello"))

    def _part(self, name: str, explanation: str) -> None:
        self._console.print()
        self._console.print(Text.assemble((name, "bold underline"), f"  {explanation}"))

    def _beside(self, lines: Sequence[tuple[str, str]]) -> None:
        highlight = LineHighlighter()
        table = Table.grid(padding=(0, 1))
        table.add_column(min_width=6)
        table.add_column(overflow="fold")
        for name, line in lines:
            shown = broken(highlight(Text(line)), self._console.width - 9)
            table.add_row(Text(name, f"bold {COLOURS[name]}"), shown)
        self._console.print(Padding(table, (0, 0, 0, 2)))


def sized(console: Console) -> Console:
    """Return a console after giving it a width that people can read, and lines that its encoding has."""
    draw_on(console.file)
    console.width = min(console.width, WIDTH) if console.is_terminal else PLAIN_WIDTH
    return console


def broken(text: Text, width: int) -> Text:
    """Return a text that is too wide for the screen on several lines, which end after spaces and commas."""
    offsets: list[int] = []
    end = 0
    for place in (*(match.end() for match in re.finditer("[ ,]", text.plain)), len(text)):
        if place - (offsets[-1] if offsets else 0) > width and end:
            offsets.append(end)
        end = place
    return Text("\n").join(text.divide(offsets))
