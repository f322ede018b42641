"""What each side must report of a call that ends with a code."""

from grpc import StatusCode

from tests.support.recorder import Side, Span

_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}


def _level(code: str) -> str:
    return "info" if code == "OK" else "error" if code in _FAULTS else "warning"


def side(side: str, code: StatusCode | None, *, error: bool = False) -> Side:
    """Return what all signals say: everything once and nothing left in flight, or nothing where there is no code."""
    names = [code.name] if code else []
    once = dict.fromkeys(names, 1)
    return Side(
        lines=[(name, _level(name)) for name in names],
        started=len(names),
        handled=once,
        observed=once,
        in_flight=0,
        running=0,
        spans=spans(side, code, error=error),
    )


def spans(side: str, code: StatusCode | None, *, error: bool) -> list[Span]:
    """
    Return what the spans say: one, with a status by the conventions, and with the exception where there is one.

    Every failure is an error of a client's span; of a server's, those are that report its own fault.
    """
    if code is None:
        return []
    failed = code.name in _FAULTS if side == "server" else code is not StatusCode.OK
    return [Span(code.name, "ERROR" if failed else "UNSET", int(error and side == "server"))]
