"""Applications for servers in processes of their own: each is made by a function and mounts one receiver."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from wsgiref.util import shift_path_info
from wsgiref.validate import validator

import flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from optimove_conditional_execution import (
    AsyncOptimoveClient,
    AsyncWebhookReceiver,
    Deadline,
    Decision,
    OptimoveClient,
    Request,
    WebhookNotification,
)
from optimove_conditional_execution import WebhookReceiver as Receiver
from optimove_conditional_execution.adapters.wsgi import WSGIApp


def decide(notification: WebhookNotification, deadline: Deadline) -> Decision | bool:
    """Approve every customer whose id begins with VIP, and nobody after the time is up."""
    if notification.user.user_id == "BROKEN":
        raise RuntimeError("the register is down")
    return notification.user.user_id.startswith("VIP") and not deadline.expired


def receiver() -> Receiver:
    """Return a receiver that is set up from the environment."""
    return Receiver(decide, client=OptimoveClient(), secrets=os.environ["OPTIMOVE_WEBHOOK_SECRET"], max_body=65_536)


def plain() -> WSGIApp:
    """Return the WSGI adapter by itself; it answers on every path."""
    return WSGIApp(receiver())


def flask_mount() -> Any:
    """Return a Flask application that has the WSGI adapter mounted beside it."""
    return DispatcherMiddleware(flask.Flask(__name__).wsgi_app, {"/optimove": WSGIApp(receiver())})


def flask_view() -> flask.Flask:
    """Return a Flask application with a view that calls the receiver."""
    mine = receiver()
    app = flask.Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = mine.max_body

    @app.route("/optimove", methods=["GET", "POST"])
    def optimove() -> flask.Response:
        came = flask.request
        answer = mine.handle(Request(came.method, came.path, "", came.headers, came.get_data()))
        return flask.Response(answer.body, answer.status, dict(answer.headers))

    return app


def django_view() -> Any:
    """Return a Django application with a view that calls the receiver; Django's settings are this process's own."""
    from django.conf import settings
    from django.core.exceptions import RequestDataTooBig
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpRequest, HttpResponse
    from django.urls import path
    from django.views.decorators.csrf import csrf_exempt

    mine = receiver()

    def optimove(request: HttpRequest) -> HttpResponse:
        try:
            body = request.body
        except RequestDataTooBig:
            answer = mine.too_large()
        else:
            answer = mine.handle(Request(request.method, request.path, "", request.headers, body))
        return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))

    class Urls:
        urlpatterns = [path("optimove", csrf_exempt(optimove))]

    settings.configure(
        ROOT_URLCONF=Urls,
        DATA_UPLOAD_MAX_MEMORY_SIZE=mine.max_body,
        MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"],
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        SECRET_KEY="for the middleware",
    )
    return get_wsgi_application()


def mounted(*factories: str, validated: bool = False) -> Any:
    """Return the WSGI applications of some factories, each at the path of its name."""
    made = {name: globals()[name]() for name in factories}
    if validated:
        made = {name: validator(app) for name, app in made.items()}
    return lambda environ, start_response: made[shift_path_info(environ) or ""](environ, start_response)


def django_async_view() -> Any:
    """Return a Django application with an async view; Django cancels it when the sender hangs up."""
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpRequest, HttpResponse
    from django.urls import path
    from django.views.decorators.csrf import csrf_exempt

    left = asyncio.Event()

    async def decide_slowly(notification: WebhookNotification, deadline: Deadline) -> bool:
        print("asked", flush=True)
        await asyncio.wait_for(left.wait(), deadline.remaining() / 2)
        return True

    secret = os.environ["OPTIMOVE_WEBHOOK_SECRET"]
    mine = AsyncWebhookReceiver(
        decide_slowly,
        client=AsyncOptimoveClient(),
        secrets=secret,
        on_outcome=lambda outcome: print(outcome.kind, outcome.error),
    )

    async def optimove(request: HttpRequest) -> HttpResponse:
        try:
            answer = await mine.handle(Request(request.method, request.path, "", request.headers, request.body))
        except asyncio.CancelledError:
            print("the view was cancelled", flush=True)
            left.set()
            raise
        return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))

    class Urls:
        urlpatterns = [path("optimove", csrf_exempt(optimove))]

    settings.configure(ROOT_URLCONF=Urls, MIDDLEWARE=[], ALLOWED_HOSTS=["127.0.0.1", "localhost"], SECRET_KEY="none")
    return get_asgi_application()


def django_beside() -> Any:
    """Return a Django application beside which the WSGI adapter answers one path, as Django's page shows."""
    webhook, django = plain(), django_view()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        return (webhook if environ.get("PATH_INFO") == "/optimove" else django)(environ, start_response)

    return application
