"""
The measured process: one party to a call, with one stack.

It reports its own processor time, so that nothing but what it does itself is counted: every thread of it, the
exporter's and the log writer's too.
"""

from __future__ import annotations

import argparse
import os
import resource
from pathlib import Path

from .parties import party
from .process import pin
from .stacks import build
from .variants import VARIANTS
from .wire import Wire


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _resident_bytes() -> int:
    """Return the memory that is resident now; where the system does not say, the most that ever was, in its unit."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Be measured until the benchmark has gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("--wire", type=int, required=True)
    parser.add_argument("--core", type=int)
    parser.add_argument("--target", default="", metavar="HOST:PORT")
    parser.add_argument("--methods", type=int, default=0)
    options = parser.parse_args()
    pin(options.core)
    instruments = build(VARIANTS[options.variant], options.target)
    measured = party(VARIANTS[options.variant], instruments, options.target, options.methods)
    wire = Wire.inherited(options.wire)
    wire.send({"port": measured.port})
    wire.answer(
        {
            "processor_seconds": _processor_seconds,
            "resident_bytes": _resident_bytes,
            "flush": lambda: bool(instruments.flush()),
            "handled": instruments.handled,
            **measured.answers,
        }
    )
    os._exit(0)  # a hung receiver, or a stack that joins its threads, must not keep the benchmark waiting


if __name__ == "__main__":
    main()
