"""
A channel that is made anew when its certificates change, or the addresses behind its name.

grpc's keeps the certificates with which it was made, and looks its name up again only when a connection ends.
"""

import contextlib
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Self, TypeAlias

import grpc

from observability import Certificates
from observability.certificates import Pems
from programs.addresses import Addresses

LOOK_SECONDS = 1.0
"""How often one looks for changes, and how long a new channel may take to connect before one does again."""
WATCHED_SECONDS = 0.5
"""How long grpc may go on looking at a channel that is connected, during which it must not be closed."""

_Current: TypeAlias = tuple[Pems | None, frozenset[str] | None]


class RenewedChannel(grpc.Channel):
    """
    Passes calls on to a channel that `make` returns, and to a new one once the certificates or addresses have changed.

    The new one takes over when it is connected: certificates with which the server and we do not agree, or not yet,
    end no call for as long as the connection lasts that there is. Calls that go on end where they began. Where the
    certificates are the same the two share their connections, as all of grpc's channels of the same options do.
    """

    def __init__(
        self,
        make: Callable[[], grpc.Channel],
        *,
        certificates: Certificates | None = None,
        addresses: Addresses | None = None,
    ) -> None:
        self._certificates = certificates
        self._addresses = addresses
        self._make = make
        pems = self._pems()
        self._channel = make()
        self._callables: weakref.WeakSet[_Callable] = weakref.WeakSet()
        self._changing = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._renew, args=[pems], name="channel-renewal", daemon=True)
        self._thread.start()

    def _pems(self) -> Pems | None:
        return None if self._certificates is None else self._certificates.current()

    def _found(self) -> frozenset[str] | None:
        """Look the name up, which may take seconds."""
        return None if self._addresses is None else self._addresses.current()

    def _current(self) -> _Current:
        """Return what a channel is to be made of."""
        return self._pems(), self._found()

    def _renew(self, pems: Pems | None) -> None:
        used: _Current = pems, self._found()
        while not self._closed.wait(LOOK_SECONDS):
            if (current := self._current()) == used:
                continue
            channel = self._make()
            if self._connects(channel, current):
                self._use(channel)
                used = current
                time.sleep(WATCHED_SECONDS)
            else:
                time.sleep(WATCHED_SECONDS)
                channel.close()

    def _connects(self, channel: grpc.Channel, current: _Current) -> bool:
        """Wait until the channel is connected; return False once there has been another change."""
        ready = grpc.channel_ready_future(channel)
        while current == self._current() and not self._closed.is_set():
            with contextlib.suppress(grpc.FutureTimeoutError):
                ready.result(LOOK_SECONDS)
                return True
        ready.cancel()
        return False

    def _use(self, channel: grpc.Channel) -> None:
        with self._changing:
            # The one before is not closed: grpc does that with the last of its calls.
            self._channel = channel
            for callable_ in self._callables:
                callable_.move(channel)

    def _add(self, *made: Any, **options: Any) -> Any:
        with self._changing:
            callable_ = _Callable(self._channel, *made, **options)
            self._callables.add(callable_)
        return callable_

    def unary_unary(self, *made: Any, **options: Any) -> Any:
        """Return what calls a unary method."""
        return self._add("unary_unary", *made, **options)

    def unary_stream(self, *made: Any, **options: Any) -> Any:
        """Return what calls a server-streaming method."""
        return self._add("unary_stream", *made, **options)

    def stream_unary(self, *made: Any, **options: Any) -> Any:
        """Return what calls a client-streaming method."""
        return self._add("stream_unary", *made, **options)

    def stream_stream(self, *made: Any, **options: Any) -> Any:
        """Return what calls a bidirectional method."""
        return self._add("stream_stream", *made, **options)

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:  # noqa: FBT001, FBT002 - grpc's own signature
        """Call this with the states of the channel that there is now."""
        self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Call it no more."""
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        """Close the channel, and end its calls."""
        self._closed.set()
        self._thread.join()
        self._channel.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close it."""
        self.close()


class _Callable:
    """Calls one method through whichever channel there is."""

    def __init__(self, channel: grpc.Channel, kind: str, *made: Any, **options: Any) -> None:
        self._kind, self._made, self._options = kind, made, options
        self.move(channel)

    def move(self, channel: grpc.Channel) -> None:
        """Make all calls from now on through this channel."""
        self._callable = getattr(channel, self._kind)(*self._made, **self._options)

    def __call__(self, *request: Any, **options: Any) -> Any:
        """Make a call."""
        return self._callable(*request, **options)

    def with_call(self, *request: Any, **options: Any) -> Any:
        """Make a call, and return its response and the call."""
        return self._callable.with_call(*request, **options)

    def future(self, *request: Any, **options: Any) -> Any:
        """Make a call, and return its future."""
        return self._callable.future(*request, **options)
