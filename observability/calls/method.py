"""What is known of a method before it is called, and kept for as many as there should be."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

Type: TypeAlias = Literal["unary", "client_stream", "server_stream", "bidi_stream"]

METHOD_LIMIT: Final = 1000
"""How many methods that nobody declared are known by name; a catch-all handler can make up any number."""


@dataclass(slots=True, eq=False)
class Method:
    """What is known of a method before it is called."""

    service: str
    """The full name of its service, such as echo.v1.EchoService."""
    name: str
    """Its own name, such as Echo."""
    type: Type
    """Its arity."""
    registered: bool
    """Whether the server has a handler for it; a client's methods are always known."""
    full_name: str
    """Its service's and its own name, such as echo.v1.EchoService/Echo."""
    endpoint: str
    """`/` and its own name in kebab-case, such as /echo; `/unknown` for an unknown method."""
    is_infrastructure: bool
    """Whether its calls are neither traced nor logged above DEBUG by default: mostly probes."""
    extensions: dict[object, Any] = field(default_factory=dict)
    """What the signals have made once for it, each under itself."""
    usual_deadline: float | None = None
    """The time in seconds that the last caller gave whose call has come to its handler, or None."""


class MethodRegistry(dict[Any, Method]):
    """What is known of methods, by path; add holds METHOD_LIMIT of them."""

    def add(self, key: Any, method: Method) -> Method:
        """Hold a method, unless there are too many; return it."""
        if len(self) < METHOD_LIMIT:
            self[key] = method
        return method


_TYPES: Final[dict[tuple[bool, bool], Type]] = {
    (False, False): "unary",
    (True, False): "client_stream",
    (False, True): "server_stream",
    (True, True): "bidi_stream",
}
REQUEST_STREAMS: Final = frozenset(type_ for (requests, _), type_ in _TYPES.items() if requests)
"""The arities whose requests are a stream."""
RESPONSE_STREAMS: Final = frozenset(type_ for (_, responses), type_ in _TYPES.items() if responses)
"""The arities whose responses are a stream."""


def arity(*, request_streaming: bool, response_streaming: bool) -> Type:
    """Name the arity of a method by what streams."""
    return _TYPES[bool(request_streaming), bool(response_streaming)]


def method_at(path: str, type_: Type, *, registered: bool = True) -> Method:
    """Split a method path, `/package.Service/Method`; what has no slash is all service."""
    full_name = path.removeprefix("/")
    service, _, name = full_name.rpartition("/")
    if not service:
        service, name = name, ""
    endpoint = f"/{kebab(name)}" if registered else "/unknown"
    return Method(service, name, type_, registered, full_name, endpoint, service.startswith(INFRASTRUCTURE_SERVICES))


def kebab(name: str) -> str:
    """Write a method's name in kebab-case: CallEcho is call-echo, GetHTTPPage is get-http-page."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).replace("_", "-").lower()


INFRASTRUCTURE_SERVICES: Final = ("grpc.health.v1.", "grpc.reflection.")
"""Prefixes of the services whose calls are logged at DEBUG, and not traced: mostly probes."""
