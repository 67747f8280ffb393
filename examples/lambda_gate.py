r"""A gate in AWS Lambda: Optimove asks before it sends a triggered campaign, `may_receive` decides.

Run it:    pip install --target package optimove-conditional-execution && cp lambda_gate.py package/
           zip the folder, make a function of it with the handler lambda_gate.handler, and give it a function URL (auth
           type NONE: the signature says who asks) or an API Gateway. Its timeout must be longer than Optimove's.
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL (such as https://api5.optimove.net), OPTIMOVE_WEBHOOK_SECRET
Register:  optimove-ce webhooks create https://your-function-url/

optimove-ce trigger http://127.0.0.1:8000/ --user C234638 --user C100001 -- \
    python lambda_local.py lambda_gate 8000
"""

from __future__ import annotations

import logging
import os

from optimove_conditional_execution import (
    Deadline,
    Decision,
    OptimoveClient,
    WebhookNotification,
    WebhookReceiver,
    webhook_secrets,
)
from optimove_conditional_execution.adapters.aws_lambda import lambda_handler


def player_status(user_id: str, *, timeout: float) -> str | None:
    """Replace this with your register: a player's status, None for an unknown player, an error when it is down."""
    return {"C234638": "active", "C100001": "self-excluded", "C100002": "cooling-off"}.get(user_id)


def may_receive(notification: WebhookNotification, deadline: Deadline) -> Decision:
    """Let campaigns through to active players only; an error or a late answer sends nothing."""
    if notification.is_hashed or notification.user.is_visitor:
        return Decision.abstain("not an id that the register knows")
    status = player_status(notification.user.user_id, timeout=deadline.remaining())
    return Decision.approve() if status == "active" else Decision.deny(status or "unknown player")


logging.getLogger("optimove_conditional_execution").setLevel(logging.INFO)  # approved and denied too

# Made once for each instance of the function, so that its calls share the connections to Optimove.
receiver = WebhookReceiver(may_receive, client=OptimoveClient(), secrets=webhook_secrets(os.environ))
handler = lambda_handler(receiver)
