"""Waiting for what other programs do in their own time, and can only be asked about."""

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlencode
from urllib.request import urlopen

POLL = 0.25  # seconds

T = TypeVar("T")


def get(url: str, **parameters: str | float) -> Any:
    """Return the JSON that an HTTP server on this machine answers with; OSError when it does not."""
    query = f"?{urlencode(parameters)}" if parameters else ""
    with urlopen(f"{url}{query}", timeout=10) as response:  # noqa: S310 - addresses of the tests' own
        return json.load(response)


def responds(url: str) -> bool:
    """Return whether an HTTP server answers at all, and with a code of success."""
    try:
        with urlopen(url, timeout=10):  # noqa: S310 - as above
            return True
    except OSError:
        return False


def eventually(probe: Callable[[], T], enough: Callable[[T], Any] = bool, timeout: float = 60.0) -> T:
    """
    Ask until the answer is enough, and return it.

    After `timeout` seconds the answer is returned as it is: what is missing shows in it. A server that does
    not answer yet is asked again as well.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            answer = probe()
        except OSError:  # a time limit of the reading included, which is no URLError
            if time.monotonic() > deadline:
                raise
        else:
            if enough(answer) or time.monotonic() > deadline:
                return answer
        time.sleep(POLL)
