"""AWS Lambda adapter: API Gateway (REST and HTTP APIs), a function URL, a load balancer, or a VPC Lattice service."""

from __future__ import annotations

import base64
import binascii
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from ..deadline import Deadline
from ..errors import ConfigurationError
from ..messages import Request, Response, plain
from ..receivers.base import Receiver
from ..tracebacks import clear_own_locals
from ..validation import is_async

_RETURNING: Final = 0.2
"""Seconds reserved to record the outcome and to return, before Lambda ends the function."""


def lambda_handler(receiver: Receiver[Response]) -> Callable[[Any, Any], dict[str, Any]]:
    """Return a Lambda handler; make it at import time, so that warm starts reuse the client's connections.

    The function's remaining time, `context.get_remaining_time_in_millis()`, is the receiver's deadline if it is earlier
    than the notification's own. So the answer to Optimove is sent before Lambda ends the function.

    Args:
        receiver: A `WebhookReceiver` or a `ListenerReceiver`.

    Returns:
        A function of event and context. It takes the formats 1.0 and 2.0 of API Gateway and function URLs, those of
        load balancers with and without multi-value headers, and V1 and V2 of VPC Lattice; it answers an event with
        `multiValueHeaders` by `multiValueHeaders`, since a load balancer reads no others then.

    Raises:
        ConfigurationError: The receiver is an async one.
    """
    if not callable(getattr(receiver, "handle", None)) or is_async(receiver.handle):
        raise ConfigurationError("Lambda calls a function: use WebhookReceiver, not AsyncWebhookReceiver.")
    takes_deadline = _takes_deadline(receiver.handle)

    def handler(event: Any, context: Any) -> dict[str, Any]:
        try:
            deadline = _deadline(context) if takes_deadline else None
            response = _answer(receiver, event, {} if deadline is None else {"deadline": deadline})
            return {
                "statusCode": response.status,
                **_answer_headers(event, response),
                "body": response.body.decode("utf-8", "replace"),
                "isBase64Encoded": False,
            }
        except BaseException as error:
            # Trackers record local variables, and the event holds signature, token and personal data.
            del event
            clear_own_locals(error)
            raise

    return handler


def _takes_deadline(handle: Callable[..., Any]) -> bool:
    """Whether a receiver accepts a deadline; an integrator's own may not."""
    try:
        inspect.signature(handle).bind(None, deadline=None)
    except (TypeError, ValueError):
        return False
    return True


def _deadline(context: Any) -> Deadline | None:
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    milliseconds = remaining() if callable(remaining) else None
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None  # a local stand-in for Lambda
    return Deadline.after(milliseconds / 1000 - _RETURNING)


def _answer(receiver: Receiver[Response], event: Any, options: Mapping[str, Any]) -> Response:
    if not isinstance(event, Mapping):
        return plain(400, "The event is not an HTTP request.")
    text = event.get("body") or ""
    if not isinstance(text, str):
        return plain(400, "The body is not text.")
    encoded = event.get("isBase64Encoded") is True or event.get("is_base64_encoded") is True
    try:
        body = base64.b64decode(text, validate=True) if encoded else text.encode()
    except (binascii.Error, ValueError):
        return plain(400, "The body is not valid base64 or Unicode.")
    path, query = _target(event)
    return receiver.handle(Request(_method(event), path, query, list(_headers(event)), body), **options)


def _method(event: Mapping[str, Any]) -> str:
    context = event.get("requestContext")
    http = context.get("http") if isinstance(context, Mapping) else None
    method = http.get("method") if isinstance(http, Mapping) else None
    return str(method or event.get("httpMethod") or event.get("method") or "")  # the last is VPC Lattice's


def _target(event: Mapping[str, Any]) -> tuple[str, str]:
    """Return path and query."""
    # VPC Lattice V1 calls it raw_path. A raw path may include the query, and no path holds an unencoded `?`.
    path, _, query = str(event.get("rawPath") or event.get("raw_path") or event.get("path") or "/").partition("?")
    return path or "/", query or _query(event)


def _query(event: Mapping[str, Any]) -> str:
    raw = event.get("rawQueryString")
    if isinstance(raw, str):
        return raw
    # Format 1.0 passes the parameters decoded, a load balancer as received: its `%` is left as it is.
    for name in ("multiValueQueryStringParameters", "queryStringParameters", "query_string_parameters"):
        parameters = event.get(name)
        if isinstance(parameters, Mapping) and parameters:
            return urlencode(parameters, doseq=True, errors="surrogatepass")
    return ""


def _headers(event: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    several = event.get("multiValueHeaders")
    headers = several if isinstance(several, Mapping) and several else event.get("headers")
    if isinstance(headers, Mapping):
        for name, values in headers.items():
            # VPC Lattice V2 passes lists, and calls them headers.
            for value in values if isinstance(values, list) else [values]:
                yield str(name), str(value)


def _answer_headers(event: Any, response: Response) -> dict[str, Any]:
    """Return the response headers in the form that the sender of the event expects.

    A load balancer sends one of the two forms and reads that one; a REST API sends both and reads either.
    """
    answer: dict[str, Any] = {}
    several = isinstance(event, Mapping) and isinstance(event.get("multiValueHeaders"), Mapping)
    if several:
        answer["multiValueHeaders"] = {name: [value] for name, value in response.headers.items()}
    if not several or isinstance(event.get("headers"), Mapping):
        answer["headers"] = dict(response.headers)
    return answer
