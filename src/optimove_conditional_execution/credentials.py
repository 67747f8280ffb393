"""API keys, webhook secrets and listener tokens: values with a masked repr, and checks for copy-and-paste mistakes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, final

from pydantic import SecretBytes, SecretStr

Secret = str | bytes | SecretStr | SecretBytes

HIDDEN: Final = (SecretStr, SecretBytes)
"""For `isinstance`, which would build a union anew each time."""

CopyMistake = Literal[
    "secret-white-space",
    "secret-byte-order-mark",
    "secret-invisible-character",
    "secret-quotation-marks",
    "secret-variable-name",
    "several-secrets",
]


def revealed(secret: object) -> object:
    """Return what a `SecretStr` or `SecretBytes` holds; anything else as it is."""
    return secret.get_secret_value() if isinstance(secret, HIDDEN) else secret


@final
@dataclass(frozen=True, slots=True)
class CopiedWrong:
    """A copy-and-paste mistake in a secret.

    Attributes:
        mistake: A name for programs.
        what: What a secret with it does, such as "begins or ends with white space".
        remedy: How to correct it, in the imperative.
        meant: The secret without the mistake; several candidates when it is ambiguous.
    """

    mistake: CopyMistake
    what: str
    remedy: str
    meant: tuple[bytes, ...] = field(repr=False)


_BYTE_ORDER_MARK: Final = "\ufeff"
# No-break, figure and narrow no-break space; zero-width space, non-joiner, joiner and word joiner; directional marks;
# soft hyphen.
_INVISIBLE: Final = "\u00a0\u2007\u202f\u200b\u200c\u200d\u2060\u200e\u200f\u00ad"
_PLAIN_QUOTES: Final = "\"'`"
_TYPOGRAPHIC_QUOTES: Final = "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u00ab\u00bb\u2039\u203a"
# The name of an environment variable: the end of base64 has an equals sign too, but nothing behind it.
_NAME: Final = re.compile(r"(?:export\s+|set\s+|\$env:)?[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\s*=\s*(?=[^=\s])", re.IGNORECASE)
_JOINT: Final = re.compile(r"\s*[,;]\s*")
_SHORTEST_OF_SEVERAL: Final = 4
"""Characters; a single secret may hold a comma as well."""


def copied_wrong(secret: bytes) -> Iterator[CopiedWrong]:
    """Yield the likely copy-and-paste mistakes in a secret, a key or a token. They name the kind of mistake only.

    Args:
        secret: As it is configured.
    """
    text = secret.decode("utf-8", "surrogateescape")
    bare = text.strip()
    if _BYTE_ORDER_MARK in text:
        yield _mistake(
            "secret-byte-order-mark",
            "holds a byte order mark, which some editors put before the text of a file",
            "save the file as UTF-8 without a mark",
            text.replace(_BYTE_ORDER_MARK, ""),
        )
    if any(character in text for character in _INVISIBLE):
        yield _mistake(
            "secret-invisible-character",
            "holds a no-break space, a zero-width space or another invisible character, as copies from web "
            "pages and chats do",
            "type it, or copy it as plain text",
            "".join(character for character in text if character not in _INVISIBLE),
        )
    elif text != bare:
        yield _mistake(
            "secret-white-space",
            "begins or ends with white space or a line break",
            "strip it, if it came from a file",
            bare,
        )
    # Invisible characters may precede visible ones.
    visible = text.translate(dict.fromkeys(map(ord, _BYTE_ORDER_MARK + _INVISIBLE))).strip()
    named = _NAME.match(visible)
    if named is not None:
        visible = visible[named.end() :]
        yield _mistake(
            "secret-variable-name",
            "begins with the name of a variable and an equals sign",
            "leave the name away",
            visible,
            visible.strip(_PLAIN_QUOTES + _TYPOGRAPHIC_QUOTES),
        )
    quotes = _PLAIN_QUOTES + _TYPOGRAPHIC_QUOTES
    is_quoted = len(visible) > 1 and visible[0] == visible[-1] and visible[0] in _PLAIN_QUOTES
    if is_quoted or visible[:1] in tuple(_TYPOGRAPHIC_QUOTES) or visible[-1:] in tuple(_TYPOGRAPHIC_QUOTES):
        yield _mistake(
            "secret-quotation-marks",
            "begins or ends with a quotation mark",
            "leave the marks away, unless they are part of it",
            visible.strip(quotes),
        )
    parts = [part for part in _JOINT.split(visible.strip(quotes)) if part]
    if len(parts) > 1 and all(len(part) >= _SHORTEST_OF_SEVERAL for part in parts):
        yield _mistake(
            "several-secrets",
            "holds a comma or a semicolon: two secrets in one text are neither",
            "give each by itself, unless the mark is part of it",
            *parts,
        )


def _mistake(mistake: CopyMistake, what: str, remedy: str, *meant: str) -> CopiedWrong:
    readings = dict.fromkeys(reading for text in meant for reading in (text, text.strip()))
    return CopiedWrong(mistake, what, remedy, tuple(text.encode("utf-8", "surrogateescape") for text in readings))
