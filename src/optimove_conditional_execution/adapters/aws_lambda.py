"""AWS Lambda behind API Gateway (REST and HTTP APIs), a function URL, or a load balancer."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from optimove_conditional_execution.adapters.wsgi import Receiver
from optimove_conditional_execution.drivers import is_async
from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.messages import Request, Response, plain


def lambda_handler(receiver: Receiver) -> Callable[[Any, Any], dict[str, Any]]:
    """Return a Lambda handler; make it at import time, so that warm starts reuse the client's connections.

    Args:
        receiver: A `WebhookReceiver`.

    Returns:
        A function of event and context, for formats 1.0 and 2.0.

    Raises:
        ConfigurationError: The receiver is an async one.
    """
    if not callable(getattr(receiver, "handle", None)) or is_async(receiver.handle):
        raise ConfigurationError("Lambda calls a function: use WebhookReceiver, not AsyncWebhookReceiver.")

    def handler(event: Any, context: Any) -> dict[str, Any]:
        response = _answer(receiver, event)
        return {
            "statusCode": response.status,
            "headers": dict(response.headers),
            "body": response.body.decode("utf-8", "replace"),
            "isBase64Encoded": False,
        }

    return handler


def _answer(receiver: Receiver, event: Any) -> Response:
    if not isinstance(event, Mapping):
        return plain(400, "The event is not an HTTP request.")
    text = event.get("body") or ""
    if not isinstance(text, str):
        return plain(400, "The body is not text.")
    # Four characters of base64 are three bytes; a character of text is at least one.
    encoded = event.get("isBase64Encoded") is True
    if len(text) > (receiver.max_body * 4 // 3 + 4 if encoded else receiver.max_body):
        return receiver.too_large()
    try:
        body = base64.b64decode(text, validate=True) if encoded else text.encode()
    except (binascii.Error, ValueError):
        return plain(400, "The body is not valid base64 or Unicode.")
    return receiver.handle(
        Request(
            _method(event),
            str(event.get("rawPath") or event.get("path") or "/"),
            _query(event),
            list(_headers(event)),
            body,
        )
    )


def _method(event: Mapping[str, Any]) -> str:
    context = event.get("requestContext")
    http = context.get("http") if isinstance(context, Mapping) else None
    method = http.get("method") if isinstance(http, Mapping) else None
    return str(method or event.get("httpMethod") or "")


def _query(event: Mapping[str, Any]) -> str:
    raw = event.get("rawQueryString")
    if isinstance(raw, str):
        return raw
    # Format 1.0 hands the parameters over decoded, a load balancer as they came: its `%` stays one.
    several, single = event.get("multiValueQueryStringParameters"), event.get("queryStringParameters")
    chosen = several if isinstance(several, Mapping) and several else single
    return urlencode(chosen, doseq=True) if isinstance(chosen, Mapping) else ""


def _headers(event: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    several = event.get("multiValueHeaders")
    if isinstance(several, Mapping) and several:
        for name, values in several.items():
            for value in values if isinstance(values, list) else [values]:
                yield str(name), str(value)
        return
    single = event.get("headers")
    if isinstance(single, Mapping):
        for name, value in single.items():
            yield str(name), str(value)
