"""Parsing of responses: the result of a call, or an error that says what to do."""

from __future__ import annotations

import email.utils
import json
import math
import time
from collections.abc import Iterable
from datetime import UTC
from http import HTTPStatus
from typing import Final, TypeVar

from pydantic import SecretStr

from ..deadline import Clock
from ..errors import (
    APIError,
    AuthenticationError,
    NotFoundError,
    PayloadError,
    RateLimitError,
    ServerError,
    UnexpectedResponseError,
)
from ..messages import Response
from ..operations import Operation
from ..operations.codec import ReportedError
from .engine import MAX_RESPONSE_BODY

T = TypeVar("T")

_LONGEST_MESSAGE: Final = 200
_STRUCK_OUT: Final = "***"


def parse_response(
    operation: Operation[T], response: Response, *, secrets: Iterable[SecretStr], wall_clock: Clock = time.time
) -> T:
    """Return the result of a call.

    Args:
        operation: The call.
        response: Optimove's response.
        secrets: Secrets to redact from an error, because a server could echo them.
        wall_clock: Seconds since 1970, to read a `Retry-After` that is a date.

    Raises:
        APIError: The status is not 2xx, or the body is not of the documented shape.
    """
    wrong: PayloadError | None = None
    if 200 <= response.status < 300:
        try:
            return _parsed(operation, response)
        except PayloadError as error:
            wrong = error
    # The response may echo personal data, and must not be a local variable of a frame in the traceback.
    raise _error(operation, response, wrong, secrets, wall_clock)


def _error(
    operation: Operation[T],
    response: Response,
    wrong: PayloadError | None,
    secrets: Iterable[SecretStr],
    wall_clock: Clock,
) -> APIError:
    status = response.status
    kind: type[APIError]
    if isinstance(wrong, ReportedError) and wrong.status is not None:
        # An intermediary may change the status, so the status in the body takes precedence.
        response = Response(wrong.status, response.headers, response.body)
    body = _redacted(response.body, (*operation.redact, *secrets))
    message = "" if response.is_html else _message(body)
    said = "" if operation.private or not message else f" It said: {message}"
    where = f"{operation.name}: {operation.method} {operation.path} answered {_phrase(status)}."
    if response.status != status:
        where, status, wrong = f"{where} But {wrong}.", response.status, None
    if wrong is not None:
        end = "" if str(wrong).endswith(".") else "."
        kind, advice = UnexpectedResponseError, f" But {wrong}{end} {_hint(operation, response)}"
    else:
        kind, advice = _error_class(operation, response)
    return kind(
        f"{where}{advice}{said}",
        status=status,
        operation=operation.name,
        message=message,
        body=body,
        is_html=response.is_html,
        retry_after=_retry_after(response, wall_clock),
    )


def _parsed(operation: Operation[T], response: Response) -> T:
    if len(response.body) > MAX_RESPONSE_BODY:
        raise PayloadError(f"the answer is longer than {MAX_RESPONSE_BODY} bytes")
    if "content-encoding" in response.headers and response.header("content-encoding").lower() not in ("", "identity"):
        raise PayloadError("the answer is compressed, which was not asked for")
    return operation.parse(response)


_PREFIX: Final = ' Some tenants have this call below /current: Endpoints(path_prefix="/current").'
_PREFIXED: Final = ("/General/", "/Customers/", "/Integrations/")


_FIREWALLS: Final = {
    "incap_ses": "Imperva",
    "incapsula": "Imperva",
    "imperva": "Imperva",
    "cloudflare": "Cloudflare",
    "akamai": "Akamai",
    "awselb": "AWS",
}


def firewall(response: Response) -> str:
    """Return the vendor of the firewall or proxy that sent a response, from its headers and body; empty if unknown."""
    text = " ".join(f"{name} {value}" for name, value in response.headers.items()).lower()
    text += response.body[:4_096].decode("latin-1").lower()
    return next((name for trace, name in _FIREWALLS.items() if trace in text), "")


def _in_between(response: Response) -> str:
    """Return the explanation of a web page in place of an API response."""
    name = firewall(response)
    looks = f" (it looks like {name}'s)" if name else ""
    return (
        f" The page is not Optimove's API's: a firewall or proxy is in front{looks}. Ask Optimove support whether its "
        "firewall must know this machine's outgoing address, and check base_url and the proxies in between."
    )


def _hint(operation: Operation[T], response: Response) -> str:
    """Return a hint about what may have sent an unexpected response."""
    if not response.is_html:
        return "Check base_url and Endpoints: another server, or another version of the API, may have answered."
    prefix = _PREFIX if operation.path.startswith(_PREFIXED) else ""
    return f"It is a web page: check base_url and Endpoints, and what stands between, a firewall or a log-in.{prefix}"


def _error_class(operation: Operation[T], response: Response) -> tuple[type[APIError], str]:
    status = response.status
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimitError, _in_between(response) if response.is_html else ""
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return AuthenticationError, _in_between(response) if response.is_html else (
            " Check OPTIMOVE_API_KEY: it may be wrong, expired or disabled, or of a type that may not make this call; "
            "Conditional Execution most likely needs a key of type Admin."
        )
    if status == HTTPStatus.NOT_FOUND:
        prefix = _PREFIX if operation.path.startswith(_PREFIXED) else ""
        page = " It is a web page: another server than the API's may have answered." if response.is_html else ""
        return NotFoundError, (
            f" It does not exist, or your tenant's path differs: see Endpoints and base_url.{page}{prefix}"
        )
    if 300 <= status < 400:
        return APIError, " Redirects are not followed: check base_url, and the trailing slash in Endpoints."
    advice = _in_between(response) if response.is_html else ""
    return ServerError if status >= 500 else APIError, advice


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _redacted(body: bytes, secrets: Iterable[SecretStr]) -> bytes:
    for secret in (hidden.get_secret_value() for hidden in secrets):
        # A server can echo a secret as it is, or inside a JSON string.
        for form in {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}:
            if form:
                body = body.replace(form.encode("utf-8", "replace"), _STRUCK_OUT.encode())
    return body


def _message(body: bytes) -> str:
    """Return Optimove's error message: error bodies are JSON objects, JSON strings or plain text."""
    text = body[:4_096].decode("utf-8", "replace").strip()
    try:
        decoded: object = json.loads(body)
    except (ValueError, RecursionError):
        decoded = text
    if isinstance(decoded, dict):
        decoded = next((decoded[key] for key in ("message", "Message", "error", "title") if decoded.get(key)), "")
    if not isinstance(decoded, str):
        return ""
    line = " ".join("".join(character if character.isprintable() else " " for character in decoded).split())
    return line[:_LONGEST_MESSAGE]


def _retry_after(response: Response, wall_clock: Clock) -> float | None:
    value = response.header("retry-after")
    try:
        seconds = float(value)
    except ValueError:
        moment = _timestamp(value)
        if moment is None:
            return None
        # The date is on the server's clock, whose time its `Date` header may give.
        now = _timestamp(response.header("date"))
        seconds = moment - (wall_clock() if now is None else now)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _timestamp(value: str) -> float | None:
    """Return an HTTP date in seconds since 1970, or None when it is invalid."""
    try:
        moment = email.utils.parsedate_to_datetime(value)
        # HTTP dates are in GMT, also in the obsolete format that does not say so.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
