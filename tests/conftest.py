"""What all tests share."""

import gc
import signal
from collections.abc import Iterator

import pytest

# Whoever is started in the background of a script has Ctrl-C ignored, and so has whatever it starts: our programs too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def collectable() -> Iterator[None]:
    """Let the garbage collector look at what the tests make, not at twelve thousand tests each time."""
    gc.freeze()
    yield
    gc.unfreeze()
