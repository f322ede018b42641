"""The gate, with an observer of its own: the messages of chosen methods in the log, without what is marked secret."""

import contextlib
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import structlog
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from examples.gate import Gate
from observability import Call, HideExceptions, LifecycleObserver, Outcome, Telemetry, serve
from protos.echo_pb2_grpc import add_HealthServiceServicer_to_server

Line = dict[str, Any]


class LogPayloads(LifecycleObserver):
    """
    Logs each message of these methods, full names such as shop.v1.Orders/Get, as a line of this structlog logger.

    A field whose option `debug_redact` is set is shown by its name alone, so is what is in a google.protobuf.Any; and
    of each message `limit` characters are, at most. Nothing else is left out: name methods whose messages may be read
    by all who read the log, and no others.
    """

    def __init__(self, logger: Any, methods: Collection[str], *, limit: int = 1024) -> None:
        self._logger = logger
        self._methods = frozenset(methods)
        self._limit = limit

    def on_start(self, call: Call) -> list[Line] | None:
        """Return the lines of a chosen method's call that wait, or None for any other call."""
        return [] if f"{call.service}/{call.method}" in self._methods else None

    def on_message_received(self, call: Call, state: list[Line] | None, message: Any) -> None:
        """Log a message."""
        self._log(call, state, "received", call.received, message)

    def on_message_sent(self, call: Call, state: list[Line] | None, message: Any) -> None:
        """Log a message."""
        self._log(call, state, "sent", call.sent, message)

    def on_handler_start(self, call: Call, state: list[Line] | None) -> None:
        """Log what has waited for the span, which a server's call has from now on."""
        self._write(call, state)

    def on_end(self, call: Call, state: list[Line] | None, _outcome: Outcome) -> None:
        """Log what has waited in vain."""
        self._write(call, state)

    def _log(self, call: Call, state: list[Line] | None, direction: str, number: int, message: Any) -> None:
        if state is not None:
            # At once: the message is the application's, which may change it.
            state.append({"direction": direction, "number": number, "message": text_of(message, self._limit)})
            if call.kind == "client" or call.queue_seconds is not None:
                self._write(call, state)

    def _write(self, call: Call, state: list[Line] | None) -> None:
        while state:
            line = state.pop(0)
            # Not span_id: a line that is logged in a handler has that of the call that is served.
            more = {"kind": call.kind, "method": f"{call.service}/{call.method}", "call_span_id": call.span_id}
            self._logger.info("payload", **more, **line)


class _FullError(Exception):
    """There is no room for more."""


def text_of(message: Any, limit: int) -> str:
    """
    Return a message in protobuf's text format, on one line, in `limit` characters at most; more ends in `…`.

    What is no protobuf message is shown by its type alone, bytes by their number.
    """
    if not isinstance(message, Message):
        return f"<{type(message).__qualname__}>"
    parts: list[str] = []
    room = limit

    def add(text: str) -> None:
        nonlocal room
        parts.append(text)
        room -= len(text)
        if room < 0:
            raise _FullError

    with contextlib.suppress(_FullError):
        _write_fields(message, add, limit)
    text = "".join(parts)
    return text.rstrip() if len(text) <= limit else text[: limit - 1] + "…"


def _write_fields(message: Message, add: Callable[[str], None], limit: int) -> None:
    if message.DESCRIPTOR.full_name == "google.protobuf.Any":
        add(f"[{getattr(message, 'type_url', '')[:limit]}] ")  # what is in it may be anything
        return
    for field, value in message.ListFields():
        name = f"[{field.full_name}]" if field.is_extension else field.name
        if field.GetOptions().debug_redact:
            add(f"{name}: [REDACTED] ")
            continue
        for each, of in _values(field, value):
            if isinstance(each, Message):
                add(f"{name} {{ ")
                _write_fields(each, add, limit)
                add("} ")
            else:
                add(f"{name}: {_scalar(of, each, limit)} ")


def _values(field: FieldDescriptor, value: Any) -> Iterator[tuple[Any, FieldDescriptor]]:
    """Yield the values of a field, each with the field that it is of: an entry of a map has two."""
    if isinstance(value, Mapping) and field.message_type is not None:
        entry = field.message_type.fields_by_name
        for key, each in value.items():
            yield key, entry["key"]
            yield each, entry["value"]
    elif isinstance(value, Message | str | bytes | int | float):
        yield value, field
    else:
        for each in value:
            yield each, field


def _scalar(field: FieldDescriptor, value: Any, limit: int) -> str:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, str):
        return json.dumps(value[: limit + 1])
    if field.enum_type is not None and value in field.enum_type.values_by_number:
        number = field.enum_type.values_by_number[value]
        return "[REDACTED]" if number.GetOptions().debug_redact else str(number.name)
    return str(value)


def main(address: str, behind: str) -> int:
    """Serve on `address`; the service behind is at `behind`."""
    payloads = LogPayloads(structlog.get_logger(), ["echo.v1.HealthService/Check"])
    telemetry = Telemetry.start("gate", metrics_port=9466, observers=[payloads])
    channel = telemetry.intercept_channel(grpc.insecure_channel(behind), target=behind)
    server = grpc.server(ThreadPoolExecutor(8), interceptors=[HideExceptions(), *telemetry.server_interceptors()])
    add_HealthServiceServicer_to_server(Gate(channel), server)
    return serve(server, address, telemetry)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
