"""HTTP replies of a service: the status or the failure, and the remedy."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Literal, final
from urllib.parse import urlsplit

from ..deadline import Deadline
from ..errors import DeadlineExceeded, TransportError
from ..testing import Delivery
from ..transport.engine import OutgoingRequest
from ..transport.http import AsyncHttpEngine
from ..urls import origin

Failure = Literal["refused", "timeout", "unknown-host", "tls", "broken"]
"""Nothing listens; no answer in time; unknown host name; no TLS; the connection ended before the answer."""

_GRACE_SECONDS: Final = 5.0
"""How long after a notification's deadline its webhook may still answer over HTTP."""

_FAILURES: Final[dict[str, tuple[Failure, str]]] = {
    "refused": ("refused", "nothing listens at {origin}: start the service there, or correct the URL"),
    "dns": ("unknown-host", "no machine is called {host}: correct the URL"),
    "tls": ("tls", "{origin} does not speak TLS as it should: check whether the URL begins with http or https"),
    "timeout": (
        "timeout",
        "the handler hangs or blocks its event loop: give what it waits for a timeout before the deadline",
    ),
    "": ("broken", "the connection ended: what listens at {origin} crashed, or does not speak HTTP"),
}
"""Failure and remedy, by the cause of a `TransportError` or a `DeadlineExceeded`; "" stands for all others."""

_REMEDIES: Final[dict[int, str]] = {
    400: "it cannot read the notification: let it parse the raw body, as a receiver of the SDK does",
    401: "the signature does not fit: OPTIMOVE_WEBHOOK_SECRET of the service is another one, it signs something else "
    "than the raw body, or something in between changes the body",
    403: "something in front of the handler refuses it, such as protection against CSRF or a login: exempt the route",
    404: "there is no such route: compare the path of the URL with the routes of the service",
    405: "the route does not take POST: add it with methods=['POST']",
    413: "it takes no body of this size: raise the limit",
    415: "the framework refuses the body: take the raw body instead of a parsed one",
    422: "the framework parses the body before the handler: take the raw body instead, as ASGIApp does",
    500: "the handler or what is around it raised: its traceback is in the log of the service",
    502: "a proxy stands in front of the service and cannot reach it",
    503: "it is overloaded, its claim store is away, or its answer did not get through: check OPTIMOVE_BASE_URL and "
    "OPTIMOVE_API_KEY of the service",
    504: "a proxy stands in front of the service, and has given it up",
}


@final
@dataclass(frozen=True, slots=True)
class Reply:
    """The result of one POST.

    Attributes:
        url: The URL; its query can hold a token.
        seconds: How long the answer took, or the wait for it.
        status: The HTTP status; None when no answer came.
        failure: Why no answer came; None when one did.
        location: The target of a redirect, without query.
        is_html: Whether the body is a page for people.
    """

    url: str = field(repr=False)
    seconds: float
    status: int | None = None
    failure: Failure | None = None
    location: str = ""
    is_html: bool = False

    @property
    def is_success(self) -> bool:
        """Whether the status is a 2xx."""
        return self.status is not None and self.status // 100 == 2

    @property
    def is_redirect(self) -> bool:
        """Whether the status is a redirect."""
        return self.status is not None and self.status // 100 == 3

    @property
    def remedy(self) -> str:
        """The probable cause and what to do, as half a sentence; empty for a good answer and for a rare one.

        It holds for the answer to a notification with a right signature.
        """
        if self.status is None:
            remedy = dict(_FAILURES.values())[self.failure or "broken"]
            return remedy.format(origin=origin(self.url), host=urlsplit(self.url).hostname)
        if self.is_redirect:
            to = f" to {self.location}" if self.location else ""
            return (
                f"it redirects{to}, and Optimove is not known to follow: a mounted app does that; add it as a route, "
                "such as Route('/optimove', ASGIApp(receiver), methods=['POST']), or use the URL that it redirects to"
            )
        if self.status == HTTPStatus.OK:
            return "that is a web page, not a webhook: correct the URL" if self.is_html else ""
        return _REMEDIES.get(self.status, "the handler failed" if self.status > 500 else "")

    def __str__(self) -> str:
        """Return the status, or the failure."""
        return str(self.status or self.failure)


async def post(engine: AsyncHttpEngine, delivery: Delivery, *, timeout_ms: int) -> Reply:
    """Post a notification or an event.

    Args:
        engine: Sends the request; of the event loop that also serves the simulator.
        delivery: The request and its URL.
        timeout_ms: Milliseconds until its deadline; the answer may come five seconds later.
    """
    start = time.monotonic()
    seconds = max(0, timeout_ms) / 1000 + _GRACE_SECONDS
    request = delivery.request
    outgoing = OutgoingRequest(
        request.method, delivery.url, dict(request.headers), request.body, Deadline.after(seconds), seconds
    )
    try:
        response = await engine.send(outgoing)
    except (TransportError, DeadlineExceeded) as error:
        failure, _ = _FAILURES.get(error.cause, _FAILURES[""])
        return Reply(delivery.url, time.monotonic() - start, failure=failure)
    location = response.headers.get("location", "").partition("?")[0]
    taken = time.monotonic() - start
    return Reply(delivery.url, taken, status=response.status, location=location, is_html=response.is_html)
