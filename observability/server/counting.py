"""The handler that stands before a call's own, and counts the messages that pass through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .call import PARSE_DETAILS, SERIALIZE_DETAILS
from .handler import HandlerProxy

if TYPE_CHECKING:
    import grpc

    from .call import ServerCall


class Unparsed:
    """
    What stands for a call's only request that could not be parsed, until our handler is called with it and refuses it.

    `details` is the text that grpc answers. Where a deserializer raises, grpc.server ends the call by itself, twice,
    and then keeps it for ever.
    """

    __slots__ = ("details",)

    def __init__(self, details: str) -> None:
        self.details = details

    def __repr__(self) -> str:
        return f"<a request that could not be parsed: {self.details}>"


class CountingHandler(HandlerProxy):
    """One call's handler, whose messages are events of its `call`."""

    __slots__ = ("_deserializer", "_serializer", "call")

    def __init__(self, handler: grpc.RpcMethodHandler[Any, Any], call: ServerCall) -> None:
        super().__init__(handler)
        self.call = call

    @property
    def request_streaming(self) -> bool:  # type: ignore[override]  # as in HandlerProxy
        """Whether requests are a stream; the first thing that grpc asks of a call that it does not refuse."""
        self.call.accepted = True
        streaming: bool = self._handler.request_streaming
        return streaming

    @property
    def response_streaming(self) -> bool:  # type: ignore[override]  # as in HandlerProxy
        """Whether responses are a stream."""
        self.call.accepted = True
        streaming: bool = self._handler.response_streaming
        return streaming

    @property
    def request_deserializer(self) -> Any:  # type: ignore[override]  # as in HandlerProxy
        """From bytes to a request, counted."""
        self._deserializer = self._handler.request_deserializer
        return self._deserialize

    @property
    def response_serializer(self) -> Any:  # type: ignore[override]  # as in HandlerProxy
        """From a response to bytes, counted."""
        self._serializer = self._handler.response_serializer
        if self._handler.response_streaming:
            return self._serialize
        self.call.awaits_only_response()
        return self._serialize_only

    def _deserialize(self, data: bytes) -> Any:
        try:
            request = self._deserializer(data) if self._deserializer else data
        except BaseException as error:
            instead = self._reject_request(error)
            if instead is error:
                raise
            return instead
        if request is None and self.call.rules.none_is_error:
            return self._reject_request(None)
        self.call.received += 1
        return request

    def _serialize(self, response: Any) -> Any:
        try:
            data = self._serializer(response) if self._serializer else response
        except BaseException as error:
            if self._reject_response(error):
                raise
            return b""
        if type(data) is bytes or (data is None and not self.call.rules.none_is_error):
            self.call.sent += 1
        elif data is None:
            return None if self._reject_response() else b""
        else:
            self.call.response_lost()
        return data

    def _serialize_only(self, response: Any) -> Any:
        """Serialise a call's only response, with which it ends."""
        sent = self.call.sent
        data = self._serialize(response)
        if self.call.sent > sent and (self.call.answer is not None or self._is_active()):
            self.call.only_response_serialized()
        self._answered()
        return data

    def _reject(self, details: str, error: BaseException | None = None) -> None:
        """Report that a message could not be parsed or serialised, where grpc can still say so."""
        if self._is_active():
            self.call.message_rejected(details, error)

    def _reject_request(self, error: BaseException | None) -> Any:
        """Report that a request could not be parsed; return what grpc gets instead, or this error, to be raised."""
        self._reject(PARSE_DETAILS)
        if self._handler.request_streaming or not (error is None or isinstance(error, Exception)):
            return error
        return Unparsed(self._refusal_of(error))  # not with the error, whose frames would keep the call

    def _reject_response(self, error: BaseException | None = None) -> bool:
        """Report that a response could not be serialised; return whether grpc is to see that."""
        self._reject(SERIALIZE_DETAILS, error)
        return True

    def _refusal_of(self, error: Exception | None) -> str:
        """Return what grpc answers where this is raised for a request, or None is made of it."""
        raise NotImplementedError

    def _is_active(self) -> bool:
        """Whether a status can still be sent."""
        raise NotImplementedError

    def _answered(self) -> None:
        """Be called when the only response has been serialised."""


class ReportingHandler(CountingHandler):
    """One whose messages are reported to the call's observers, too; it goes before another one's class."""

    __slots__ = ()

    def _deserialize(self, data: bytes) -> Any:
        received = self.call.received
        request = super()._deserialize(data)
        if self.call.received > received and type(request) is not Unparsed:  # of another interceptor of ours
            self.call.message_received(request)
        return request

    def _serialize(self, response: Any) -> Any:
        sent = self.call.sent
        data = super()._serialize(response)
        if self.call.sent > sent:
            self.call.message_sent(response)
        return data
