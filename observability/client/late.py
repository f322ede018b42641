"""Channels that are observed without their owner's word, and whose observers are known when the first call is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from .aio_channel import AioObservedChannel
from .channel import ObservedChannel
from .start import ClientObserving

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import grpc
    import grpc.aio

    from ..calls.method import Method
    from ..calls.observer import Observer
    from .call import ClientCall

    Find: TypeAlias = Callable[[], Sequence[Observer]]
    """Returns the observers; never raises."""


class _Late(ClientObserving):
    """Asks for its observers at its first call, unless that is suppressed, as an exporter's are."""

    makes_way = True
    _find: Find
    _has_found = False

    def _start(self, method: Method, request: Any, metadata: Any, timeout: float | None) -> tuple[ClientCall, Any]:
        if not self._has_found:
            self._report_to(self._find())
            self._has_found = True
        return super()._start(method, request, metadata, timeout)


class LateChannel(_Late, ObservedChannel):
    """A sync one."""

    def __init__(self, channel: grpc.Channel, find: Find, target: str | None) -> None:
        ObservedChannel.__init__(self, channel, target=target)
        self._find = find

    def around(self, channel: grpc.Channel) -> LateChannel:
        """Return one like this around another channel."""
        return LateChannel(channel, self._find, self._target)


class LateAioChannel(_Late, AioObservedChannel):
    """An asyncio one."""

    def __init__(self, channel: grpc.aio.Channel, find: Find, target: str | None) -> None:
        AioObservedChannel.__init__(self, channel, target=target)
        self._find = find
