"""How many messages each side has sent and received, on every way to make and to serve a call."""

import pytest

from .cases import AGREED, Way, requests_stream, responses_stream, ways
from .play import play


@pytest.mark.parametrize("way", list(ways(AGREED[0])), ids="-".join)
def test_messages(way: Way) -> None:
    """A side has sent what it handed to grpc, and received what it was handed; a unary message counts as one."""
    requests = 2 if requests_stream(way.arity) else 1
    responses = 2 if responses_stream(way.arity) else 1
    record = play(AGREED[0], way).record

    assert {"client": (requests, responses), "server": (responses, requests)} == {
        kind: record.messages(kind) for kind in ("client", "server")
    }
