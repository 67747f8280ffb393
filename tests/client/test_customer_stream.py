"""Customers as a stream, from servers that break off, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from optimove_conditional_execution import (
    AsyncOptimoveClient,
    CampaignCustomer,
    OptimoveClient,
    RetryPolicy,
    TransportError,
    UnexpectedResponseError,
)

Answer = Callable[[int, int], bytes]
QUICK = RetryPolicy(first_pause=0.001, longest_pause=0.002)


@contextlib.contextmanager
def server(answer: Answer) -> Iterator[str]:
    """Answer every request with the bytes for its number and its `$skip`, then hang up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        count = 0
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                head = connection.recv(65_536).decode()
                skip = int(parse_qs(urlsplit(head.split(" ")[1]).query)["$skip"][0])
                connection.sendall(answer(count, skip))
            count += 1

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def rows(start: int, stop: int) -> bytes:
    return json.dumps([{"CustomerID": f"C{number}"} for number in range(start, stop)]).encode()


def ok(body: bytes, *, length: int | None = None, head: str = "") -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 200 OK\r\n{head}content-length: {size}\r\nconnection: close\r\n\r\n".encode() + body


def read(url: str, colour: str, **options: Any) -> list[str]:
    customers: list[CampaignCustomer] = []
    settings: dict[str, Any] = {"base_url": url, "retry": QUICK, "timeout": 5.0}
    if colour == "sync":
        with OptimoveClient("key", **settings) as client:
            customers.extend(client.get_processed_campaign_customers(7, **options))
    else:

        async def go() -> None:
            async with AsyncOptimoveClient("key", **settings) as client:
                async for customer in client.get_processed_campaign_customers(7, **options):
                    customers.append(customer)

        asyncio.run(go())
    return [customer.customer_id for customer in customers]


@pytest.fixture(params=["sync", "async"])
def colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("declared", [True, False], ids=["by its length", "without a length"])
def test_a_page_that_breaks_off_is_taken_up_behind_its_rows(colour: str, declared: bool) -> None:
    def answer(count: int, skip: int) -> bytes:
        whole = rows(skip, min(skip + 100, 250))
        if count in (0, 2):
            part = whole[: len(whole) // 2]
            if declared:
                return ok(part, length=len(whole))
            return b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + part
        return ok(whole)

    with server(answer) as url:
        assert read(url, colour, page_size=100) == [f"C{number}" for number in range(250)]


@pytest.mark.parametrize("customers", [20, 500])
def test_one_that_ignores_skip_and_always_breaks_off_is_noticed(colour: str, customers: int) -> None:
    def answer(count: int, skip: int) -> bytes:
        assert count < 20, "it is read for ever"
        whole = rows(0, customers)
        return ok(whole[: len(whole) // (2 + count % 2)], length=len(whole))

    with server(answer) as url, pytest.raises(UnexpectedResponseError, match="has come before"):
        read(url, colour)


def test_one_that_never_gets_on_ends(colour: str) -> None:
    with server(lambda count, skip: ok(b"[", length=100)) as url, pytest.raises(TransportError):
        read(url, colour)


@pytest.mark.parametrize(
    "answer",
    [
        ok(b'"Unauthorized"'),
        ok(b"<html></html>"),
        ok(b"[1]"),
        ok(b'[{"CustomerID":""}]'),
        ok(b"[]", head="content-encoding: gzip\r\n"),
    ],
    ids=["a JSON string", "HTML", "no objects", "a blank id", "gzip"],
)
def test_what_is_no_list_of_customers_is_an_error(colour: str, answer: bytes) -> None:
    with server(lambda count, skip: answer) as url, pytest.raises(UnexpectedResponseError):
        read(url, colour)


def test_a_short_page_is_not_the_end(colour: str) -> None:
    with server(lambda count, skip: ok(rows(skip, min(skip + 7, 30)))) as url:
        assert len(read(url, colour, page_size=10)) == 30
