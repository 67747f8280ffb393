"""What is wrong with a text that somebody has copied, and which hosts Optimove can reach."""

from __future__ import annotations

import ipaddress
from typing import Final

_QUOTES: Final = "\"'`\u2018\u2019\u201c\u201d"


def is_quoted(text: str) -> bool:
    """Whether a quotation mark stands at either end."""
    bare = text.strip()
    return bool(bare) and (bare[0] in _QUOTES or bare[-1] in _QUOTES)


def is_address(host: str) -> bool:
    """Whether a host needs no look-up."""
    return _address(host) is not None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def is_public(host: str) -> bool:
    """Whether the internet may reach a host: neither a private address nor a name without a dot."""
    address = _address(host)
    return "." in host.rstrip(".") if address is None else address.is_global


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
