"""What is wrong with a text that was copied, and which hosts Optimove can reach."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

from optimove_conditional_execution.cli.doctor.check import Issue
from optimove_conditional_execution.credentials import copied_wrong

_QUOTES: Final = "\"'`\u2018\u2019\u201c\u201d"


def is_quoted(text: str) -> bool:
    """Whether a quotation mark stands at either end."""
    bare = text.strip()
    return bool(bare) and (bare[0] in _QUOTES or bare[-1] in _QUOTES)


def copy_issues(name: str, secret: bytes, kind: str) -> Iterator[Issue]:
    """Yield what looks copied wrong about a secret or a token.

    Args:
        name: The variable.
        secret: Its value.
        kind: What it holds, in a word.
    """
    again = f"Set {name} to the {kind} alone"
    found = list(copied_wrong(secret))
    for each in found:
        # A comma or a quotation mark can be part of a secret; what nobody sees, or a variable's name, cannot.
        yield Issue(
            "warning" if each.mistake == "several-secrets" else "problem",
            f"{name} {each.what}, which counts as part of the {kind}.",
            f"{again}: {each.remedy}.",
        )
    is_told = any(each.mistake == "secret-quotation-marks" for each in found)
    if is_quoted(secret.decode("utf-8", "replace")) and not is_told:
        yield Issue(
            "problem",
            f"{name} begins or ends with a quotation mark, which counts as part of the {kind}.",
            f"{again}, unless the mark is part of it.",
        )


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
