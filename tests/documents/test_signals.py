"""docs/signals.md names what calls are reported as, all of it and nothing else."""

import pytest

from tests.documents.signals import PAGE, PARTS, play, render


@pytest.mark.expects_errors("KeyError")
def test_tables() -> None:
    """The page's tables are those of the code: `python -m tests.documents --write` writes them."""
    text = PAGE.read_text("utf-8")

    assert [] == [part for part in PARTS if f"<!-- {part} -->" not in text]
    assert render(play()) == text
