"""What each side must tell of a call that ends with a code."""

from grpc import StatusCode

from .record import Observers, Span

_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}


def _level(code: str) -> str:
    return "info" if code == "OK" else "error" if code in _FAULTS else "warning"


def signals(code: StatusCode | None) -> Observers:
    """Return what log and metrics say: everything once, and nothing of a call that this side never sees."""
    if code is None:
        return Observers(lines=[], started=0, handled={}, observed={}, in_flight=0, running=0)
    name = code.name
    return Observers(
        lines=[(name, _level(name))], started=1, handled={name: 1}, observed={name: 1}, in_flight=0, running=0
    )


def spans(kind: str, code: StatusCode | None, *, error: bool) -> list[Span]:
    """
    Tell what the spans say: one, with a status by the conventions, and with the exception where there is one.

    Every failure is an error of a client's span; of a server's, those are that tell of its own fault.
    """
    if code is None:
        return []
    failed = code.name in _FAULTS if kind == "server" else code is not StatusCode.OK
    return [Span(code.name, "ERROR" if failed else "UNSET", int(error and kind == "server"))]


def everything(kind: str, code: StatusCode | None, *, error: bool = False) -> tuple[Observers, list[Span]]:
    """Return what all signals of one side say."""
    return signals(code), spans(kind, code, error=error)
