"""`optimove-ce webhooks`, `listeners` and `settings`: what is registered at Optimove, from a shell."""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import click

from ..client import OptimoveClient
from ..errors import ConfigurationError, NotFoundError
from ..models.events import CAMPAIGN_READY
from ..settings import TOKEN_VARIABLE as TOKEN_VARIABLE
from .options import MAX_TIMEOUT_MS, as_text, echo_result, given_secrets, json_option
from .options import url as url_type

_FULL: Final = click.option("--full", is_flag=True, help="Print whole URLs, with the tokens that they can hold.")
_EVENT_TYPE: Final = click.option(
    "--event-type",
    type=click.IntRange(1),
    default=CAMPAIGN_READY,
    help="The EventTypeID; 5 is a campaign that waits for clearance.",
)
_CHANNEL: Final = click.option("--channel", type=click.IntRange(0), help="The ChannelID; event type 5 takes none.")


# ---- webhooks


@click.group(epilog="\b\nExample:\n  optimove-ce webhooks list")
def webhooks() -> None:
    """Manage the webhooks of triggered campaigns.

    Key and URL of your tenant are read from OPTIMOVE_API_KEY and OPTIMOVE_BASE_URL.
    """


@webhooks.command("list", epilog="\b\nExample:\n  optimove-ce webhooks list --json")
@_FULL
@json_option
def list_webhooks(full: bool, as_json: bool) -> None:
    """List the registered webhooks."""
    with OptimoveClient() as client:
        found = client.get_webhooks()
    rows = [{"id": webhook.id, "url": _webhook_url(webhook.url, full=full)} for webhook in found]
    echo_result(
        rows, "\n".join(f"{row['id']}  {row['url']}" for row in rows) or "No webhook is registered.", as_json=as_json
    )


@webhooks.command("show", epilog="\b\nExample:\n  optimove-ce webhooks show webhook1")
@click.argument("webhook_id", metavar="ID")
@_FULL
@json_option
def show_webhook(webhook_id: str, full: bool, as_json: bool) -> None:
    """Look up the webhook ID.

    Exit status: 0 it is there, 1 it is not, 2 a usage or configuration error, or no answer.
    """
    with OptimoveClient() as client:
        try:
            webhook = client.get_webhook_by_id(webhook_id)
        except NotFoundError:
            raise _missing(as_json) from None
    row = {"id": webhook.id, "url": _webhook_url(webhook.url, full=full)}
    echo_result(row, f"{row['id']}  {row['url']}", as_json=as_json)


@webhooks.command("create", epilog="\b\nExample:\n  optimove-ce webhooks create https://gate.example.com/optimove")
@click.argument("url")
@json_option
def create_webhook(url: str, as_json: bool) -> None:
    """Register URL, unless it is registered already."""
    with OptimoveClient() as client:
        webhook = client.ensure_webhook(url)
    echo_result({"id": webhook.id, "registered": True}, f"{webhook.id} is registered.", as_json=as_json)


@webhooks.command("delete", epilog="\b\nExample:\n  optimove-ce webhooks delete webhook1")
@click.argument("webhook_id", metavar="ID")
@json_option
def delete_webhook(webhook_id: str, as_json: bool) -> None:
    """Stop the notifications to the webhook ID.

    Exit status: 0 it is deleted, 1 there was none, 2 a usage or configuration error, or no answer.
    """
    with OptimoveClient() as client:
        try:
            client.delete_webhook(webhook_id)
        except NotFoundError:
            raise _missing(as_json) from None
    echo_result({"id": webhook_id, "deleted": True}, f"{webhook_id} is deleted.", as_json=as_json)


# ---- listeners


@click.group(epilog="\b\nExample:\n  optimove-ce listeners list")
def listeners() -> None:
    """Manage the event listeners of scheduled campaigns.

    Key and URL of your tenant are read from OPTIMOVE_API_KEY and OPTIMOVE_BASE_URL.
    """


@listeners.command("list", epilog="\b\nExample:\n  optimove-ce listeners list --json")
@_FULL
@json_option
def list_listeners(full: bool, as_json: bool) -> None:
    """List the registered listeners."""
    with OptimoveClient() as client:
        found = client.get_registered_event_listeners()
    rows = [
        {
            "event_type_id": listener.event_type_id,
            "channel_id": listener.channel_id,
            "listener_url": shown_url(listener.listener_url, full=full),
        }
        for listener in found
    ]
    lines = [
        f"{row['event_type_id']}  {'all channels' if row['channel_id'] is None else row['channel_id']}  "
        f"{row['listener_url']}"
        for row in rows
    ]
    echo_result(rows, "\n".join(lines) or "No listener is registered.", as_json=as_json)


