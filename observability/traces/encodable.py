"""Spans as OTLP can carry them: a lone surrogate is no text there, and a number has 64 bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from ..calls.values import safe_str

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_SMALLEST: Final = -(2**63)
_LARGEST: Final = 2**63 - 1


def encodable(span: ReadableSpan) -> ReadableSpan:
    """
    Return the span, or what reads like it where something in it cannot be encoded.

    In names, keys, values, events, links, the status, the scope and the resource, a lone surrogate becomes U+FFFD, and
    a number that is too large becomes text. OpenTelemetry's encoder drops such an attribute, and fails for such a name.
    """
    changed = {}
    for name, change in _CHANGES.items():
        old = getattr(span, name)
        if (new := change(old)) is not old:
            changed[name] = new
    return cast("ReadableSpan", _Replaced(span, changed)) if changed else span


class _Replaced:
    """Reads like another object, but for some attributes."""

    def __init__(self, original: Any, replaced: Mapping[str, Any]) -> None:
        self._original = original
        vars(self).update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


def _with_values(original: Any, *names: str) -> Any:
    changed = {name: new for name in names if (new := _value(old := getattr(original, name))) is not old}
    return _Replaced(original, changed) if changed else original


def _each(change: Callable[[Any], Any]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    def change_each(items: Sequence[Any]) -> Sequence[Any]:
        changed = [change(item) for item in items]
        return items if all(new is old for new, old in zip(changed, items, strict=True)) else changed

    return change_each


def _resource(resource: Resource) -> Resource:
    attributes = _value(resource.attributes)
    return resource if attributes is resource.attributes else Resource(attributes, resource.schema_url)


def _scope(scope: InstrumentationScope | None) -> InstrumentationScope | None:
    if scope is None:
        return None
    old = (scope.name, scope.version, scope.schema_url, scope.attributes)
    new = _value(old)
    return scope if new is old else InstrumentationScope(*new)


def _value(value: Any) -> Any:
    """Return a value itself where it can be encoded as it is, else what stands for it."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int) and not _SMALLEST <= value <= _LARGEST:
        return safe_str(value)
    if isinstance(value, Mapping):
        pairs = [(key, item, _value(key), _value(item)) for key, item in value.items()]
        same = all(key is new_key and item is new_item for key, item, new_key, new_item in pairs)
        return value if same else {key: item for _, _, key, item in pairs}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return _each(_value)(value)
    return value


def _text(text: str) -> str:
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # By way of UTF-16 two surrogates that belong together become the character that they mean.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


_CHANGES: Final[dict[str, Callable[[Any], Any]]] = {
    "name": _value,
    "attributes": _value,
    "events": _each(lambda event: _with_values(event, "name", "attributes")),
    "links": _each(lambda link: _with_values(link, "attributes")),
    "status": lambda status: _with_values(status, "description"),
    "resource": _resource,
    "instrumentation_scope": _scope,
}
