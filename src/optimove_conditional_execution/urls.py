"""URLs as RFC 3986 compares them: two ways to write one address are equal."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_ESCAPE: Final = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_RESERVED: Final = ":/?#[]@!$&'()*+,;=%"


def normalized(url: str) -> str:
    """Return a URL in its normal form; one that cannot be read comes back as it is.

    Lower-case scheme and host, no default port, no needless percent-encoding, the rest of it in upper case, and no
    slash at the end of the path. The case of path and query stays, since servers tell it apart. Source: RFC 3986,
    section 6.2.

    Args:
        url: An absolute URL.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        rest = [_encoded(part) for part in (parts.path.removesuffix("/"), parts.query, parts.fragment)]
    except ValueError:
        return url
    user, at, _ = parts.netloc.rpartition("@")
    if ":" in host:
        host = f"[{host}]"
    if port is not None and port != _DEFAULT_PORTS.get(parts.scheme):
        host = f"{host}:{port}"
    return urlunsplit((parts.scheme, f"{user}{at}{host}", *rest))


def without_query(url: str) -> str:
    """Return a URL for a log: neither the user name nor the query, which may be secrets.

    Args:
        url: Any text.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a URL that cannot be read"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself.

    Args:
        host: A name or an address, without brackets.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _encoded(text: str) -> str:
    return _ESCAPE.sub(_escape, quote(text, safe=_RESERVED))


def _escape(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return character if character in _UNRESERVED else found[0].upper()
