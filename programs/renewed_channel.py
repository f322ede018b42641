"""A channel that is made anew when its certificates change: grpc's keeps those with which it was made."""

import contextlib
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Self

import grpc

from observability import Certificates

LOOK_SECONDS = 1.0
"""How often the files are looked at, and how long a new channel may take to connect before they are again."""
WATCHED_SECONDS = 0.5
"""How long grpc may go on looking at a channel that is connected, during which it must not be closed."""


class RenewedChannel(grpc.Channel):
    """
    Passes calls on to a channel that `make` returns, and to a new one once the certificates have changed.

    The new one takes over when it is connected: certificates with which the server and we do not agree, or not yet,
    end no call for as long as the connection lasts that there is. Calls that go on end where they began.
    """

    def __init__(self, certificates: Certificates, make: Callable[[], grpc.Channel]) -> None:
        self._certificates = certificates
        self._make = make
        self._used = certificates.current()
        self._channel = make()
        self._callables: weakref.WeakSet[_Callable] = weakref.WeakSet()
        self._changing = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="certificates", daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            if (pems := self._certificates.current()) is self._used:
                continue
            channel = self._make()
            if self._connects(channel):
                self._use(channel)
                self._used = pems
                time.sleep(WATCHED_SECONDS)
            else:
                time.sleep(WATCHED_SECONDS)
                channel.close()

    def _connects(self, channel: grpc.Channel) -> bool:
        """Wait until the channel is connected; return False once the certificates have changed again."""
        pems = self._certificates.current()
        ready = grpc.channel_ready_future(channel)
        while pems is self._certificates.current() and not self._closed.is_set():
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
