"""The package's layers: imports point down, and packages of the same layer do not import each other."""

import ast
from collections.abc import Iterator
from pathlib import Path

import observability

PACKAGE = Path(observability.__file__).parent
LAYERS = (
    {"threads", "redaction", "address", "certificates"},
    {"settings"},
    {"calls"},
    {"server", "client", "logs", "metrics", "traces"},
    {"telemetry"},
    {"serving", "testing", "instrumentor"},
    {"__init__"},
)
"""The packages and modules of each layer, from the lowest up."""


def package_of(path: Path) -> str:
    """Return the package that a module is in, or the module itself."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[str]:
    """Yield the packages that a module imports from, for types alone too."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            yield from [node.module.split(".")[0]] if node.module else [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
            assert not [name for name in modules if name.split(".")[0] == PACKAGE.name], f"{path}: by its full name"


def test_every_module_is_in_a_layer() -> None:
    """
    The layers name every package and module, and no other.
    """
    assert set.union(*LAYERS) == {package_of(path) for path in PACKAGE.rglob("*.py")}


def test_imports_point_down() -> None:
    """
    A module imports from its own package, and from the layers below.
    """
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    wrong = [
        (str(path.relative_to(PACKAGE)), other)
        for path in PACKAGE.rglob("*.py")
        for other in imports(path)
        if other != package_of(path) and layer[other] >= layer[package_of(path)]
    ]

    assert [] == wrong
