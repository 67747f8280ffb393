"""What a service answered over HTTP, or why no answer came, and what a newcomer should do about it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Literal, final
from urllib.parse import urlsplit

from optimove_conditional_execution.errors import OptimoveError
from optimove_conditional_execution.messages import Response

Failure = Literal["refused", "timeout", "unknown-host", "tls", "broken"]
"""Nothing listens; no answer in time; no machine has that name; no TLS; the connection ended before the answer."""


@final
@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one POST.

    Attributes:
        url: Where it went to; its query can hold a token.
        seconds: How long the answer took, or the wait for it.
        status: The HTTP status; None when no answer came.
        failure: Why none came; None when one did.
        location: Where a redirect points to, without query.
        is_html: Whether the body is a page for people.
    """

    url: str = field(repr=False)
    seconds: float
    status: int | None = None
    failure: Failure | None = None
    location: str = ""
    is_html: bool = False

    @classmethod
    def of(cls, response: Response, *, url: str, seconds: float) -> Reply:
        """Return what an answer says."""
        location = response.headers.get("location", "").partition("?")[0]
        return cls(url, seconds, status=response.status, location=location, is_html=response.is_html)

    @classmethod
    def none(cls, error: OptimoveError, *, url: str, seconds: float) -> Reply:
        """Return why no answer came."""
        return cls(url, seconds, failure=_failure(error))

    @property
    def is_success(self) -> bool:
        """Whether the status is a 2xx."""
        return self.status is not None and self.status // 100 == 2

    @property
    def is_redirect(self) -> bool:
        """Whether it points elsewhere."""
        return self.status is not None and self.status // 100 == 3

    def __str__(self) -> str:
        """Return the status, or a word for why there is none."""
        return str(self.status or self.failure)


def _failure(error: OptimoveError) -> Failure:
    causes = list(_causes(error))
    for kind, failure in _KINDS:
        if any(isinstance(cause, kind) for cause in causes):
            return failure
    return "broken"


_KINDS: Final[tuple[tuple[type[BaseException], Failure], ...]] = (
    (ConnectionRefusedError, "refused"),
    (socket.gaierror, "unknown-host"),
    (ssl.SSLError, "tls"),
    (TimeoutError, "timeout"),
)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Return an error and what led to it, even where its text hides that."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for one in error.exceptions:
                yield from _causes(one)
        error = error.__cause__ or error.__context__


_SIGNATURE: Final = (
    "the signature does not fit: OPTIMOVE_WEBHOOK_SECRET of the service is another one, it signs something else than "
    "the raw body, or something in between changes the body"
)

_REMEDIES: Final[dict[int, str]] = {
    400: "it cannot read the notification: let it parse the raw body, as a receiver of the SDK does",
    401: _SIGNATURE,
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


def remedy(reply: Reply) -> str:
    """Return the probable cause and what to do, as half a sentence; empty for a good answer and for a rare one.

    Args:
        reply: To a notification with a right signature.
    """
    if reply.failure is not None:
        return _of_failure(reply)
    assert reply.status is not None  # noqa: S101 - either it failed or it has a status
    if reply.is_redirect:
        to = f" to {reply.location}" if reply.location else ""
        return (
            f"it redirects{to}, and Optimove is not known to follow: a mounted app does that; add it as a route, "
            "such as Route('/optimove', ASGIApp(receiver), methods=['POST']), or use the URL that it redirects to"
        )
    if reply.status == HTTPStatus.OK:
        return "that is a web page, not a webhook: correct the URL" if reply.is_html else ""
    return _REMEDIES.get(reply.status, "the handler failed" if reply.status > HTTPStatus.INTERNAL_SERVER_ERROR else "")


def _of_failure(reply: Reply) -> str:
    where = origin(reply.url)
    match reply.failure:
        case "refused":
            return f"nothing listens at {where}: start the service there, or correct the URL"
        case "unknown-host":
            return f"no machine is called {urlsplit(reply.url).hostname}: correct the URL"
        case "tls":
            return f"{where} does not speak TLS as it should: check whether the URL begins with http or https"
        case "timeout":
            return "the handler hangs or blocks its event loop: give what it waits for a timeout before the deadline"
        case _:
            return f"the connection ended: what listens at {where} crashed, or does not speak HTTP"


def origin(url: str) -> str:
    """Return scheme, host and port of a URL: its path and query can hold a token."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")
