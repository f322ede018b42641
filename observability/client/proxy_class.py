"""The classes of what stands for a sync call: one for each class of calls."""

from __future__ import annotations

import types
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import grpc

if TYPE_CHECKING:
    from .call_proxy import CallProxy

CALLS: Final = (grpc.RpcError, grpc.RpcContext, grpc.Future)


@lru_cache(maxsize=256)
def class_of(kind: type[CallProxy], type_: type) -> type[CallProxy]:
    """
    Return the class of what stands for calls of a class: one of its subclasses, under its name.

    People catch grpc's private classes, log their names and look at how others' differ. All that the class has, the
    call itself does. What is no call is stood for by the mere `kind`.
    """
    if issubclass(type_, kind):
        return type_  # ours stands inside ours
    if not issubclass(type_, CALLS):
        return kind
    names = [name for name in set(dir(type_)).difference(dir(kind), dir(BaseException)) if not name.startswith("__")]
    members = {
        "__module__": type_.__module__,
        "__qualname__": type_.__qualname__,
        "__doc__": type_.__doc__,
        **{name: _passed_on(name, is_method=callable(getattr(type_, name, None))) for name in names},
    }
    try:
        made = types.new_class(type_.__name__, (kind, type_), exec_body=lambda namespace: namespace.update(members))
        made(None, None)
    except Exception:  # noqa: BLE001 - a class may forbid subclasses, or be made of something else than Python
        return kind
    return made


def _passed_on(name: str, *, is_method: bool) -> Any:
    """
    Make what passes a method, or any other attribute, on to the call.

    Generated, since the names are those of somebody's class: what that class has comes before __getattr__.
    """

    def get(self: CallProxy) -> Any:
        return getattr(self._observed, name)

    def put(self: CallProxy, value: Any) -> None:
        setattr(self._observed, name, value)

    def method(self: CallProxy, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._observed, name)(*args, **kwargs)

    method.__name__ = name
    return method if is_method else property(get, put)
