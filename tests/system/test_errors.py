"""What a test fails on: errors in what services, examples and clients write that it has started."""

import re
import subprocess
import sys
from typing import IO, cast

import pytest

from client.processes import ROOT, environment
from tests.support import python
from tests.support.outputs import errors_of_processes, look_at, outputs

LOGGING = """
import logging
from observability import Telemetry
telemetry = Telemetry.start("words", serve_metrics=False)
logging.getLogger("grpc._server").error("Exception calling callback!")
logging.getLogger("observability").critical("a deferred end of a call failed")
logging.getLogger("grpc").warning("no error")
logging.getLogger("words").error("its own")
telemetry.close()
"""
PRINTING = """
import traceback
print("all is well")
try:
    raise ValueError("no bread")
except ValueError:
    traceback.print_exc()
print("all is well")
raise ExceptionGroup("two", [ValueError("one"), KeyError("other")])
"""


@pytest.mark.parametrize("log_format", ["keyvalue", "json"])
def test_lines(log_format: str) -> None:
    """Lines from ERROR on of the loggers that a test looks at in its own process, too."""
    variables = {"OTEL_TRACES_EXPORTER": "none", "LOG_FORMAT": log_format}
    look_at(python.run("-c", LOGGING, variables=variables).stdout)
    found = errors_of_processes()

    names = re.findall(r"(?<=logger)[=:\" ]+([\w.]+)", "\n".join(found))

    assert ["grpc._server", "observability"] == names
    assert [] == errors_of_processes()


def test_tracebacks() -> None:
    """Tracebacks, by the lines with which they end."""
    look_at(python.run("-c", PRINTING).stderr)

    assert [
        "printed: ValueError: no bread",
        "printed: ExceptionGroup: two (2 sub-exceptions)",
    ] == errors_of_processes()


def test_process_that_goes_on() -> None:
    """A process that goes on is looked at after each test, and for the last time when it has ended."""
    program = "print('Exception ignored in: <x>', 'ValueError: no bread', sep='\\n', flush=True)\ninput()\nx"
    with python.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        stdout, _ = outputs(process)
        stdout.wait_for("no bread")
        at_first = errors_of_processes()
        again = errors_of_processes()
        print(file=cast("IO[str]", process.stdin), flush=True)
        process.wait(10)
    at_last = errors_of_processes()

    assert ["printed: ValueError: no bread"] == at_first
    assert [] == again
    assert ["printed: NameError: name 'x' is not defined"] == at_last
