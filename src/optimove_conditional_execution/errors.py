"""Exceptions of the SDK.

```
OptimoveError
├── ConfigurationError            a setting or an argument is missing or invalid
├── APIError                      Optimove responded with an error
│   ├── AuthenticationError       401, 403
│   ├── NotFoundError             404
│   ├── RateLimitError            429
│   ├── ServerError               5xx
│   └── UnexpectedResponseError   2xx, but not the documented shape
├── TransportError                no response
├── DeadlineExceeded              no time left
├── HeldBackError                 the kill switch stopped the call
├── SignatureError                an incoming request is not from Optimove
├── PayloadError                  it is, but cannot be understood
└── StoreError                    a claim store or a journal is unusable
    └── SupersededError           another run has taken over the review
```

No message holds an API key, a secret, a signature, a body or personal data.
"""

from __future__ import annotations

from typing import Final, Literal

MAX_ERROR_BODY: Final = 2_048
"""Bytes of a response body that an error keeps."""

TOO_LARGE: Final = 413
_EARLIER: Final = "An earlier request may have reached Optimove: unknown."
_FIRST_CLIENT_ERROR: Final = 400
_FIRST_SERVER_ERROR: Final = 500
TRANSIENT_STATUSES: Final = frozenset({408, 421, 425, 429})


TransportCause = Literal[
    "dns", "refused", "unreachable", "tls", "proxy", "timeout", "broken", "invalid-request", "other"
]
TransportReason = Literal[
    "", "temporary", "unknown-issuer", "expired", "not-yet-valid", "other-host", "bad-certificate", "not-tls"
]


class OptimoveError(Exception):
    """Base class of all exceptions of this SDK."""

    def __reduce__(self) -> tuple[object, ...]:
        """Support pickling: the attributes are keyword-only."""
        return _rebuild, (type(self), self.args, self.__dict__.copy())


def _rebuild(cls: type[OptimoveError], args: tuple[object, ...], attributes: dict[str, object]) -> OptimoveError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class ConfigurationError(OptimoveError, ValueError):
    """A setting or an argument is missing or invalid; the message says how to set it.

    Attributes:
        request_sent: False when nothing was sent; True or None when the client was closed during the call, and a
            request may have been sent, whose outcome is unknown.
    """

    request_sent: bool | None = False


class APIError(OptimoveError):
    """Optimove responded with an error status, or with an invalid body.

    Attributes:
        status: The HTTP status.
        message: Optimove's own message, in one line of at most 200 characters; empty when there is no readable one.
        body: The start of the response body, at most 2 kB. It can hold what you sent, so do not log it unread.
        operation: The name of the call, such as `create_webhook`.
        is_html: Whether the body is a web page. Then a firewall, a proxy or another server responded, not the API.
        retry_after: Seconds to wait, from the `Retry-After` header; None without one.
        earlier_unknown: Whether an earlier try of the same call ended without a response, or with a 5xx.
    """

    def __init__(
        self,
        text: str,
        *,
        status: int,
        operation: str,
        message: str = "",
        body: bytes = b"",
        is_html: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.operation = operation
        self.message = message
        self.body = body[:MAX_ERROR_BODY]
        self.is_html = is_html
        self.retry_after = retry_after
        self.earlier_unknown = False

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} {_EARLIER}" if self.earlier_unknown else text

    @property
    def is_transient(self) -> bool:
        """Whether the same request is likely to succeed later.

        True for 408, 421, 425, 429 and 5xx, and for any other 4xx whose body is a web page, since an intermediary sent
        that. False for a 413: the same body would be too large again.
        """
        if self.status >= _FIRST_SERVER_ERROR or self.status in TRANSIENT_STATUSES:
            return True
        return self.is_html and self.status >= _FIRST_CLIENT_ERROR and self.status != TOO_LARGE


class AuthenticationError(APIError):
    """401 or 403: the key is missing, wrong, expired, or of a type that may not make this call.

    With `is_html` a firewall or a proxy rejected the request, not the API, and the key may be right.
    """


class NotFoundError(APIError):
    """404: no such webhook or request, or a path that this tenant's API does not have."""


class RateLimitError(APIError):
    """429: too many requests. `retry_after` says how long to wait."""


