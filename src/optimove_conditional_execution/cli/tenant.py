"""`optimove-ce webhooks`, `listeners` and `settings`: what is registered at Optimove, from a shell."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import click

import optimove_conditional_execution as sdk  # its names are loaded when they are first used

from ..errors import ConfigurationError, NotFoundError
from ..urls import origin
from .options import MAX_TIMEOUT_MS, as_text, echo_result, given_secrets, json_option, together
from .options import url as url_type

_FULL: Final = click.option("--full", is_flag=True, help="Print whole URLs, with the tokens that they can hold.")
_ID: Final = click.argument("webhook_id", metavar="ID")
_EVENT: Final = together(
    click.option(
        "--event-type",
        type=click.IntRange(1),
        default=5,
        help="The EventTypeID; 5 is a campaign that waits for clearance.",
    ),
    click.option("--channel", type=click.IntRange(0), help="The ChannelID; event type 5 takes none."),
)
_MISSING: Final = ({"found": False}, "There is no webhook of that id.")

Result = tuple[object, str]
"""What a command prints: for `--json`, and as text."""


def _command(group: click.Group, name: str, example: str) -> Callable[[Callable[..., Result]], click.Command]:
    """Make a command of a function that takes a client of the environment, and the options."""

    def decorate(function: Callable[..., Result]) -> click.Command:
        @functools.wraps(function)
        def run(as_json: bool, **options: Any) -> None:
            with sdk.OptimoveClient() as client:
                result = function(client, **options)
            echo_result(*result, as_json=as_json)
            if result is _MISSING:
                raise click.exceptions.Exit(1)

        return group.command(name, epilog=f"\b\nExample:\n  {example}")(json_option(run))

    return decorate


# ---- webhooks


@click.group(epilog="\b\nExample:\n  optimove-ce webhooks list")
def webhooks() -> None:
    """Manage the webhooks of triggered campaigns.

    Key and URL of your tenant are read from OPTIMOVE_API_KEY and OPTIMOVE_BASE_URL.
    """


@_command(webhooks, "list", "optimove-ce webhooks list --json")
@_FULL
def list_webhooks(client: sdk.OptimoveClient, full: bool) -> Result:
    """List the registered webhooks."""
    rows = [_row(webhook, full=full) for webhook in client.get_webhooks()]
    return rows, "\n".join(map(_ROW.format_map, rows)) or "No webhook is registered."


@_command(webhooks, "show", "optimove-ce webhooks show webhook1")
@_ID
@_FULL
def show_webhook(client: sdk.OptimoveClient, webhook_id: str, full: bool) -> Result:
    """Look up the webhook ID.

    Exit status: 0 it is there, 1 it is not, 2 a usage or configuration error, or no answer.
    """
    try:
        row = _row(client.get_webhook_by_id(webhook_id), full=full)
    except NotFoundError:
        return _MISSING
    return row, _ROW.format_map(row)


@_command(webhooks, "create", "optimove-ce webhooks create https://gate.example.com/optimove")
@click.argument("url")
def create_webhook(client: sdk.OptimoveClient, url: str) -> Result:
    """Register URL, unless it is registered already."""
    webhook = client.ensure_webhook(url)
    return {"id": webhook.id, "registered": True}, f"{webhook.id} is registered."


@_command(webhooks, "delete", "optimove-ce webhooks delete webhook1")
@_ID
def delete_webhook(client: sdk.OptimoveClient, webhook_id: str) -> Result:
    """Stop the notifications to the webhook ID.

    Exit status: 0 it is deleted, 1 there was none, 2 a usage or configuration error, or no answer.
    """
    try:
        client.delete_webhook(webhook_id)
    except NotFoundError:
        return _MISSING
    return {"id": webhook_id, "deleted": True}, f"{webhook_id} is deleted."


_ROW: Final = "{id}  {url}"


def _row(webhook: sdk.Webhook, *, full: bool) -> dict[str, str]:
    # A webhook is protected by a signature, so its path is no secret; its query may be one all the same.
    base, _, query = webhook.url.partition("?")
    return {"id": webhook.id, "url": webhook.url if full or not query else f"{base}?..."}


# ---- listeners


@click.group(epilog="\b\nExample:\n  optimove-ce listeners list")
def listeners() -> None:
    """Manage the event listeners of scheduled campaigns.

    Key and URL of your tenant are read from OPTIMOVE_API_KEY and OPTIMOVE_BASE_URL.
    """


@_command(listeners, "list", "optimove-ce listeners list --json")
@_FULL
def list_listeners(client: sdk.OptimoveClient, full: bool) -> Result:
    """List the registered listeners."""
    rows = [
        {
            "event_type_id": listener.event_type_id,
            "channel_id": listener.channel_id,
            "listener_url": shown_url(listener.listener_url, full=full),
        }
        for listener in client.get_registered_event_listeners()
    ]
    lines = [
        f"{event_type}  {'all channels' if channel is None else channel}  {url}"
        for event_type, channel, url in (row.values() for row in rows)
    ]
    return rows, "\n".join(lines) or "No listener is registered."


@_command(
    listeners,
    "register",
    "OPTIMOVE_LISTENER_TOKEN=... optimove-ce listeners register https://gate.example.com/campaigns",
)
@click.argument("url", type=url_type)
@_EVENT
def register_listener(client: sdk.OptimoveClient, url: str, event_type: int, channel: int | None) -> Result:
    """Register URL for the events of a type. Whether it replaces another URL is not documented.

    A token is read from OPTIMOVE_LISTENER_TOKEN and added to the URL as ?token=, unless the URL has one. It is never an
    option, since other users of a machine can read those.
    """
    client.register_event_listener(with_token(url), event_type_id=event_type, channel_id=channel)
    return _done("registered", event_type, channel)


@_command(listeners, "unregister", "optimove-ce listeners unregister --event-type 5")
@_EVENT
def unregister_listener(client: sdk.OptimoveClient, event_type: int, channel: int | None) -> Result:
    """Stop the events of a type."""
    client.unregister_event_listener(event_type_id=event_type, channel_id=channel)
    return _done("unregistered", event_type, channel)


def _done(what: str, event_type: int, channel: int | None) -> Result:
    value = {"event_type_id": event_type, "channel_id": channel, what: True}
    return value, f"The listener for event type {event_type} is {what}."


# ---- settings


@click.group(epilog="\b\nExample:\n  optimove-ce settings set --timeout-ms 5000")
def settings() -> None:
    """Change the settings that all webhooks of the tenant share.

    Key and URL of your tenant are read from OPTIMOVE_API_KEY and OPTIMOVE_BASE_URL.
    """


@_command(settings, "set", "optimove-ce settings set --timeout-ms 5000 --new-secret")
@click.option(
    "--timeout-ms",
    type=click.IntRange(1, MAX_TIMEOUT_MS),
    required=True,
    help="Milliseconds that an answer may take. It is always sent.",
)
@click.option(
    "--new-secret", is_flag=True, help="Set the secret too: that of OPTIMOVE_WEBHOOK_SECRET, else from a hidden prompt."
)
def set_settings(client: sdk.OptimoveClient, timeout_ms: int, new_secret: bool) -> Result:
    """Set how long Optimove waits for answers, and what it signs with. The secret is never printed.

    Without --new-secret the request has no secret. Whether Optimove then keeps the old one is not documented.
    """
    secret = as_text(given_secrets()[0]) if new_secret else None
    set_to = client.update_webhook_settings(timeout_ms=timeout_ms, secret=secret)
    sent = "The secret was" if new_secret else "No secret was"
    value = {"timeout_ms": set_to.timeout_ms, "secret_sent": new_secret}
    return value, f"Answers may take {set_to.timeout_ms} ms. {sent} sent."


# ---- shared functions


def token_of(url: str) -> str | None:
    """Return the token of a listener's URL; None if it has none.

    Args:
        url: Any text.
    """
    query = url.partition("#")[0].partition("?")[2]
    return dict(parse_qsl(query, keep_blank_values=True)).get("token")


def with_token(url: str, token: str | None = None) -> str:
    """Return a listener's URL with a token, if there is one and the URL has none.

    Args:
        url: An absolute URL.
        token: Unset, that of the environment.

    Raises:
        ConfigurationError: The token is blank.
    """
    from ..settings import TOKEN_VARIABLE

    token = os.environ.get(TOKEN_VARIABLE) if token is None else token
    parts = urlsplit(url)
    if token is None or token_of(url) is not None:
        return url
    if not token.strip():
        raise ConfigurationError(f"{TOKEN_VARIABLE} is empty or blank: set a token, or unset it.")
    added = f"token={quote(token, safe='')}"
    return parts._replace(query=f"{parts.query}&{added}" if parts.query else added).geturl()


def without_token(url: str, token: str | None = None) -> str:
    """Return a listener's URL without the parameter that is its token.

    Args:
        url: Any text.
        token: If it is the last part of the path, a wrong one is put in its place.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    kept = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != "token"]
    path = parts.path
    before, _, last = path.rstrip("/").rpartition("/")
    if token and unquote(last) == token:
        path = f"{before}/no-token"
    return parts._replace(path=path, query=urlencode(kept), fragment="").geturl()


def plain_url(url: str) -> str:
    """Return a registered URL, decoded where it is percent-encoded as a whole."""
    return url if "://" in url else unquote(url)


def shown_url(url: str, *, full: bool) -> str:
    """Return a URL for display: its path and query can hold a token.

    Args:
        url: As Optimove returned it; a listener's may be percent-encoded.
        full: Whether to show all of it.
    """
    return url if full else f"{origin(plain_url(url))}/..."
