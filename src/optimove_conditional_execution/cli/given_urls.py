"""Checks of URLs among the command's options."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..urls import split_absolute


def checked_urls(_: click.Context, __: click.Parameter, urls: Sequence[str]) -> Sequence[str]:
    """Reject a URL that is not absolute."""
    for url in urls:
        if split_absolute(url) is None:
            raise click.BadParameter("give an absolute URL, such as http://127.0.0.1:8000/optimove")
    return urls


def required_url(context: click.Context, parameter: click.Parameter, url: str) -> str:
    """Reject a URL that is not absolute."""
    return checked_urls(context, parameter, [url])[0]


def checked_url(context: click.Context, parameter: click.Parameter, url: str | None) -> str | None:
    """Refuse a URL that is not absolute, if there is one."""
    return None if url is None else required_url(context, parameter, url)
