"""grpc's functions that make servers and channels, and what is called in their place."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from ..calls.observation import Observing
from ..client.channel_proxy import chosen_channel
from ..client.late import LateAioChannel, LateChannel
from ..server.hide_exceptions import AioHideExceptions, HideExceptions
from ..telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .source import Source

    Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def _has_ours(interceptors: Any) -> bool:
    return any(isinstance(each, Observing) for each in interceptors)


def _changed(
    place: int, args: tuple[Any, ...], kwargs: dict[str, Any], change: Callable[[list[Any]], list[Any]]
) -> Arguments:
    """Return these arguments with other interceptors, which are at this place or named."""
    if len(args) > place:
        return (*args[:place], change([*(args[place] or ())]), *args[place + 1 :]), kwargs
    return args, {**kwargs, "interceptors": change([*(kwargs.get("interceptors") or ())])}


def _server(
    ours: Callable[[Telemetry], list[Any]], source: Source, original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Make a server with our interceptors: first, behind those that hide exceptions alone."""

    def with_ours(given: list[Any]) -> list[Any]:
        telemetry = None if _has_ours(given) else source.telemetry()
        if telemetry is None:
            return given
        hiding = 0
        while hiding < len(given) and isinstance(given[hiding], HideExceptions | AioHideExceptions):
            hiding += 1
        return [*given[:hiding], *ours(telemetry), *given[hiding:]]

    args, kwargs = _changed(2, args, kwargs, with_ours)
    return original(*args, **kwargs)


def _target(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs.get("target")


def _channel(source: Source, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Make a channel that is observed."""
    return LateChannel(original(*args, **kwargs), source.observers, _target(args, kwargs))


def _aio_channel(place: int, source: Source, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Do the same on asyncio, unless it is made with interceptors of ours."""
    has_ours = False

    def look(given: list[Any]) -> list[Any]:
        nonlocal has_ours
        has_ours = _has_ours(given)
        return given

    args, kwargs = _changed(place, args, kwargs, look)
    channel = original(*args, **kwargs)
    return channel if has_ours else LateAioChannel(channel, source.observers, _target(args, kwargs))


def _intercept_channel(_source: Source, original: Callable[..., Any], channel: Any, *interceptors: Any) -> Any:
    """Put other people's interceptors inside of ours, and leave a channel to one of ours that is given by hand."""
    intercepted = original(chosen_channel(channel), *interceptors)
    if not isinstance(channel, LateChannel) or _has_ours(interceptors):
        return intercepted
    return channel.around(intercepted)


_FUNCTIONS: Final[tuple[tuple[Any, str, Callable[..., Any]], ...]] = (
    (grpc, "server", functools.partial(_server, Telemetry.server_interceptors)),
    (grpc, "insecure_channel", _channel),
    (grpc, "secure_channel", _channel),
    (grpc, "intercept_channel", _intercept_channel),
    (grpc.aio, "server", functools.partial(_server, Telemetry.aio_server_interceptors)),
    (grpc.aio, "insecure_channel", functools.partial(_aio_channel, 3)),
    (grpc.aio, "secure_channel", functools.partial(_aio_channel, 4)),
)


class _Replacement:
    """One of grpc's functions, replaced until it is restored."""

    def __init__(self, module: Any, name: str, make: Callable[..., Any], source: Source) -> None:
        self._module = module
        self._name = name
        self._original = original = getattr(module, name)
        self._is_active = True

        @functools.wraps(original)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            return make(source, original, *args, **kwargs) if self._is_active else original(*args, **kwargs)

        self._replacement = replacement
        setattr(module, name, replacement)

    def restore(self) -> bool:
        """
        Restore the function; return whether that is done.

        Where somebody else has replaced it since, theirs stays, and ours inside of it does nothing.
        """
        self._is_active = False
        if getattr(self._module, self._name) is not self._replacement:
            return False
        setattr(self._module, self._name, self._original)
        return True


class Functions:
    """All of these functions together."""

    def __init__(self) -> None:
        self._source: Source | None = None
        self._replacements: list[_Replacement] = []

    @property
    def are_replaced(self) -> bool:
        """Whether what they make is observed."""
        return self._source is not None

    def replace(self, source: Source) -> None:
        """Let what they make report to this from now on."""
        self._source = source
        self._replacements += [_Replacement(*function, source) for function in _FUNCTIONS]

    def restore(self) -> None:
        """Leave them as they were, as far as nobody else has replaced them since."""
        self._source = None
        self._replacements = [each for each in self._replacements[::-1] if not each.restore()][::-1]

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Leave them as they were for a while, and replace them again."""
        source = self._source
        self.restore()
        try:
            yield
        finally:
            self.restore()  # what others had replaced until now
            if source is not None:
                self.replace(source)
