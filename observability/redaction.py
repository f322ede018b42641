"""Keeps secrets out of what is logged: headers, keys, and the user information of an address."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HIDDEN: Final = "***"
"""Stands for what is not shown."""
_SHORTEST: Final = 4
"""Characters of a secret that is looked for in other text; a shorter one would be found in any."""
_ANY_USER_INFORMATION: Final = re.compile(r"(?<=//)[^\s/@]*@")


def shown_variable(name: str, value: str) -> str:
    """Return `NAME='value'`, or `NAME=***` where the value may hold a secret."""
    return f"{name}={HIDDEN if _may_hold_a_secret(name, value) else repr(value)}"


def _may_hold_a_secret(name: str, value: str) -> bool:
    if name.endswith("_HEADERS") or "@" in value:
        return True
    if name.endswith("_ENDPOINT"):
        return "?" in value
    # A key, where the path of one is meant, has lines, or is Base64: that has no dot, and of a key no slash at first.
    is_path = value.startswith(("/", "~")) or "." in value
    return name.endswith(("_KEY", "_CERTIFICATE")) and (not is_path or len(value.split()) > 1 or "--" in value)


def shown_address(address: str) -> str:
    """Return an address, with a scheme or without, less its user information, query and fragment."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "", address
    # Up to the last one: a password may hold what ends an authority elsewhere.
    return f"{scheme}{separator}{re.split('[?#]', rest.rpartition('@')[2])[0]}"


def user_information(address: str) -> str:
    """Return the `user:password` of an address, with a scheme or without; empty where it has none."""
    head = address.rpartition("@")[0]
    _scheme, separator, rest = head.partition("://")
    return rest if separator else head


def secrets_of_headers(headers: str) -> Iterator[str]:
    """Yield the secrets of headers in the form of OTEL_EXPORTER_OTLP_HEADERS."""
    for pair in headers.split(","):
        value = pair.partition("=")[2].strip()
        for form in (value, unquote(value)):
            yield form
            yield from form.split()[1:]  # what follows the scheme of an authorization


def secrets_of_address(address: str) -> Iterator[str]:
    """Yield the secrets of an address: its user information, and the password in it."""
    found = user_information(address)
    for form in (found, unquote(found)):
        yield form
        yield form.partition(":")[2]


class Redactor:
    """Replaces secrets that are known in other people's words, and user information that is not."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= _SHORTEST}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        """Return the text without them."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        return _ANY_USER_INFORMATION.sub(f"{HIDDEN}@", text)
