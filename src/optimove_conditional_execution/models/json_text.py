"""JSON as it really comes: with a byte order mark in front, with half of a surrogate pair in it, with a key twice.

pydantic's reader is fast and takes none of the three. This one is slower, and is asked where that one gives up.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

from pydantic_core import from_json

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
"""UTF-8's; a reader may skip it. Source: RFC 8259, section 8.1."""

_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


class _Repeating(dict[str, Any]):
    """A JSON object in which a key came twice; the last value stands."""


def decoded(text: bytes | str) -> Any:
    """Return the value of a JSON text.

    A byte order mark is skipped. The escape of half a surrogate pair is kept as it came in a value; in a key it is kept
    as letters, since such a key is no text that anything else could write. NaN and the infinities are no JSON.

    Args:
        text: The bytes as received, in UTF-8.

    Raises:
        ValueError: It is no JSON, or nested too deeply.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
    raw = raw.removeprefix(BYTE_ORDER_MARK)
    # pydantic's reader says what is JSON: it bounds the depth, and takes no constant that JSON does not have.
    from_json(_SURROGATE.sub(rb"\\ufffd", raw), allow_inf_nan=False)
    return json.loads(raw.decode(), object_pairs_hook=pairs, parse_constant=no_constant)


def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object of its members, as a hook of the standard library's reader."""
    found = dict(members)
    repeats = len(found) != len(members)
    if not all(map(str.isascii, found)):
        found = {key.encode("utf-8", "backslashreplace").decode(): value for key, value in found.items()}
    return _Repeating(found) if repeats else found


def no_constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities, as a hook of the standard library's reader.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"{name} is no JSON")


def is_ambiguous(value: object) -> bool:
    """Return whether a key came twice in an object that `decoded` returned; objects inside of it are not looked at."""
    return isinstance(value, _Repeating)
