"""Engine protocol: outgoing request, response stream, and the errors of a request without a response."""

from __future__ import annotations

import errno
import math
import re
import socket
import ssl
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeVar, final

from pydantic import Secret

from ..deadline import Deadline
from ..errors import DeadlineExceeded, OptimoveError, TransportCause, TransportError, TransportReason
from ..messages import Response
from ..tracebacks import clear_locals
from ..urls import origin

MAX_RESPONSE_BODY: Final = 8 * 1024 * 1024
"""Maximum size of a response in bytes; a longer one is cut one byte after."""

CLOSED: Final = "This client has been closed; make a new one."
FORKED: Final = "The http_client was made before a fork: make it, and the client, in each process."


@final
@dataclass(eq=False, slots=True)  # not frozen, which costs four times as much
class OutgoingRequest:
    """A request to send.

    Attributes:
        method: The HTTP method.
        url: Absolute, with the query.
        headers: Names and values. Reveal them within the expression that passes them to the library: error trackers
            record local variables, and the API key must not be in one of ours.
        body: The bytes, or None.
        deadline: The deadline of the whole call.
        attempt_timeout: Seconds that this try may take.
        first_try_timeout: Seconds that it may take as a first try, so that time is left for another; `math.inf` for no
            limit.
        heard_since: A kept-alive connection is reused only if data was received on it since this value of
            `time.monotonic`.
        read_until: For a response that is read as a stream: the end of reading a 2xx, while each wait for its next
            bytes takes `attempt_timeout` at most. None: the whole response must arrive within the try.
    """

    method: str
    url: str = field(repr=False)
    headers: Secret[Mapping[str, str]] = field(repr=False)
    body: bytes | None = field(repr=False)
    deadline: Deadline
    attempt_timeout: float
    first_try_timeout: float = math.inf
    heard_since: float = -math.inf
    read_until: Deadline | None = None

    def timeout(self) -> float:
        """Return the seconds left for the try.

        Raises:
            DeadlineExceeded: There is no time left; nothing was sent.
        """
        seconds = min(self.attempt_timeout, self.first_try_timeout, self.deadline.remaining())
        if seconds <= 0:
            raise DeadlineExceeded("The deadline had passed before the request was sent.", request_sent=False)
        return seconds


class Stream(Protocol):
    """A response whose body is still to be read.

    Attributes:
        response: Status and headers.
        is_framed: Whether the headers say where the body ends; otherwise the end of the connection does, or a crash.
    """

    response: Response
    is_framed: bool

    async def read(self) -> bytes:
        """Return the next bytes, about 64 kB at most; empty at the end."""
        ...

    async def aclose(self) -> None:
        """Return the connection to its pool, or close it if the body has not been read completely."""
        ...


class Engine(ABC):
    """Sends requests. All its exceptions are `TransportError` or `DeadlineExceeded`.

    Each engine is for asyncio or for threads. The coroutines of one for threads block, and never suspend: see
    `transport.waiting`.
    """

    @abstractmethod
    async def open(self, request: OutgoingRequest, /) -> Stream:
        """Send a request and return the response, its body still to be read, whatever its status.

        Raises:
            TransportError: No response came.
            DeadlineExceeded: The deadline passed first.
            ConfigurationError: The engine is closed.
        """

    async def send(self, request: OutgoingRequest, /) -> Response:
        """Send a request and return the response with its body; see `open`."""
        return await read_all(await self.open(request))

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connections: of an engine for asyncio, those of the running event loop."""


async def read_all(stream: Stream) -> Response:
    """Return a response with its body, cut one byte after `MAX_RESPONSE_BODY`, and close the stream."""
    body, size = bytearray(), -1
    try:
        while size < len(body) <= MAX_RESPONSE_BODY:
            size = len(body)
            body += await stream.read()
    except BaseException:
        body.clear()  # error trackers record local variables, and it can hold personal data
        raise
    finally:
        await stream.aclose()
    head = stream.response
    return Response(head.status, head.headers, bytes(body[: MAX_RESPONSE_BODY + 1]))


class ErrorTranslator(AbstractContextManager["ErrorTranslator"], ABC):
    """Translates an HTTP library's exceptions into ours. A class, as a generator would cost a third more per call."""

    _handled: BaseException | None = None

    def __init__(self, request: OutgoingRequest) -> None:
        self.request = request

    @abstractmethod
    def translate(self, error: Exception, handled: BaseException | None) -> TransportError | DeadlineExceeded:
        """Return the error for an exception of the library, or of a hook that it called.

        Args:
            error: The exception.
            handled: The exception that the caller was handling before; see `transport_error`.
        """

    def __enter__(self) -> Self:
        self._handled = sys.exception()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        handled, self._handled = self._handled, None
        if error is None:
            return
        # The library's frames hold the unmasked request, those of a cancellation too.
        clear_locals(error, handled=handled)
        if isinstance(error, Exception) and not isinstance(error, OptimoveError):
            raise self.translate(error, handled) from None


E = TypeVar("E", bound=ErrorTranslator)

_FRAMING: Final = frozenset({"content-length", "transfer-encoding"})


