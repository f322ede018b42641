"""All that is reported of one call, in one piece: what is expected and what was seen are compared at once."""

from collections.abc import Mapping

from grpc import StatusCode

from tests.support.recorder import Side


def report(got: StatusCode | None, sides: Mapping[str, Side], **further: object) -> dict[str, object]:
    """Return the caller's code and what each side reports, by name: a difference then names the signal."""
    signals = {f"{side} {name}": value for side, seen in sides.items() for name, value in seen._asdict().items()}
    return {"code of the caller": got, **signals, **further}