class ServerError(APIError):
    """5xx: Optimove, or something in front of it, failed."""


class UnexpectedResponseError(APIError):
    """A 2xx whose body is not the documented shape: HTML, a bare string, or fields missing."""


class TransportError(OptimoveError):
    """No response was received.

    Attributes:
        request_sent: False when Optimove cannot have received the request, True when it was sent completely, None when
            that is not known.
        cause: What went wrong. `dns`: the host's name cannot be resolved. `refused`: nothing listens there.
            `unreachable`: there is no route to the host. `tls`: TLS cannot be set up. `proxy`: the proxy cannot be
            reached, or refuses. `timeout`: no response within the time for one try. `broken`: the connection was
            lost, or the response is not HTTP. `invalid-request`: the URL or a header is invalid. `other`: an event
            hook, a transport or an event loop that is not the SDK's raised an exception.
        reason: More about it, empty when nothing more is known. After `dns`: `temporary`, when the name server could
            not be asked. After `tls`: `not-tls`, when the server does not speak TLS; `unknown-issuer`, `expired`,
            `not-yet-valid`, `other-host` or `bad-certificate`, when its certificate is not accepted.
        detail: The message of the operating system, of OpenSSL or of the proxy, such as `certificate has expired`;
            often empty. Of the request it holds the host at most.
    """

    def __init__(
        self,
        text: str,
        *,
        request_sent: bool | None = None,
        cause: TransportCause = "broken",
        reason: TransportReason = "",
        detail: str = "",
    ) -> None:
        super().__init__(text)
        self.request_sent = request_sent
        self.cause: TransportCause = cause
        self.reason: TransportReason = reason
        self.detail = detail


class DeadlineExceeded(OptimoveError, TimeoutError):  # noqa: N818 - the contract's name, and HTTP's and gRPC's word
    """No time is left for the call.

    Attributes:
        request_sent: False when nothing was sent, True or None when a request went out whose outcome is unknown.
        acknowledged: For a call that is split into several requests, how many items Optimove took before time ran out.
        cause: Always `timeout`, as in a `TransportError`.
    """

    cause: Final = "timeout"

    def __init__(self, text: str, *, request_sent: bool | None = None, acknowledged: int = 0) -> None:
        super().__init__(text)
        self.request_sent = request_sent
        self.acknowledged = acknowledged


class HeldBackError(OptimoveError):
    """A call was stopped before its next request; the kill switch of a receiver or a review does that.

    Attributes:
        request_sent: False when nothing was sent, True or None when a request went out before, whose outcome is
            unknown.
    """

    def __init__(self, text: str, *, request_sent: bool | None = False) -> None:
        super().__init__(text)
        self.request_sent = request_sent

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.request_sent is False else f"{text} {_EARLIER}"


class SignatureError(OptimoveError):
    """An incoming request is not from Optimove: its signature is missing, malformed or made with another secret."""


class PayloadError(OptimoveError):
    """A payload cannot be understood, or cannot be written as JSON.

    Attributes:
        path: The field, such as `user.user_id`; empty when the whole payload is meant.
    """

    def __init__(self, text: str, *, path: str = "") -> None:
        super().__init__(text)
        self.path = path


class StoreError(OptimoveError):
    """A claim store or a journal cannot be reached, or cannot be relied on any more.

    Its server is away or takes no writes, which a later try may find over; or its file was removed or replaced while it
    was in use, which only a restart of all processes ends.
    """


class SupersededError(StoreError):
    """Another run has taken over the review; this one may record and send nothing more."""


def was_processed(error: Exception | None) -> bool | None:
    """Whether Optimove processed a call: True without an error, None when that is not known.

    It did not when no request was sent, or when Optimove refused each. A 408 or a web page is not Optimove's own word:
    what stands between may have passed the request on. Whatever is not an error of the SDK says nothing.
    """
    if error is None:
        return True
    if isinstance(error, APIError):
        refused = _FIRST_CLIENT_ERROR <= error.status < _FIRST_SERVER_ERROR
        is_own = isinstance(error, RateLimitError) or not error.is_transient
        return False if refused and is_own and not error.earlier_unknown else None
    return False if getattr(error, "request_sent", not isinstance(error, OptimoveError)) is False else None
