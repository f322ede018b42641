"""What HideExceptions and AioHideExceptions answer: at once, and with nothing of the handler's own."""

import time
from typing import Any

import grpc
import pytest

from tests.support.recorder import PATIENCE

from .cases import BY_NAME
from .clients import requests, stub
from .play import staged
from .stage import Stage
from .vocabulary import ARITIES, Arity, Case, Way, requests_stream, responses_stream
from .ways import SERVERS

RAISING = [BY_NAME["exception_hidden"], BY_NAME["exit"], BY_NAME["own_cancellation"]]
AT_ONCE = 5.0
"""Seconds within which an answer has come at once, on a busy machine; the call's own deadline is later."""


def _ask(method: Any, stage: Stage) -> None:
    request = requests(stage) if requests_stream(stage.way.arity) else stage.case.messages.request
    answer = method(request, timeout=PATIENCE)  # so that a caller who is left waiting fails, and does not hang
    if responses_stream(stage.way.arity):
        list(answer)


@pytest.mark.parametrize("arity", ARITIES)
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("case", RAISING, ids=str)
def test_answer(case: Case, server: str, arity: Arity) -> None:
    """An exception, a SystemExit and a CancelledError of the handler's own are `internal error`, and that at once."""
    with staged(case, Way(arity, server, "call")) as stage, grpc.insecure_channel(stage.address) as channel:
        before = time.monotonic()
        with pytest.raises(grpc.RpcError) as raised:
            _ask(stub(channel, stage), stage)
        error: Any = raised.value

        assert (grpc.StatusCode.UNKNOWN, "internal error") == (error.code(), error.details())
        assert time.monotonic() - before < AT_ONCE
