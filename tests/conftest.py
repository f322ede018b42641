"""What all tests share."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def collectable() -> Iterator[None]:
    """Let the garbage collector look at what the tests make, not at twelve thousand tests each time."""
    gc.freeze()
    yield
    gc.unfreeze()
