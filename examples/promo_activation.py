r"""A scheduled campaign whose bonus must be activated first: only customers who have it get the campaign.

Run it:    pip install . gunicorn     (in a clone)
           cd examples && gunicorn --threads 4 "promo_activation:create_app()"
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL, OPTIMOVE_TIMEZONE, OPTIMOVE_LISTENER_TOKEN, PROMOTIONS_DB (SQLite)

optimove-ce campaign --listener http://127.0.0.1:8000/listener --lead 5 -- \
    gunicorn --threads 4 --bind 127.0.0.1:8000 "promo_activation:create_app()"
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing

import optimove_conditional_execution as optimove_ce
from optimove_conditional_execution.adapters.wsgi import WSGIApp
from optimove_conditional_execution.stores import SqliteJournal

SCHEMA = """CREATE TABLE IF NOT EXISTS bonuses (
    campaign INTEGER NOT NULL, customer TEXT NOT NULL, code TEXT NOT NULL, PRIMARY KEY (campaign, customer, code))"""
ACTIVATE = "INSERT INTO bonuses VALUES (?, ?, ?) ON CONFLICT (campaign, customer, code) DO NOTHING"
ACTIVE = "SELECT code FROM bonuses WHERE campaign = ? AND customer = ?"


def activate(customers: optimove_ce.CustomerBatch, deadline: optimove_ce.Deadline) -> list[str]:
    """Activate each customer's promotions once a campaign, however often it is asked for; approve who has them all."""
    campaign = customers.campaign_id
    # Of all rows: a customer may get a message, and with it another promotion, through each of several channels.
    wanted = {each.customer_id: {code for row in each.rows for code in row.promo_codes} for each in customers}
    where = os.environ.get("PROMOTIONS_DB", "promotions.db")
    with closing(sqlite3.connect(where, timeout=deadline.remaining())) as promotions:
        promotions.execute(SCHEMA)
        with promotions:  # one transaction: an error rolls it back, and no customer of this batch is approved
            promotions.executemany(ACTIVATE, [(campaign, who, code) for who, codes in wanted.items() for code in codes])
            if deadline.expired:
                raise TimeoutError("too late to approve: a bonus without a message would be left")
        # Only what is committed counts. After a crash this batch is asked again, and finds what it has committed.
        active = {who: {code for (code,) in promotions.execute(ACTIVE, (campaign, who))} for who in wanted}
    return [who for who, codes in wanted.items() if codes and codes <= active[who]]


def create_app() -> WSGIApp:
    """Return the listener; it begins with reviews that a crash left unfinished."""
    # One batch at a time, as SQLite has one writer. The control group is measured without the bonus, so it gets none.
    review = optimove_ce.CampaignReview(
        activate,
        client=optimove_ce.OptimoveClient(),
        journal=SqliteJournal("reviews.db"),
        concurrency=1,
        control_group="skip",
    )
    threading.Thread(target=review.resume, name="resume", daemon=True).start()
    return WSGIApp(optimove_ce.ListenerReceiver(review.submit, token=os.environ["OPTIMOVE_LISTENER_TOKEN"]))
