"""What every engine says when there is no answer."""

from __future__ import annotations

import re
import socket
import ssl
from typing import Final

from optimove_conditional_execution.errors import DeadlineExceeded, TransportError
from optimove_conditional_execution.transport.exchange import Exchange

_ROUNDING: Final = 0.005
"""Seconds by which a timer may fire early."""

_QUOTED: Final = re.compile(r"<|bytearray\(|\bb['\"]")
"""Where a library begins to quote what the server sent: bytes, or a half-read answer as a value."""


def no_answer(
    exchange: Exchange,
    error: Exception,
    *,
    request_sent: bool | None,
    is_late: bool,
    is_quotable: bool,
    is_senseless: bool,
) -> TransportError | DeadlineExceeded:
    """Return our error for a library's.

    Args:
        exchange: The request.
        error: What the library, or somebody's code in it, raised.
        request_sent: Whether the request was sent; None when nobody knows.
        is_late: Whether it is a time-out.
        is_quotable: Whether its text is the library's own and tells of the network.
        is_senseless: Whether it is about the request.
    """
    name = type(error).__name__
    where = _origin(exchange)
    _hold_back_quotes(error)
    if is_late:
        if exchange.deadline.remaining() <= _ROUNDING:
            return DeadlineExceeded(f"No answer from {where} before the deadline.", request_sent=request_sent)
        return TransportError(
            f"No answer from {where} within {exchange.bound:.3g} s ({name}).", request_sent=request_sent
        )
    if is_senseless:
        text = f"The request to {where} could not be sent ({name}): check base_url and the endpoints."
    elif is_quotable:
        text = f"No answer from {where} ({_named(name, error)}). {_remedy(error)}"
    else:
        # Raised by an event hook, a transport or an event loop of somebody else's; its message can quote anything.
        text = f"No answer from {where}: {name} was raised while it was asked."
    return TransportError(text, request_sent=request_sent)


_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"})
_CHECK_URL: Final = "Check OPTIMOVE_BASE_URL, or base_url=."


def _remedy(error: BaseException) -> str:
    """Return what helps, by the cause that a library has wrapped."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return "Its certificate is not trusted here: name the file of the CA that signed it in SSL_CERT_FILE."
        if isinstance(seen, ssl.SSLError) and getattr(seen, "reason", None) in _NOT_TLS:
            return f"It does not speak TLS there: does the URL begin with http, or is the port another? {_CHECK_URL}"
        if isinstance(seen, socket.gaierror):
            return f"The name of the host is not known. {_CHECK_URL}"
        if isinstance(seen, ConnectionRefusedError):
            return f"Nothing listens there. {_CHECK_URL}"
        seen = seen.__cause__ or seen.__context__
    return _CHECK_URL


def _hold_back_quotes(error: BaseException | None) -> None:
    """Leave out of an error, and of its causes, what a library quotes of the server; trackers record causes too."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        words = _QUOTED.split(str(error), maxsplit=1)
        if len(words) > 1:
            error.args = (words[0].rstrip(" :"),)
        error = error.__cause__ or error.__context__


def _named(name: str, error: Exception) -> str:
    # A server that breaks the protocol may do so with an echo of the key, or of a customer's data.
    words = _QUOTED.split(str(error), maxsplit=1)[0].rstrip(" :")
    return f"{name}: {words}" if words else name


def _origin(exchange: Exchange) -> str:
    scheme, _, rest = exchange.url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"
