"""URL normalisation and comparison (RFC 3986)."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_ESCAPE: Final = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_RESERVED: Final = ":/?#[]@!$&'()*+,;=%"


def normalized(url: str) -> str:
    """Return a URL in its normal form; one that cannot be parsed is returned unchanged.

    Lower-case scheme and host, no default port, no needless percent-encoding, the rest of it in upper case, and no
    slash at the end of the path. The case of path and query is kept, since servers may be case-sensitive. Source: RFC
    3986, section 6.2.

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
    """Return a URL for a log, without the user name and the query, which may be secrets.

    Args:
        url: Any text.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a URL that cannot be read"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def split_absolute(url: str) -> SplitResult | None:
    """Return the parts of an absolute URL of http or https; None for anything else, an invalid port included."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if usable else None


def origin(url: str) -> str:
    """Return scheme, host and port of a URL; its path, query and user name can be secrets.

    Args:
        url: Any text.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "..."
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a host that is an IP address; None for a name, which must be resolved."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address."""
    address = address_of(host)
    return host == "localhost" if address is None else address.is_loopback


def _encoded(text: str) -> str:
    return _ESCAPE.sub(_escape, quote(text, safe=_RESERVED))


def _escape(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return character if character in _UNRESERVED else found[0].upper()
