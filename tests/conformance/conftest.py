"""What the conformance tests share."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def quiet_grpc() -> Iterator[None]:
    """
    Let grpc log no exceptions.

    pytest would keep each with its traceback, and so the frames in which grpc holds handlers.
    """
    logger = logging.getLogger("grpc")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)
