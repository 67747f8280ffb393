"""Applications over the servers of these tests, in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

from optimove_conditional_execution import Deadline, OptimoveClient, Request, WebhookNotification, WebhookReceiver


def django_gate() -> Any:
    """Return a Django application whose handler asks PostgreSQL, as `docs/how-to/django.md` shows."""
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.db import close_old_connections, connection
    from django.http import HttpRequest, HttpResponse
    from django.urls import path
    from django.views.decorators.csrf import csrf_exempt

    @contextlib.contextmanager
    def database_connections() -> Iterator[None]:
        close_old_connections()
        try:
            yield
        finally:
            close_old_connections()

    def may_receive(notification: WebhookNotification, deadline: Deadline) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s", [notification.user.user_id])
            return bool(cursor.fetchone()[0] == notification.user.user_id)

    receiver = WebhookReceiver(
        may_receive,
        client=OptimoveClient(),
        secrets=os.environ["OPTIMOVE_WEBHOOK_SECRET"],
        around=database_connections,
        on_outcome=lambda outcome: print(outcome.kind, outcome.error, flush=True),
    )

    def optimove(request: HttpRequest) -> HttpResponse:
        answer = receiver.handle(Request(request.method, request.path, "", request.headers, request.body))
        return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))

    database = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": "127.0.0.1",
        "PORT": os.environ["POSTGRES_PORT"],
        "USER": "postgres",
        "NAME": "postgres",
        **json.loads(os.environ["DATABASE_OPTIONS"]),
    }
    urls = type("Urls", (), {"urlpatterns": [path("optimove", csrf_exempt(optimove))]})
    settings.configure(
        ROOT_URLCONF=urls,
        DATABASES={"default": database},
        MIDDLEWARE=[],
        ALLOWED_HOSTS=["127.0.0.1"],
        SECRET_KEY="none",
    )
    return get_wsgi_application()
