"""URLs among the command's options."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import click


def checked_urls(_: click.Context, __: click.Parameter, urls: Sequence[str]) -> Sequence[str]:
    """Refuse a URL that is not absolute."""
    for url in urls:
        refuse_relative(url)
    return urls


def checked_url(_: click.Context, __: click.Parameter, url: str | None) -> str | None:
    """Refuse a URL that is not absolute."""
    if url is not None:
        refuse_relative(url)
    return url


def refuse_relative(url: str) -> None:
    """Refuse a URL that is not absolute.

    Raises:
        BadParameter: It is not.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise click.BadParameter("give an absolute URL, such as http://127.0.0.1:8000/optimove")


def required_url(_: click.Context, __: click.Parameter, url: str) -> str:
    """Refuse a URL that is not absolute."""
    refuse_relative(url)
    return url
