r"""A review whose customers are decided by Celery workers: settings, task and listener in one file.

Run it:    pip install '.[celery]' redis gunicorn     (in a clone, with a Redis that runs on this machine)
           cd examples && celery -A celery_review worker --concurrency 2     (on any number of machines)
           cd examples && gunicorn --threads 4 "celery_review:create_app()"
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL, OPTIMOVE_TIMEZONE, OPTIMOVE_LISTENER_TOKEN, REDIS_URL

optimove-ce campaign --listener http://127.0.0.1:8000/listener --lead 10 -- \
    gunicorn --threads 4 --bind 127.0.0.1:8000 "celery_review:create_app()"
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from celery import Celery

from optimove_conditional_execution import CampaignReview, ListenerReceiver, OptimoveClient
from optimove_conditional_execution.adapters.wsgi import WSGIApp
from optimove_conditional_execution.integrations.celery import CeleryReviewer
from optimove_conditional_execution.stores import SqliteJournal

REDIS = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")

app = Celery("celery_review", broker=REDIS, backend=REDIS)
app.conf.update(
    task_acks_late=True,  # a task whose worker dies is given to another
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,  # a worker holds no tasks that others could do
    result_expires=3_600,  # seconds; results that nobody read hold ids of customers
)


@app.task
def decide(rows: list[dict[str, Any]]) -> list[str]:
    """Replace this with your rules: return the ids of those who may get the campaign. It may run twice."""
    excluded = {"C0000002"}
    return [row["CustomerID"] for row in rows if row["CustomerID"] not in excluded]


def create_app() -> WSGIApp:
    """Return the listener; it begins with reviews that a crash left unfinished."""
    logging.basicConfig()
    logging.getLogger("optimove_conditional_execution").setLevel(logging.INFO)
    review = CampaignReview(
        CeleryReviewer(decide, send="rows"),
        client=OptimoveClient(),
        journal=SqliteJournal("reviews.db"),
        batch_timeout=60,  # seconds; then a batch is sent again, as when its worker was lost
        concurrency=8,  # tasks that are sent and not done: twice as many as the workers have processes
    )
    threading.Thread(target=review.resume, daemon=True).start()
    return WSGIApp(ListenerReceiver(review.submit, token=os.environ["OPTIMOVE_LISTENER_TOKEN"]))