@listeners.command(
    "register",
    epilog="\b\nExample:\n  OPTIMOVE_LISTENER_TOKEN=... optimove-ce listeners register "
    "https://gate.example.com/campaigns",
)
@click.argument("url", type=url_type)
@_EVENT_TYPE
@_CHANNEL
@json_option
def register_listener(url: str, event_type: int, channel: int | None, as_json: bool) -> None:
    """Register URL for the events of a type. Whether it replaces another URL is not documented.

    A token is read from OPTIMOVE_LISTENER_TOKEN and added to the URL as ?token=, unless the URL has one. It is never an
    option, since other users of a machine can read those.
    """
    with OptimoveClient() as client:
        client.register_event_listener(with_token(url), event_type_id=event_type, channel_id=channel)
    echo_result(
        {"event_type_id": event_type, "channel_id": channel, "registered": True},
        f"The listener for event type {event_type} is registered.",
        as_json=as_json,
    )


@listeners.command("unregister", epilog="\b\nExample:\n  optimove-ce listeners unregister --event-type 5")
@_EVENT_TYPE
@_CHANNEL
@json_option
def unregister_listener(event_type: int, channel: int | None, as_json: bool) -> None:
    """Stop the events of a type."""
    with OptimoveClient() as client:
        client.unregister_event_listener(event_type_id=event_type, channel_id=channel)
    echo_result(
        {"event_type_id": event_type, "channel_id": channel, "unregistered": True},
        f"The listener for event type {event_type} is unregistered.",
        as_json=as_json,
    )


# ---- settings


@click.group(epilog="\b\nExample:\n  optimove-ce settings set --timeout-ms 5000")
def settings() -> None:
    """Change the settings that all webhooks of the tenant share.

    Key and URL of your tenant are read from OPTIMOVE_API_KEY and OPTIMOVE_BASE_URL.
    """


@settings.command("set", epilog="\b\nExample:\n  optimove-ce settings set --timeout-ms 5000 --new-secret")
@click.option(
    "--timeout-ms",
    type=click.IntRange(1, MAX_TIMEOUT_MS),
    required=True,
    help="Milliseconds that an answer may take. It is always sent.",
)
@click.option(
    "--new-secret", is_flag=True, help="Set the secret too: that of OPTIMOVE_WEBHOOK_SECRET, else from a hidden prompt."
)
@json_option
def set_settings(timeout_ms: int, new_secret: bool, as_json: bool) -> None:
    """Set how long Optimove waits for answers, and what it signs with. The secret is never printed.

    Without --new-secret the request has no secret. Whether Optimove then keeps the old one is not documented.
    """
    secret = as_text(given_secrets()[0]) if new_secret else None
    with OptimoveClient() as client:
        set_to = client.update_webhook_settings(timeout_ms=timeout_ms, secret=secret)
    echo_result(
        {"timeout_ms": set_to.timeout_ms, "secret_sent": new_secret},
        f"Answers may take {set_to.timeout_ms} ms. {'The secret was' if new_secret else 'No secret was'} sent.",
        as_json=as_json,
    )


# ---- shared functions


def token_of(url: str) -> str | None:
    """Return the token of a listener's URL; None if it has none.

    Args:
        url: Any text.
    """
    try:
        return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True)).get("token")
    except ValueError:
        return None


def with_token(url: str, token: str | None = None) -> str:
    """Return a listener's URL with a token, if there is one and the URL has none.

    Args:
        url: An absolute URL.
        token: Unset, that of the environment.

    Raises:
        ConfigurationError: The token is blank.
    """
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
    if full:
        return url
    try:
        parts = urlsplit(plain_url(url))
        return f"{parts.scheme}://{parts.hostname or ''}/..."
    except ValueError:
        return "..."


def _webhook_url(url: str, *, full: bool) -> str:
    # A webhook is protected by a signature, so its path is no secret; its query may be one all the same.
    base, _, query = url.partition("?")
    return url if full or not query else f"{base}?..."


def _missing(as_json: bool) -> click.exceptions.Exit:
    echo_result({"found": False}, "There is no webhook of that id.", as_json=as_json)
    return click.exceptions.Exit(1)
