"""HTML and SVG, built from parts so that whatever is text is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Final, NewType

Markup = NewType("Markup", str)
"""Text that a browser may read as HTML or SVG; everything else goes through `escaped`."""

_UNPRINTABLE: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""What a page cannot hold, or what makes text read in another order than it stands there."""

_EMPTY: Final = frozenset({"meta", "link", "line", "rect", "circle", "path"})


def escaped(text: str) -> Markup:
    """Return text that stands for itself, between tags and in attributes; what cannot be shown becomes U+FFFD."""
    return Markup(html.escape(_UNPRINTABLE.sub("\ufffd", text), quote=True))


def tag(name: str, attributes: Mapping[str, str | float | None] | None = None, *children: Markup) -> Markup:
    """Return an element.

    Args:
        name: Of ours, never from outside, as the names of the attributes.
        attributes: Their values are escaped, numbers written short; None leaves one out.
        children: What stands in it.
    """
    given = "".join(
        f' {key}="{escaped(value if isinstance(value, str) else f"{value:.6g}")}"'
        for key, value in (attributes or {}).items()
        if value is not None
    )
    if name in _EMPTY:
        return Markup(f"<{name}{given}/>")
    return Markup(f"<{name}{given}>{''.join(children)}</{name}>")


def joined(*parts: Markup, by: str = "") -> Markup:
    """Return parts one after the other."""
    return Markup(by.join(parts))
