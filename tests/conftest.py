"""What all tests share."""

import gc
import logging
import signal
from collections.abc import Iterator

import pytest

from tests.errors import LOGGERS, ErrorLines

# Whoever is started in the background of a script has Ctrl-C ignored, and so has whatever it starts: our programs too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def collectable() -> Iterator[None]:
    """Let the garbage collector look at what the tests make, not at twelve thousand tests each time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def error_lines() -> Iterator[ErrorLines]:
    """Keep the ERROR lines of the loggers that tests look at, whatever a test does to the root logger's level."""
    handler = ErrorLines()
    logging.getLogger("grpc").setLevel(logging.WARNING)
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)
    yield handler
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(handler)


@pytest.fixture(autouse=True)
def no_unexpected_errors(request: pytest.FixtureRequest, error_lines: ErrorLines) -> Iterator[None]:
    """Fail on an ERROR line that the test does not expect; `pytest.mark.expects_errors` says which it does."""
    yield
    expected = [pattern for marker in request.node.iter_markers("expects_errors") for pattern in marker.args]
    unexpected = error_lines.unexpected(expected)
    error_lines.lines.clear()
    assert [] == unexpected