class BaseStream(Generic[E]):
    """Base class of the streams of all engines."""

    def __init__(
        self, response: Response, errors: E, end: Deadline, release: Callable[[], Any], *, is_framed: bool = False
    ) -> None:
        """Store what reading and closing need.

        Args:
            response: Status and headers, with lower-case names.
            errors: The error translator of the request.
            end: The deadline of the try.
            release: Returns the connection to its pool.
            is_framed: Whether the protocol says where a body ends, as HTTP/2 does.
        """
        self.response = response
        self.is_framed = (
            is_framed or response.status == HTTPStatus.NO_CONTENT or not _FRAMING.isdisjoint(response.headers)
        )
        self._errors = errors
        self._end: Deadline | None = end
        self._release: Callable[[], Any] | None = release
        if (until := errors.request.read_until) is not None and response.status // 100 == 2:
            self._end = None
            errors.request = replace(errors.request, deadline=until, first_try_timeout=math.inf)

    def _next_wait(self) -> Deadline:
        """Return the deadline for the next bytes.

        Raises:
            TimeoutError: It has passed.
        """
        if self._end is not None:
            return self._end
        if self._errors.request.deadline.expired:
            raise TimeoutError
        return Deadline.after(self._errors.request.timeout())

    def _take_release(self) -> Callable[[], Any] | None:
        release, self._release = self._release, None
        return release


Causes = Sequence[tuple[tuple[type[BaseException], ...], TransportCause]]
"""Classes of a library's exceptions, and the cause of each; the first match counts."""


def cause_of(error: Exception, causes: Causes) -> TransportCause:
    """Return the cause for the class of an exception."""
    for kinds, cause in causes:
        if isinstance(error, kinds):
            return cause
    return "other"


_ROUNDING: Final = 0.005
"""Seconds by which a timer may fire early."""

_QUOTED: Final = re.compile(r"<|bytearray\(|\bb['\"]")
"""Matches where a library starts to quote what the server sent: bytes, or the repr of a partial response."""


def transport_error(
    request: OutgoingRequest,
    error: Exception,
    *,
    request_sent: bool | None,
    cause: TransportCause,
    safe_to_quote: bool,
    uses_proxy: bool = False,
    handled: BaseException | None = None,
) -> TransportError | DeadlineExceeded:
    """Return our error for an exception of a library.

    Args:
        request: The request.
        error: The exception of the library, or of a hook that it called.
        request_sent: Whether the request was sent; None if that is not known.
        cause: The cause according to the class of the error. `broken` is diagnosed further.
        safe_to_quote: Whether its message is the library's own, about the network.
        uses_proxy: Whether the connection goes to a proxy.
        handled: The exception that the caller was handling before the request; it is not a cause of the error.
    """
    name = type(error).__name__
    where = origin(request.url)
    _hold_back_quotes(error)
    if cause == "timeout" and request.deadline.remaining() <= _ROUNDING:
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
        seconds = min(request.attempt_timeout, request.first_try_timeout)
        text = f"No answer from {where} within {seconds:.3g} s ({name})."
    elif cause == "invalid-request":
        text = f"The request to {where} could not be sent ({name}): check base_url and the endpoints."
    elif safe_to_quote:
        text = f"No answer from {where} ({name}{words and f': {words}'}). {remedy}"
    else:
        # Raised by the application's event hook, transport or event loop; its message can quote anything.
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

# OpenSSL's messages, in different versions, about a server that speaks plain HTTP.
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})

# OpenSSL's error codes, from openssl/x509_vfy.h.
_CERTIFICATE_REASONS: Final[dict[int, TransportReason]] = {
    **dict.fromkeys((2, 18, 19, 20, 21), "unknown-issuer"),
    9: "not-yet-valid",
    10: "expired",
    **dict.fromkeys((62, 64), "other-host"),
}
_UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})


def _diagnose(
    error: BaseException, handled: BaseException | None, *, request_sent: bool | None
) -> tuple[TransportCause, TransportReason, str]:
    """Return cause, reason and detail from the operating system's exception that a library has wrapped."""
    for each in _chain(error, handled):
        if isinstance(each, ssl.SSLError) and not hasattr(each, "reason"):
            continue  # aiohttp's wrapper has the class of the wrapped exception, and none of its attributes
        if isinstance(each, ssl.SSLCertVerificationError):
            return "tls", _CERTIFICATE_REASONS.get(each.verify_code, "bad-certificate"), each.verify_message
        if isinstance(each, ssl.SSLError):
            if request_sent is not False and isinstance(each, ssl.SSLEOFError | ssl.SSLZeroReturnError):
                continue  # TLS was established, and then the connection was lost
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
    """Yield an error and its causes, those in exception groups too."""
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
    """Remove from an error and its causes what a library quotes of the server; error trackers record causes too."""
    for each in _chain(error):
        words = _QUOTED.split(str(each), maxsplit=1)
        if len(words) > 1:
            each.args = (words[0].rstrip(" :"),)


def _own_words(error: BaseException) -> str:
    # An invalid response may echo the key or a customer's data.
    return _QUOTED.split(str(error), maxsplit=1)[0].rstrip(" :")
