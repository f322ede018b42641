"""The reference has every public name, each with an example that runs."""

import inspect
import re
from pathlib import Path

import pytest

import observability
from client.processes import ROOT
from observability import instrumentor, testing
from tests.support import python

PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs" / "reference").glob("*.md"))}
NAMES = [(module.__name__, name) for module in (observability, testing, instrumentor) for name in module.__all__]


def examples(page: str) -> str:
    """Return the examples of a page, which are one program."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize(("module", "name"), NAMES, ids=".".join)
def test_every_public_name_is_there(module: str, name: str) -> None:
    """A public name has its section on one page, with what its docstring says, and is used by that page's examples."""
    [page] = [page for page, text in PAGES.items() if f"\n## {name}\n" in text]

    [section] = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", PAGES[page], re.DOTALL | re.MULTILINE)

    assert re.search(rf":: {re.escape(module)}\.{name}\b", section)
    assert re.search(rf"\b{name}\b", re.sub(r"^(from|import) .*|^ +\w+,$", "", examples(page), flags=re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page: str, tmp_path: Path) -> None:
    """The examples of a page run, in a folder of their own, and what they assert holds."""
    variables = {
        "OTEL_TRACES_EXPORTER": "none",
        "GRPC_VERBOSITY": "ERROR",
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(tmp_path),
    }
    ended = python.run("-c", examples(page), variables=variables)

    assert ("", 0) == (ended.stderr, ended.returncode)


def test_parameters_of_start() -> None:
    """The table of what Telemetry.start takes has each parameter and no other, and the defaults that are not None."""
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|([^|]*)\|", PAGES["telemetry"], re.MULTILINE)
    shown = {name: default.strip() for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    real = inspect.signature(observability.Telemetry.start).parameters

    assert [*real] == [*shown]
    plain = {name: parameter.default for name, parameter in real.items() if isinstance(parameter.default, bool | float)}
    assert {name: str(default) for name, default in plain.items()} == {name: shown[name] for name in plain}
