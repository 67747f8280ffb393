"""A lenient JSON parser: accepts a byte order mark and lone surrogates, and detects duplicate keys.

pydantic's parser is fast and does none of the three. This one is slower, and is used where that one fails.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

from pydantic_core import from_json

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
"""The byte order mark of UTF-8; a parser may skip it. Source: RFC 8259, section 8.1."""

_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


class _Repeating(dict[str, Any]):
    """A JSON object with a duplicate key; the last value is kept."""


def decoded(text: bytes | str) -> Any:
    """Parse JSON text.

    A byte order mark is skipped. The escape of a lone surrogate becomes that surrogate in a value; in a key the escape
    is kept as letters, since such a key could not be encoded. NaN and the infinities are not JSON.

    Args:
        text: The bytes as received, in UTF-8.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
    raw = raw.removeprefix(BYTE_ORDER_MARK)
    # pydantic's parser validates first: it limits the depth, and rejects constants that are not JSON.
    from_json(_SURROGATE.sub(rb"\\ufffd", raw), allow_inf_nan=False)
    return json.loads(raw.decode(), object_pairs_hook=pairs, parse_constant=no_constant)


def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object from its members: the `object_pairs_hook` of `json.loads`."""
    found = dict(members)
    repeats = len(found) != len(members)
    if not all(map(str.isascii, found)):
        found = {key.encode("utf-8", "backslashreplace").decode(): value for key, value in found.items()}
    return _Repeating(found) if repeats else found


def no_constant(name: str) -> NoReturn:
    """Reject NaN and the infinities: the `parse_constant` hook of `json.loads`.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"{name} is not JSON")


def is_ambiguous(value: object) -> bool:
    """Return whether an object that `decoded` returned has a duplicate key; nested objects are not checked."""
    return isinstance(value, _Repeating)
