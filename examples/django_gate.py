"""A gate in Django: Optimove asks before it sends a triggered campaign, `may_receive` decides.

Run it:    pip install optimove-conditional-execution django gunicorn
           gunicorn --threads 16 django_gate:application
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL (such as https://api5.optimove.net), OPTIMOVE_WEBHOOK_SECRET
Register:  python manage_webhooks.py ensure https://your.host/optimove
"""

from __future__ import annotations

import os

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from optimove_conditional_execution import Deadline, OptimoveClient, Request, WebhookNotification, WebhookReceiver


def is_self_excluded(user_id: str, *, timeout: float) -> bool:
    """Replace this with your register, such as a model; it must raise for a player whom it does not know."""
    return {"C234638": False, "C100001": True}[user_id]


def may_receive(notification: WebhookNotification, deadline: Deadline) -> bool:
    """Keep campaigns from players who excluded themselves; an error or a late answer sends nothing."""
    if notification.user.is_visitor:
        return False
    return not is_self_excluded(notification.user.user_id, timeout=deadline.remaining())


receiver = WebhookReceiver(may_receive, client=OptimoveClient(), secrets=os.environ["OPTIMOVE_WEBHOOK_SECRET"])


def optimove(request: HttpRequest) -> HttpResponse:
    """Hand Optimove's request to the SDK, and its answer back."""
    try:
        body = request.body
    except RequestDataTooBig:
        answer = receiver.too_large()
    else:
        query = request.META.get("QUERY_STRING", "")
        answer = receiver.handle(Request(request.method, request.path, query, request.headers, body))
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))


# Optimove has no CSRF token to send: its signature says who it is.
urlpatterns = [path("optimove", csrf_exempt(optimove))]

# Django's settings, all in one file; in your project these two statements are in settings.py and wsgi.py already.
settings.configure(ROOT_URLCONF=__name__, DATA_UPLOAD_MAX_MEMORY_SIZE=receiver.max_body)
application = get_wsgi_application()
