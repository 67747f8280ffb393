"""What every engine says when there is no answer."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Final

from optimove_conditional_execution.errors import DeadlineExceeded, TransportCause, TransportError, TransportReason
from optimove_conditional_execution.transport.exchange import Exchange

_ROUNDING: Final = 0.005
"""Seconds by which a timer may fire early."""

_QUOTED: Final = re.compile(r"<|bytearray\(|\bb['\"]")
"""Where a library begins to quote what the server sent: bytes, or a half-read answer as a value."""


def transport_error(
    exchange: Exchange,
    error: Exception,
    *,
    request_sent: bool | None,
    cause: TransportCause,
    safe_to_quote: bool,
    uses_proxy: bool = False,
    handled: BaseException | None = None,
) -> TransportError | DeadlineExceeded:
    """Return our error for a library's.

    Args:
        exchange: The request.
        error: What the library, or a hook that it called, raised.
        request_sent: Whether the request was sent; None if that is not known.
        cause: What the class of the error says. `broken` is looked into further.
        safe_to_quote: Whether its text is the library's own and tells of the network.
        uses_proxy: Whether the connection goes to a proxy.
        handled: The exception that the caller was handling before the request; it is no cause of the error.
    """
    name = type(error).__name__
    where = _origin(exchange)
    _hold_back_quotes(error)
    if cause == "timeout" and exchange.deadline.remaining() <= _ROUNDING:
        return DeadlineExceeded(f"No answer from {where} before the deadline.", request_sent=request_sent)
    words = _own_words(error) if safe_to_quote else ""
    reason: TransportReason = ""
    detail = words if cause == "proxy" else ""
    if cause in ("broken", "other"):
        found, reason, detail = _diagnose(error, handled, request_sent=request_sent)
        cause = cause if found == "broken" else found
        if uses_proxy and cause in ("dns", "refused", "unreachable"):
            cause, reason = "proxy", ""
    remedy = _REMEDIES.get(reason) or _REMEDIES.get(cause, _CHECK_URL)
    if cause == "timeout":
        text = f"No answer from {where} within {exchange.bound:.3g} s ({name})."
    elif cause == "invalid-request":
        text = f"The request to {where} could not be sent ({name}): check base_url and the endpoints."
    elif safe_to_quote:
        text = f"No answer from {where} ({name}{words and f': {words}'}). {remedy}"
    else:
        # Raised by an event hook, a transport or an event loop of somebody else's; its message can quote anything.
        text = f"No answer from {where}: {name} was raised while it was asked."
    return TransportError(text, request_sent=request_sent, cause=cause, reason=reason, detail=detail)


_CHECK_URL: Final = "Check OPTIMOVE_BASE_URL, or base_url=."
_CA: Final = "Its certificate is not trusted here: name the file of the CA that signed it in SSL_CERT_FILE."
_REMEDIES: Final[dict[str, str]] = {
    "dns": f"The name of the host is not known. {_CHECK_URL}",
    "refused": f"Nothing listens there. {_CHECK_URL}",
    "not-tls": f"It does not speak TLS there: does the URL begin with http, or is the port another? {_CHECK_URL}",
    "unknown-issuer": _CA,
    "bad-certificate": _CA,
    "expired": "Its certificate has expired, if the clock of this machine is right.",
    "not-yet-valid": "Its certificate is not valid yet, if the clock of this machine is right.",
    "other-host": f"Its certificate is for another host. {_CHECK_URL}",
    "proxy": "Check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.",
}

# What OpenSSL says, in different versions, of a server that speaks plain HTTP.
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})

# OpenSSL's numbers, of openssl/x509_vfy.h.
_CERTIFICATE_REASONS: Final[dict[int, TransportReason]] = {
    2: "unknown-issuer",
    18: "unknown-issuer",
    19: "unknown-issuer",
    20: "unknown-issuer",
    21: "unknown-issuer",
    9: "not-yet-valid",
    10: "expired",
    62: "other-host",
    64: "other-host",
}
_UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})


def _diagnose(
    error: BaseException, handled: BaseException | None, *, request_sent: bool | None
) -> tuple[TransportCause, TransportReason, str]:
    """Return cause, reason and detail by the exception of the system's that a library has wrapped."""
    for each in _chain(error, handled):
        if isinstance(each, ssl.SSLError) and not hasattr(each, "reason"):
            continue  # aiohttp's wrapper has the class of what it wraps, and nothing else of it
        if isinstance(each, ssl.SSLCertVerificationError):
            return "tls", _CERTIFICATE_REASONS.get(each.verify_code, "bad-certificate"), each.verify_message
        if isinstance(each, ssl.SSLError):
            if request_sent is not False and isinstance(each, ssl.SSLEOFError | ssl.SSLZeroReturnError):
                continue  # TLS was there, and the connection was lost
            said = each.reason or ""
            return "tls", "not-tls" if said in _NOT_TLS else "", said.lower().replace("_", " ")
        if isinstance(each, socket.gaierror):
            return "dns", "temporary" if each.errno == socket.EAI_AGAIN else "", each.strerror or ""
        if isinstance(each, ConnectionRefusedError):
            return "refused", "", "connection refused"
        if isinstance(each, OSError) and each.errno in _UNREACHABLE:
            return "unreachable", "", each.strerror or ""
    return "broken", "", ""


def _chain(error: BaseException, handled: BaseException | None = None) -> Iterator[BaseException]:
    """Yield an error and its causes, those in groups too."""
    pending: list[BaseException | None] = [error]
    seen = {id(None), id(handled)}
    while pending:
        each = pending.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        pending += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        pending += (each.__cause__, each.__context__)


def _hold_back_quotes(error: BaseException) -> None:
    """Leave out of an error, and of its causes, what a library quotes of the server; trackers record causes too."""
    for each in _chain(error):
        words = _QUOTED.split(str(each), maxsplit=1)
        if len(words) > 1:
            each.args = (words[0].rstrip(" :"),)


def _own_words(error: BaseException) -> str:
    # A server that breaks the protocol may do so with an echo of the key, or of a customer's data.
    return _QUOTED.split(str(error), maxsplit=1)[0].rstrip(" :")


def _origin(exchange: Exchange) -> str:
    scheme, _, rest = exchange.url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"
