"""Settings of the package's tests, and the log that some of them write to."""

import gc
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from client.lines import fields
from observability.logs.setup import LineHandler, configure_logging
from observability.logs.writer import LogWriter

# Beside other tests on a busy machine, time says nothing; and nothing is left behind in the working tree.
settings.register_profile("package", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("package")


class Log:
    """What the process logs from DEBUG on, while structlog and `logging` are configured as Telemetry does it."""

    def __init__(self, path: Path, writer: LogWriter) -> None:
        self._path = path
        self._writer = writer

    @property
    def text(self) -> str:
        """All lines so far."""
        self._writer.flush()
        return self._path.read_text("utf-8")

    def lines(self, **wanted: str) -> list[dict[str, str]]:
        """Return the fields of the lines that have these fields."""
        lines = [fields(line) for line in self.text.splitlines()]
        return [line for line in lines if wanted.items() <= line.items()]


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Leave cycles uncollected."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """Log to a file, as service A, until the test's end."""
    root = logging.getLogger()
    level = root.level
    path = tmp_path / "log"
    with path.open("w") as stream:
        writer = configure_logging("A", log_format="keyvalue", level="debug", stream=stream)
        yield Log(path, writer)
        writer.flush()
        structlog.reset_defaults()
        root.setLevel(level)
        for handler in root.handlers[:]:
            if isinstance(handler, LineHandler):
                root.removeHandler(handler)
