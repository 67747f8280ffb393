"""The view that serves the gate."""

from __future__ import annotations

import functools

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from optimove_conditional_execution import Request, WebhookReceiver

from gate import create_receiver


@functools.cache
def receiver() -> WebhookReceiver:
    """Return the one receiver of this process."""
    return create_receiver()


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
