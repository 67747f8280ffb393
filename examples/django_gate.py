r"""A gate in Django: Optimove asks before it sends a triggered campaign, `may_receive` decides.

Run it:    pip install "optimove-conditional-execution[cli]" django gunicorn
           gunicorn --threads 16 django_gate:application
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL (such as https://api5.optimove.net), OPTIMOVE_WEBHOOK_SECRET
Register:  optimove-ce webhooks create https://your.host/optimove

optimove-ce trigger http://127.0.0.1:8000/optimove --user C234638 --user C100001 -- \
    gunicorn --threads 16 --bind 127.0.0.1:8000 django_gate:application
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

import optimove_conditional_execution as optimove_ce
from optimove_conditional_execution import Deadline, Decision, WebhookNotification


def is_active(user_id: str, *, timeout: float) -> bool:
    """Replace this with your register, such as a model: may the player play today? An error when it is down."""
    return user_id in {"C234638", "C234639"}


def may_receive(notification: WebhookNotification, deadline: Deadline) -> Decision | bool:
    """Let campaigns through to active players only; an error or a late answer sends nothing."""
    if notification.is_hashed or notification.user.is_visitor:
        return Decision.abstain("not an id that the register knows")
    return is_active(notification.user.user_id, timeout=deadline.remaining())


@contextmanager
def database_connections() -> Iterator[None]:
    """Close connections that are broken or too old, as Django does around a request; it does not know our threads."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


client, secrets = optimove_ce.OptimoveClient(), optimove_ce.webhook_secrets(os.environ)
receiver = optimove_ce.WebhookReceiver(may_receive, client=client, secrets=secrets, around=database_connections)


def optimove(request: HttpRequest) -> HttpResponse:
    """Pass Optimove's request to the SDK, and return its response."""
    method, query = request.method or "", request.META.get("QUERY_STRING", "")
    try:
        answer = receiver.handle(optimove_ce.Request(method, request.path, query, request.headers, request.body))
    except RequestDataTooBig:
        answer = receiver.too_large()
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))


# Optimove has no CSRF token to send: its signature says who it is.
urlpatterns = [path("optimove", csrf_exempt(optimove))]

# Django's settings, all in one file; in your project these two statements are in settings.py and wsgi.py already.
settings.configure(ROOT_URLCONF=__name__, DATA_UPLOAD_MAX_MEMORY_SIZE=receiver.max_body)
application = get_wsgi_application()
