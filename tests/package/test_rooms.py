"""The package's rooms: each looks down alone, and those on the same floor do not know each other."""

import ast
from collections.abc import Iterator
from pathlib import Path

import observability

PACKAGE = Path(observability.__file__).parent
FLOORS = (
    {"threads", "redaction", "address"},
    {"settings"},
    {"calls"},
    {"server", "client", "logs", "metrics", "traces"},
    {"telemetry"},
    {"serving"},
    {"__init__"},
)
"""The rooms, from the lowest on."""


def room(path: Path) -> str:
    """Return the room that a module is in: its folder, or itself."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[str]:
    """Yield the rooms that a module imports from, for its types or at all."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            yield from [node.module.split(".")[0]] if node.module else [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
            assert not [name for name in modules if name.split(".")[0] == PACKAGE.name], f"{path}: by its full name"


def test_every_module_is_in_a_room() -> None:
    """
    There is no room that has no floor, and none without a module.
    """
    assert set.union(*FLOORS) == {room(path) for path in PACKAGE.rglob("*.py")}


def test_rooms_look_down() -> None:
    """
    A module imports from its own room, and from the floors below.
    """
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    wrong = [
        (str(path.relative_to(PACKAGE)), other)
        for path in PACKAGE.rglob("*.py")
        for other in imports(path)
        if other != room(path) and floor[other] >= floor[room(path)]
    ]

    assert [] == wrong
