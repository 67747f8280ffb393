"""The gate: who may receive a campaign. Replace `player_status` with your register; the rest can stay."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager

from optimove_conditional_execution import (
    Deadline,
    Decision,
    OptimoveClient,
    Outcome,
    WebhookNotification,
    WebhookReceiver,
)

logger = logging.getLogger("gate")
logger.setLevel(logging.INFO)

# A pretended register of the customers that `optimove-ce` makes up: every fifth has excluded himself.
REGISTER = {f"C{number}": "active" if number % 5 else "self-excluded" for number in range(100_001, 101_001)}


def player_status(user_id: str, *, timeout: float) -> str | None:
    """Replace this with your register: a player's status, None for an unknown player, an error when it is down.

    Ask for what is true now, and give up after `timeout` seconds: a late answer sends nothing.
    """
    return REGISTER.get(user_id)


def may_receive(notification: WebhookNotification, deadline: Deadline) -> Decision:
    """Let campaigns through to active players only; an error or a late answer sends nothing."""
    if notification.is_hashed or notification.user.is_visitor:
        return Decision.abstain("not an id that the register knows")
    status = player_status(notification.user.user_id, timeout=deadline.remaining())
    return Decision.approve() if status == "active" else Decision.deny(status or "unknown player")


def log_outcome(outcome: Outcome) -> None:
    """Log what became of a notification, and why; it holds no personal data. Count it in your metrics here, too."""
    reason = None if outcome.decision is None else outcome.decision.reason
    logger.info("%s in %.3f s: %s", outcome.kind, outcome.total_seconds, outcome.error or reason or "-")


def create_receiver(
    client: OptimoveClient | None = None, *, around: Callable[[], AbstractContextManager[None]] | None = None
) -> WebhookReceiver:
    """Wire the gate to Optimove, once a process; a setting that is missing stops it here.

    Tests give it the client of a `FakeOptimove`. Without one, key and URL come from the environment. `around` is
    entered around each call of `may_receive`, in its thread: for database connections.
    """
    if client is None:
        client = OptimoveClient()
        atexit.register(client.close)
    secret = os.environ["OPTIMOVE_WEBHOOK_SECRET"]
    return WebhookReceiver(may_receive, client=client, secrets=secret, on_outcome=log_outcome, around=around)
