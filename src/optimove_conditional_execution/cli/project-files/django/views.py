"""The view that serves the gate."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.exceptions import RequestDataTooBig
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse
from optimove_conditional_execution import Request, WebhookReceiver

from gate import create_receiver


@contextmanager
def database_connections() -> Iterator[None]:
    """Close connections that are broken or too old, as Django does around a request; it does not know our threads."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


@functools.cache
def receiver() -> WebhookReceiver:
    """Return the one receiver of this process."""
    return create_receiver(around=database_connections)


def optimove(request: HttpRequest) -> HttpResponse:
    """Hand Optimove's request to the SDK, and its answer back."""
    try:
        body = request.body
    except RequestDataTooBig:
        answer = receiver().too_large()
    else:
        query = request.META.get("QUERY_STRING", "")
        came = Request(request.method or "", request.path, query, request.headers, body)
        answer = receiver().handle(came)
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))
