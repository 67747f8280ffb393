"""What is registered at Optimove: webhooks, and the listener of scheduled campaigns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from optimove_conditional_execution.cli.doctor.check import Check, Issue, judged
from optimove_conditional_execution.cli.doctor.listener_token import REGISTER, plain_url, without_token
from optimove_conditional_execution.cli.doctor.texts import is_loopback, is_public
from optimove_conditional_execution.cli.tenant import shown_url
from optimove_conditional_execution.models.listener import CAMPAIGN_READY, EventListener
from optimove_conditional_execution.models.webhook import Webhook
from optimove_conditional_execution.urls import normalized

# ---- webhooks


def webhooks_check(webhooks: Sequence[Webhook], *, expected: str | None, is_rehearsal: bool) -> Check:
    """Check the registered webhooks.

    Args:
        webhooks: What is registered.
        expected: The URL of the engineer's own, if it was told.
        is_rehearsal: Whether Optimove is a stand-in on this machine, which reaches loopback.
    """
    fine = f"{_shown_webhook(webhooks[0])} is registered." if webhooks else ""
    return judged("webhooks", fine, _webhook_issues(webhooks, expected, is_rehearsal))


def _webhook_issues(webhooks: Sequence[Webhook], expected: str | None, is_rehearsal: bool) -> Iterator[Issue]:
    urls = [webhook.url for webhook in webhooks]
    if expected is not None and normalized(expected) not in map(normalized, urls):
        near = any(_essence(url) == _essence(expected) for url in urls)
        yield Issue(
            "problem",
            "The URL of --webhook is not registered" + (", but one that differs in case or scheme." if near else "."),
            "Register it: optimove-ce webhooks create URL"
            + (", and delete the other: optimove-ce webhooks delete ID." if near else "."),
        )
    elif not webhooks:
        yield Issue(
            "warning",
            "None is registered: nothing asks you about triggered campaigns.",
            "If you have triggered campaigns: optimove-ce webhooks create URL, or client.ensure_webhook(url).",
        )
    if len(webhooks) > 1:
        listed = ", ".join(_shown_webhook(webhook) for webhook in webhooks)
        yield Issue(
            "warning",
            f"{len(webhooks)} are registered: {listed}. All get every notification and the first answer wins, so a "
            "stale one can deny.",
            "Delete those that nobody answers for: optimove-ce webhooks delete ID.",
        )
    for address, times in Counter(map(normalized, urls)).items():
        if times > 1:
            yield Issue(
                "warning",
                f"{_shown(address)} is registered {times} times, so each notification comes as often.",
                "Delete all but one: optimove-ce webhooks delete ID.",
            )
    for url in dict.fromkeys(urls):
        yield from address_issues(url, _shown(url), is_rehearsal=is_rehearsal)


def address_issues(url: str, shown: str, *, is_rehearsal: bool) -> Iterator[Issue]:
    """Yield what is wrong with an address that Optimove posts to.

    Args:
        url: The address.
        shown: What to call it.
        is_rehearsal: Whether Optimove is a stand-in on this machine.
    """
    try:
        scheme, host = urlsplit(url).scheme, urlsplit(url).hostname or ""
    except ValueError:
        scheme, host = "", ""
    if not host or scheme not in ("http", "https"):
        yield Issue("problem", f"{shown} is no absolute URL.", "Register it again, with https:// and the host.")
        return
    if is_rehearsal:
        return
    if is_loopback(host) or not is_public(host):
        yield Issue(
            "problem",
            f"{shown} is an address of this machine or network, which Optimove cannot reach.",
            "Register a public one.",
        )
    elif scheme == "http":
        yield Issue(
            "warning",
            f"{shown} is plain http: personal data travels in clear, and so does a token.",
            "Serve it over https, and register that.",
        )


def _shown_webhook(webhook: Webhook) -> str:
    return f"{_shown(webhook.url)} ({webhook.id})"


def _shown(url: str) -> str:
    # A webhook is protected by a signature, so its path is no secret; query and user name may be.
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" + ("?..." if parts.query else "")
    except ValueError:
        return "A URL"


def _essence(url: str) -> tuple[str, str, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", url, ""
    return parts.netloc.lower(), parts.path.rstrip("/").lower(), parts.query


# ---- listeners


def campaign_listeners(listeners: Sequence[EventListener]) -> list[EventListener]:
    """Return those that are told of campaigns on hold."""
    return [listener for listener in listeners if listener.event_type_id == CAMPAIGN_READY]


def listener_check(listeners: Sequence[EventListener], *, expected: str | None, is_rehearsal: bool) -> Check:
    """Check the listener of scheduled campaigns.

    Args:
        listeners: What is registered, of all types.
        expected: The URL of the engineer's own, if it was told; a token does not count.
        is_rehearsal: Whether Optimove is a stand-in on this machine.
    """
    mine = campaign_listeners(listeners)
    fine = f"{shown_url(mine[0].listener_url, full=False)} is registered for campaigns on hold." if mine else ""
    return judged("listener", fine, _listener_issues(mine, expected, is_rehearsal))


def _compared(url: str) -> str:
    return normalized(without_token(url))


def _listener_issues(mine: Sequence[EventListener], expected: str | None, is_rehearsal: bool) -> Iterator[Issue]:
    urls = [plain_url(listener.listener_url) for listener in mine]
    if expected is not None and _compared(expected) not in map(_compared, urls):
        yield Issue(
            "problem",
            "The URL of --listener is not registered for events of type 5.",
            f"Register it: {REGISTER}.",
        )
    elif not mine:
        yield Issue(
            "warning",
            "None is registered for events of type 5: nothing tells you of scheduled campaigns.",
            f"If you have scheduled campaigns with Conditional Execution: {REGISTER}.",
        )
    channels = [listener.channel_id for listener in mine if listener.channel_id]
    for channel in channels:
        yield Issue(
            "problem",
            f"One is registered for channel {channel}: events of type 5 must be registered without a channel.",
            f"optimove-ce listeners unregister --channel {channel}, then {REGISTER}.",
        )
    if len(mine) > 1:
        yield Issue(
            "warning",
            f"{len(mine)} are registered for events of type 5. Which of them is told is not documented.",
            "Keep one: optimove-ce listeners unregister, then register yours again.",
        )
    if any("://" not in listener.listener_url and "://" in url for listener, url in zip(mine, urls, strict=True)):
        yield Issue(
            "warning",
            "Its URL is registered percent-encoded, as older programs do. Whether that works is not documented.",
            "If no event arrives, register it plain: optimove-ce listeners register URL.",
        )
    for url in dict.fromkeys(urls):
        yield from address_issues(url, shown_url(url, full=False), is_rehearsal=is_rehearsal)
