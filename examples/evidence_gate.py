r"""A gate that records evidence of its decisions: it is sent with the answer, and written to a file of yours.

Run it:    pip install . gunicorn     (in a clone)
           cd examples && gunicorn --threads 16 "evidence_gate:create_app()"
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL, OPTIMOVE_WEBHOOK_SECRET, EVIDENCE_DB (an SQLite file)

optimove-ce trigger http://127.0.0.1:8000/optimove --user C234638 --user C100001 -- \
    gunicorn --threads 16 --bind 127.0.0.1:8000 "evidence_gate:create_app()"
"""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from contextlib import closing

import optimove_conditional_execution as optimove_ce
from optimove_conditional_execution import Decision
from optimove_conditional_execution.adapters.wsgi import WSGIApp

RULE, RULE_VERSION = "active players only", "4"  # a version for each change, so that the old words can be found again
COLUMNS = "at, request_uid, outcome, decision_id, rule, rule_version, register_version"


def player_status(user_id: str, *, timeout: float) -> tuple[str | None, str]:
    """Replace this with your register: a player's status, and which version of the register says so."""
    return {"C234638": "active", "C100001": "self-excluded"}.get(user_id), "2026-11-23T06:00Z"


def may_receive(notification: optimove_ce.WebhookNotification, deadline: optimove_ce.Deadline) -> Decision:
    """Let campaigns through to active players only, and give the rule and the version of the register."""
    if notification.is_hashed or notification.user.is_visitor:
        return Decision.abstain("not an id that the register knows")
    status, version = player_status(notification.user.user_id, timeout=deadline.remaining())
    rule = {"rule": RULE, "rule_version": RULE_VERSION, "register_version": version}
    evidence = {"decision_id": str(uuid.uuid4()), **rule}  # nothing about the player: not even the status
    return Decision.approve(evidence) if status == "active" else Decision.deny(status or "unknown player", evidence)


def record(outcome: optimove_ce.Outcome) -> None:
    """Record the outcome of a notification, without its reason, which is personal data."""
    evidence = {} if outcome.decision is None else outcome.decision.additional_data
    names = ("decision_id", "rule", "rule_version", "register_version")
    row = (time.time(), outcome.request_uid, outcome.kind, *(evidence.get(name) for name in names))
    with closing(sqlite3.connect(os.environ.get("EVIDENCE_DB", "evidence.db"))) as book, book:
        book.execute(f"CREATE TABLE IF NOT EXISTS evidence ({COLUMNS})")
        book.execute(f"INSERT INTO evidence ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def create_app() -> WSGIApp:
    """Return the service; a setting that is missing stops it here."""
    client, secret = optimove_ce.OptimoveClient(), os.environ["OPTIMOVE_WEBHOOK_SECRET"]
    return WSGIApp(optimove_ce.WebhookReceiver(may_receive, client=client, secrets=secret, on_outcome=record))
