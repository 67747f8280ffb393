"""httpx clients whose requests are answered by a function in the same process, without sockets.

A file of its own, since only tests and the stand-in for Optimove need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx

from ...messages import Request, Response


def local_client(handle: Callable[[Request], Response]) -> httpx.Client:
    """Return an httpx client whose requests are answered by a function."""
    return httpx.Client(transport=httpx.MockTransport(lambda request: _handled(handle, request)))


def local_async_client(handle: Callable[[Request], Response]) -> httpx.AsyncClient:
    """Return an async httpx client whose requests are answered by a function."""
    return httpx.AsyncClient(transport=httpx.MockTransport(lambda request: _handled(handle, request)))


def _handled(handle: Callable[[Request], Response], request: httpx.Request) -> httpx.Response:
    answer = handle(
        Request(
            request.method,
            request.url.path,
            request.url.query.decode("ascii"),
            list(_pairs(request.headers)),
            request.content,
        )
    )
    return httpx.Response(answer.status, headers=dict(answer.headers), content=answer.body)


def _pairs(headers: httpx.Headers) -> Iterator[tuple[str, str]]:
    yield from headers.multi_items()
