"""Faults of a server, or of the network in front of it, for `FaultServer`.

A separate module, since tests name its members: `faults.HANG`, `faults.unavailable()`.
"""

from __future__ import annotations

import asyncio
import email.utils
import gzip
import http.client
import itertools
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from http import HTTPStatus
from typing import Final

from ..messages import Response

_JSON: Final = {"content-type": "application/json"}
_HTML: Final = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
_RST: Final = struct.pack("ii", 1, 0)
_MEGABYTE: Final = 1024 * 1024


class Connection:
    """A connection on the server's side, with the operations that faults use."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes, as fast as the other side reads them."""
        self._writer.write(data)
        await self._writer.drain()

    async def drip(self, data: bytes, every: float) -> None:
        """Send bytes one by one."""
        for byte in data:
            await self.send(bytes([byte]))
            await asyncio.sleep(every)

    async def hang(self) -> None:
        """Do nothing until the other side closes the connection."""
        while await self._reader.read(_MEGABYTE):
            pass

    def reset(self) -> None:
        """Reset the connection: the other side gets an error."""
        connection = self._writer.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        self._writer.transport.abort()

    def close(self) -> None:
        """Close the connection: the other side reads end of file."""
        self._writer.close()


Play = Callable[[Connection], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail, for one request.

    Attributes:
        name: Its name, such as `hang`.
        play: What the server does instead of answering.
        reads_body: Whether the request's body is read before.
        handled: Whether `FakeOptimove` handles the request before, so that only its response is lost.
        closes: Whether the connection is closed afterwards.
    """

    name: str
    play: Play = field(repr=False)
    reads_body: bool = True
    handled: bool = False
    closes: bool = True


def answer(name: str, response: Response, *, handled: bool = False) -> Fault:
    """Return the fault of a server that answers with a given response; a `content-length` is added.

    Args:
        name: The fault's name.
        response: The answer, as it is.
        handled: Whether `FakeOptimove` handles the request before.
    """
    return replace(_sent(name, written(response)), handled=handled, closes=False)


def drip_body(every: float = 0.05) -> Fault:
    """Return the fault of a server that answers 200 immediately, and then sends the body byte by byte, without end.

    Args:
        every: Seconds between two bytes.
    """

    async def play(connection: Connection) -> None:
        await connection.send(_head(200, {**_JSON, "content-length": "1000000"}) + b'"')
        await connection.drip(b"." * 1_000_000, every)

    return Fault("drip_body", play)


def drip_headers(every: float = 0.05) -> Fault:
    """Return the fault of a server that sends a byte of the answer's headers at a time, without end.

    Args:
        every: Seconds between two bytes.
    """

    async def play(connection: Connection) -> None:
        await connection.drip(b"HTTP/1.1 200 OK\r\nX-Drip: " + b"." * 1_000_000, every)

    return Fault("drip_headers", play)


def endless_continue(every: float = 0.01) -> Fault:
    """Return the fault of a server that answers 100 Continue repeatedly, and nothing else.

    Args:
        every: Seconds between two of them.
    """

    async def play(connection: Connection) -> None:
        for _ in itertools.repeat(None):
            await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            await asyncio.sleep(every)

    return Fault("endless_continue", play)


def long_header(size: int = 500_000) -> Fault:
    """Return the fault of a server that answers 200 with one header of a great length.

    Args:
        size: Bytes of its value.
    """
    return answer("long_header", Response(200, {**_JSON, "x-long": "x" * size}, b"{}"))


def gzip_bomb(size: int = 200 * _MEGABYTE) -> Fault:
    """Return the fault of a server that answers with a compressed body that is a thousand times longer unpacked.

    Args:
        size: Bytes of it, unpacked.
    """

    async def play(connection: Connection) -> None:
        body = await asyncio.to_thread(_bomb, size)
        await connection.send(
            _head(200, {**_JSON, "content-encoding": "gzip", "content-length": str(len(body))}) + body
        )

    return Fault("gzip_bomb", play, closes=False)


def endless_body(piece: int = 65_536) -> Fault:
    """Return the fault of a server whose answer never ends, and comes as fast as it is read.

    Args:
        piece: Bytes of a chunk.
    """

    async def play(connection: Connection) -> None:
        await connection.send(_head(200, {**_JSON, "transfer-encoding": "chunked"}) + b'1\r\n"\r\n')
        chunk = b"%x\r\n%b\r\n" % (piece, b"." * piece)
        for _ in itertools.repeat(None):
            await connection.send(chunk)

    return Fault("endless_body", play)


def unavailable(status: int = 503) -> Fault:
    """Return the fault of a server that is temporarily unavailable; use it n times for a longer outage.

    Args:
        status: The status, 500 to 599.
    """
    body = b'{"status":%d,"error":"Service Unavailable","message":"Try again later."}' % status
    return answer("unavailable", Response(status, _JSON, body))


def rate_limited(retry_after: float | datetime | None = None) -> Fault:
    """Return the fault of a server that rejects too many requests with 429.

    Args:
        retry_after: Seconds, or a time with a zone, for the header Retry-After; None for no such header.
    """
    headers = dict(_JSON)
    if isinstance(retry_after, datetime):
        headers["retry-after"] = email.utils.format_datetime(retry_after, usegmt=retry_after.utcoffset() is not None)
    elif retry_after is not None:
        headers["retry-after"] = f"{retry_after:g}"
    body = b'{"status":429,"error":"Too Many Requests","message":"Rate limit exceeded."}'
    return answer("rate_limited", Response(429, headers, body))


def redirect(location: str = "/elsewhere", status: int = 307) -> Fault:
    """Return the fault of a server, or of a proxy in front of it, that redirects.

    Args:
        location: Where to.
        status: 301, 302, 303, 307 or 308.
    """
    return answer("redirect", Response(status, {"location": location}))


def _sent(name: str, data: bytes) -> Fault:
    async def play(connection: Connection) -> None:
        await connection.send(data)

    return Fault(name, play)


def written(response: Response) -> bytes:
    """Return a response as the bytes of HTTP/1.1, with a `content-length` where it can have one."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    if response.status != HTTPStatus.NO_CONTENT:
        headers.setdefault("content-length", str(len(response.body)))
    return _head(response.status, headers) + response.body


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    phrase = http.client.responses.get(status, "")
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _bomb(size: int) -> bytes:
    # Members one after the other are one file.
    return gzip.compress(bytes(_MEGABYTE)) * (size // _MEGABYTE)


async def _stall(_: Connection) -> None:
    await asyncio.get_running_loop().create_future()


async def _reset(connection: Connection) -> None:
    connection.reset()


async def _close(connection: Connection) -> None:
    connection.close()


HANG: Final = Fault("hang", Connection.hang)
"""The request is read, and never answered."""

HANG_WHILE_UPLOADING: Final = Fault("hang_while_uploading", _stall, reads_body=False)
"""The request's head is read, its body is not, and there is no answer."""

RESET_WHILE_UPLOADING: Final = Fault("reset_while_uploading", _reset, reads_body=False)
"""The connection is reset when the request's head has arrived."""

RESET_AFTER_UPLOADING: Final = Fault("reset_after_uploading", _reset)
"""The connection is reset when the whole request has arrived."""

CLOSE_WITHOUT_ANSWER: Final = Fault("close_without_answer", _close)
"""The connection is closed when the whole request has arrived."""

LOST_ANSWER: Final = Fault("lost_answer", _close, handled=True)
"""The request is handled, and the connection closed before the response."""

TRUNCATED_BODY: Final = _sent("truncated_body", _head(200, {**_JSON, "content-length": "100"}) + b'{"id":')
"""The body ends before its `content-length`."""

BAD_CHUNK: Final = _sent("bad_chunk", _head(200, {**_JSON, "transfer-encoding": "chunked"}) + b"zz\r\n{}\r\n0\r\n\r\n")
"""The body comes in chunks whose lengths are not numbers."""

GARBAGE: Final = _sent("garbage", bytes(range(256)) * 16)
"""Bytes that are neither HTTP nor TLS; for the latter let the client use `FaultServer.https_url`."""

HTML_502: Final = answer("html_502", Response(502, {"content-type": "text/html"}, _HTML))
"""A proxy answers instead of the API."""

JSON_STRING: Final = answer("json_string", Response(200, _JSON, b'"The request was processed."'))
"""A 200 whose body is a JSON string, as some errors of Optimove's older API."""

EMPTY: Final = answer("empty", Response(200))
"""A 200 without a body."""

BROKEN_GZIP: Final = answer(
    "broken_gzip", Response(200, {**_JSON, "content-encoding": "gzip"}, b"\x1f\x8b\x08\x00 broken")
)
"""A 200 whose body claims to be compressed, and is not."""

LATIN_1_JSON: Final = answer("latin_1_json", Response(200, _JSON, '[{"id":"é","url":"https://é"}]'.encode("latin-1")))
"""A 200 whose JSON is not UTF-8."""

CLOSE_AFTER_ANSWER: Final = replace(answer("close_after_answer", Response(200, _JSON, b"[]")), closes=True)
"""A good answer on a connection that is closed after it, without `Connection: close`."""
