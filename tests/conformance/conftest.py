"""What the conformance tests share."""

from pathlib import Path

import pytest

# What the cases' handlers and messages raise, and what grpc.aio says of a message that is too large to send.
CAUSED = r"\[\w*Error: .*(secret|too late|unparseable|unserialisable|as asked)|ExecuteBatchError raised in core"
# What grpc says of trailing metadata, a text, an answer and a compression that it does not even take.
REFUSED = (
    r"\[TypeError: (Binary metadata key|Invalid trailing metadata type|Expected bytes, got int|Expected str, not)"
    r"|\[TypeError: (Argument 'message' has incorrect type|unhashable type)|\[UnicodeEncodeError: |\[KeyError: 'gzip'"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect of every conformance test what its cases cause, and nothing else."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.expects_errors(CAUSED, REFUSED))
