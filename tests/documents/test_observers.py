"""docs/observers.md: its code runs, and its tables have what there is."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from client.processes import environment
from observability import Call, LifecycleObserver, Outcome, ServerInterceptor
from tests.support.recorder import Recorder
from tests.support.rpc import as_asked, connected, method

PAGE = (Path(__file__).parents[2] / "docs" / "observers.md").read_text("utf-8")


def rows(heading: str) -> set[str]:
    """Return the names in the first column of the table with this heading."""
    table = PAGE.partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)", cell)}


def test_hooks() -> None:
    """The table of hooks has each hook of a LifecycleObserver, and no other."""
    assert {name for name in vars(LifecycleObserver) if name.startswith("on_")} == rows("Hook")


def test_outcome() -> None:
    """The table of an outcome has each of its fields."""
    assert {*Outcome._fields} == rows("`Outcome`")


def test_call() -> None:
    """The table of a call has what its docstring names, its ids and `annotate`."""
    documented = {*re.findall(r"`(\w+)`", inspect.getdoc(Call) or "")}

    assert documented | {"trace_id", "span_id", "annotate"} == rows("`Call`")


def test_code() -> None:
    """The page's observer notes the calls that fail, and is taken where the page gives it."""
    recorder, page = Recorder(), dict[str, Any]()
    observer, given = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(observer, page)  # noqa: S102 - the page's own
    with connected(ServerInterceptor(page["note_failures"], *recorder.observers), unary=as_asked) as channel:
        for request in (b"OK", b"NOT_FOUND"):
            method(channel, "unary").future(request, timeout=10).exception()
        recorder.wait_for(2)

    assert ["server test.v1.Words/Unary: NOT_FOUND as asked"] == page["failures"]
    program = f"{observer}\n{given}\nprint(type(telemetry).__name__, type(interceptor).__name__)"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(OTEL_TRACES_EXPORTER="none"),
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )

    assert ("Telemetry ServerInterceptor\n", "", 0) == (result.stdout, result.stderr, result.returncode)
