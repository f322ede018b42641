"""What is measured: a side, a style, and what is put on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Side = Literal["server", "client"]
Style = Literal["sync", "aio"]
Stack = Literal[
    "bare",
    "ours",
    "official",
    "assembled",
    "ours-metrics",
    "grpcio-observability",
    "ours-nothing",
    "ours-counts",
    "ours-lines",
    "ours-spans",
]
Signal = Literal["lines", "handled", "spans"]
Caller = Literal["sampled", "unsampled", "untraced"]
"""Whether the caller's traceparent says that its trace is sampled, or that it is not, or it sends none."""

CALLERS: Final[dict[Caller, str]] = {
    "sampled": "",
    "unsampled": ", calls not sampled",
    "untraced": ", callers that send no traceparent",
}

TITLES: Final[dict[Stack, str]] = {
    "bare": "bare grpcio",
    "ours": "ours: logs, metrics, traces",
    "official": "OpenTelemetry's: traces alone",
    "assembled": "OpenTelemetry's, py-grpc-prometheus, structlog",
    "ours-metrics": "ours: metrics alone",
    "grpcio-observability": "gRPC's own plugin: metrics alone",
    "ours-nothing": "ours, with nothing to report to",
    "ours-counts": "ours: metrics, without lines and spans",
    "ours-lines": "ours: lines and metrics, without spans",
    "ours-spans": "ours: spans and metrics, without lines",
}

SIGNALS: Final[dict[Stack, frozenset[Signal]]] = {
    "bare": frozenset(),
    "ours": frozenset({"lines", "handled", "spans"}),
    "official": frozenset({"spans"}),
    "assembled": frozenset({"lines", "handled", "spans"}),
    "ours-metrics": frozenset({"handled"}),
    "grpcio-observability": frozenset({"handled"}),
    "ours-nothing": frozenset(),
    "ours-counts": frozenset({"handled"}),
    "ours-lines": frozenset({"lines", "handled"}),
    "ours-spans": frozenset({"spans", "handled"}),
}
"""What each stack reports of a call: so much of it is counted."""


PARTS: Final[tuple[Stack, ...]] = ("ours-nothing", "ours-counts", "ours-lines", "ours-spans")
"""Ours with some of its signals off: what the others have in addition is what the signal costs."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One thing that is measured, in a separate process."""

    side: Side
    style: Style
    stack: Stack
    caller: Caller = "sampled"

    @property
    def key(self) -> str:
        """The name in results.json, such as `server-sync-ours-unsampled`."""
        return f"{self.side}-{self.style}-{self.stack}" + ("" if self.caller == "sampled" else f"-{self.caller}")

    @property
    def title(self) -> str:
        """The stack, and what is special about its caller."""
        return self.stack + {"sampled": "", "unsampled": ", not sampled", "untraced": ", no traceparent"}[self.caller]

    @property
    def bare(self) -> Variant:
        """The same without any instrumentation."""
        return Variant(self.side, self.style, "bare")

    @property
    def signals(self) -> frozenset[Signal]:
        """What there must be for every call."""
        return SIGNALS[self.stack] - {"spans"} if self.caller == "unsampled" else SIGNALS[self.stack]


UNARY: Final[dict[str, tuple[Variant, ...]]] = {
    "sync server": (
        Variant("server", "sync", "bare"),
        Variant("server", "sync", "ours"),
        Variant("server", "sync", "official"),
        Variant("server", "sync", "assembled"),
        Variant("server", "sync", "ours-metrics"),
        Variant("server", "sync", "grpcio-observability"),
        *(Variant("server", "sync", stack) for stack in PARTS),
        *(Variant("server", "sync", stack, "unsampled") for stack in ("ours", "official", "assembled")),
        *(Variant("server", "sync", stack, "untraced") for stack in ("ours", "official", "assembled")),
    ),
    "asyncio server": (
        Variant("server", "aio", "bare"),
        Variant("server", "aio", "ours"),
        Variant("server", "aio", "official"),
    ),
    "sync client": (
        Variant("client", "sync", "bare"),
        Variant("client", "sync", "ours"),
        Variant("client", "sync", "official"),
    ),
    "asyncio client": (
        Variant("client", "aio", "bare"),
        Variant("client", "aio", "ours"),
        Variant("client", "aio", "official"),
    ),
}
"""The groups of variants that take part in a round together, each led by what the others are compared with."""

VARIANTS: Final[dict[str, Variant]] = {variant.key: variant for variants in UNARY.values() for variant in variants}

STREAMING: Final = tuple(v for v in VARIANTS.values() if v.stack in ("bare", "ours") and v.caller == "sampled")
"""The variants whose streams are measured."""
