"""The chart that the README shows: what each stack adds to a call, as an SVG that suits light and dark pages."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from html import escape
from statistics import median
from typing import TYPE_CHECKING, Final

from .goals import added
from .variants import CALLERS, PARTS, TITLES, UNARY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .results import Results
    from .variants import Variant

NAMED: Final = ("grpcio", "opentelemetry-sdk", "prometheus_client", "structlog")
"""The packages whose versions stand below the chart."""

_WIDTH: Final = 860
_LABELS: Final = 372
"""Where the bars start."""
_BARS: Final = _WIDTH - _LABELS - 90
_ROW: Final = 24
_BAR: Final = 15
_HEAD: Final = 66
_FOOT: Final = 56

_STYLE: Final = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .title { font-size: 17px; font-weight: 600 }
  .group { font-weight: 600 }
  .small { font-size: 11.5px; fill: #59636e }
  .page { fill: #ffffff }
  .ours { fill: #0a7f6f }
  .theirs { fill: #b4bcc6 }
  .spread { stroke: #1f2328; stroke-opacity: .55 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .small { fill: #9198a1 }
    .page { fill: #0d1117 }
    .ours { fill: #2fb8a2 }
    .theirs { fill: #545d68 }
    .spread { stroke: #e6edf3 }
  }
"""


@dataclass(frozen=True, slots=True)
class _Row:
    variant: Variant
    added: Sequence[float]


def draw(results: Results) -> str:
    """Draw what every stack adds to a unary call."""
    groups: dict[str, list[_Row]] = defaultdict(list)
    for group, variants in UNARY.items():
        for variant in variants:
            if variant.stack not in ("bare", *PARTS):
                groups[group + CALLERS[variant.caller]].append(_Row(variant, added(results, variant.key)))
    most = max(max(row.added) for rows in groups.values() for row in rows)
    body = list(_groups(groups, _BARS / most))
    height = _HEAD + _ROW * (sum(map(len, groups.values())) + len(groups)) + 10 * len(groups) + _FOOT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
            "<title>CPU time that instrumentation adds to a unary call</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="page" width="{_WIDTH}" height="{height}" rx="6"/>',
            _text(20, 32, "CPU time that instrumentation adds to a unary call", "title"),
            _text(20, 52, "µs, shorter is better; the line goes from the lowest to the highest repetition", "small"),
            *body,
            *(_text(20, height - 36 + 16 * number, line, "small") for number, line in enumerate(_footnotes(results))),
            "</svg>",
            "",
        ]
    )


def _groups(groups: dict[str, list[_Row]], scale: float) -> Iterator[str]:
    y = float(_HEAD)
    for group, rows in groups.items():
        yield _text(20, y + 18, group, "group")
        y += _ROW
        for row in rows:
            yield from _row(row, y, scale)
            y += _ROW
        y += 10


def _row(row: _Row, y: float, scale: float) -> Iterator[str]:
    middle, low, high = (scale * value for value in (median(row.added), min(row.added), max(row.added)))
    kind = "ours" if row.variant.stack.startswith("ours") else "theirs"
    top, line = y + (_ROW - _BAR) / 2, y + _ROW / 2
    yield _text(32, y + 17, TITLES[row.variant.stack])
    yield f'<rect class="{kind}" x="{_LABELS}" y="{top:.1f}" width="{middle:.1f}" height="{_BAR}" rx="2"/>'
    yield (f'<line class="spread" x1="{_LABELS + low:.1f}" x2="{_LABELS + high:.1f}" y1="{line:.1f}" y2="{line:.1f}"/>')
    yield _text(_LABELS + max(middle, high) + 8, y + 17, f"{median(row.added):.0f}")


def _footnotes(results: Results) -> list[str]:
    about = results["about"]
    versions = about["versions"]
    return [
        f"{about['machine']}; each process on its own core, load from {about['load']}"
        if about["pinned"]
        else f"{about['machine']}; load from {about['load']}",
        f"Python {about['python']}, " + ", ".join(f"{name} {versions[name]}" for name in NAMED),
    ]


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.0f}" y="{y:.0f}"{style}>{escape(text)}</text>'
