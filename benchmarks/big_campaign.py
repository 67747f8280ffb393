"""A campaign of millions behind a loopback server that costs next to nothing: `python -m benchmarks.big_campaign`.

It serves GetProcessedCampaignCustomers from one block of text that is made at the start, and takes
UpdateCustomerPromotionStatus without looking at it until somebody asks for `/stats`. So what is measured is the client.
It runs in a process of its own, prints its URL, and ends when its standard input is closed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from optimove_conditional_execution.testing.campaigns import Rows

CAMPAIGN_ID = 1359

_CUSTOMERS = "/customers/getprocessedcampaigncustomers"
_STATUSES = "/integrations/updatecustomerpromotionstatus"
_EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
_PIECE = 1 << 18
_MOST_CUSTOMERS = 9_999_999
_CODE = re.compile(rb'(\d{7})("[^}]*")WB23')
_STATUS = re.compile(rb'"CustomerID":\s*"C(\d{7})",\s*"Status":\s*(true|false)')


@dataclass(frozen=True)
class Stats:
    """What the server has seen.

    Attributes:
        pages: Answers to GetProcessedCampaignCustomers, the empty last one too.
        rows: Rows in them.
        updates: Calls of UpdateCustomerPromotionStatus.
        largest: Statuses of the largest of them.
        statuses: Statuses in all.
        approved: Distinct customers whose last status is true.
        denied: Distinct customers whose last status is false.
        repeated: Statuses for a customer who had one already.
    """

    pages: int
    rows: int
    updates: int
    largest: int
    statuses: int
    approved: int
    denied: int
    repeated: int


@dataclass(frozen=True)
class BigCampaign:
    """A server that runs.

    Attributes:
        url: The base URL for a client; any API key does.
        customers: How many there are.
        campaign_id: The campaign.
    """

    url: str
    customers: int
    campaign_id: int = CAMPAIGN_ID

    def stats(self) -> Stats:
        """Ask what it has seen."""
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{self.url}/stats") as answer:
            return Stats(**json.load(answer))


@contextlib.contextmanager
def big_campaign(
    customers: int,
    *,
    channels: int = 1,
    personal_codes: bool = False,
    ignores_paging: bool = False,
    page_cap: int | None = None,
) -> Iterator[BigCampaign]:
    """Run a server in a process of its own.

    Args:
        customers: How many: C0000001 and on.
        channels: Rows for each of them; one channel comes after the other.
        personal_codes: Whether each has a promo code of their own.
        ignores_paging: Whether every answer has all of them, whatever `$top` and `$skip` say.
        page_cap: Rows of an answer at most.
    """
    command = [sys.executable, "-m", "benchmarks.big_campaign", "--customers", str(customers)]
    command += ["--channels", str(channels)]
    command += ["--personal-codes"] if personal_codes else []
    command += ["--ignores-paging"] if ignores_paging else []
    command += ["--page-cap", str(page_cap)] if page_cap is not None else []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent
    ) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("the server did not start")
            yield BigCampaign(url, customers)
        finally:
            process.kill()


class Server:
    """Answers from one block of text in which all rows are equally long."""

    def __init__(
        self, customers: int, *, channels: int, personal_codes: bool, ignores_paging: bool, page_cap: int | None
    ) -> None:
        rows = Rows(customers, channels=channels)
        self._count = len(rows)
        self._ignores_paging = ignores_paging
        self._page_cap = self._count if page_cap is None else page_cap
        text = rows.text(0, self._count, ())
        self._text = memoryview(_CODE.sub(rb"\1\2P\1", text) if personal_codes else text)
        self._width = (len(self._text) + 1) // self._count
        self._pages = self._rows = 0
        self._updates: list[bytes] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1])) if length else b""
                await self._answer(head.split(b" ", 2)[1].decode("ascii"), body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, target: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        parts = urlsplit(target)
        path = parts.path.lower()
        if path.endswith(_STATUSES):
            self._updates.append(body)
            writer.write(_EMPTY)
        elif path.endswith(_CUSTOMERS):
            await self._page(dict(parse_qsl(parts.query)), writer)
        elif path == "/stats":
            text = json.dumps(vars(self._stats())).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
        else:
            writer.write(_MISSING)

    async def _page(self, query: dict[str, str], writer: asyncio.StreamWriter) -> None:
        start, stop = 0, self._count
        if not self._ignores_paging:
            start = min(int(query.get("$skip", 0)), self._count)
            stop = min(self._count, start + min(int(query.get("$top", self._count)), self._page_cap))
        rows = self._text[start * self._width : max(start, stop) * self._width - 1 if stop > start else 0]
        self._pages += 1
        self._rows += stop - start
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n["
        writer.write(head % (len(rows) + 2))
        for piece in range(0, len(rows), _PIECE):
            writer.write(rows[piece : piece + _PIECE])
            await writer.drain()
        writer.write(b"]")

    def _stats(self) -> Stats:
        last: dict[bytes, bytes] = {}
        sizes = []
        for update in self._updates:
            found = _STATUS.findall(update)
            sizes.append(len(found))
            last.update(found)
        approved = sum(status == b"true" for status in last.values())
        total = sum(sizes)
        return Stats(
            pages=self._pages,
            rows=self._rows,
            updates=len(sizes),
            largest=max(sizes, default=0),
            statuses=total,
            approved=approved,
            denied=len(last) - approved,
            repeated=total - len(last),
        )


async def serve(server: Server) -> None:
    """Serve on a free port, which is printed, until standard input is closed."""
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0, limit=1 << 22)
    print(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    listening.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.big_campaign")
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--channels", type=int, default=1, help="rows of each customer")
    parser.add_argument("--personal-codes", action="store_true", help="give each customer a promo code of their own")
    parser.add_argument("--ignores-paging", action="store_true", help="give all customers in every answer")
    parser.add_argument("--page-cap", type=int, help="rows of an answer at most")
    given = parser.parse_args()
    if not 1 <= given.customers <= _MOST_CUSTOMERS:
        parser.error(f"--customers must be 1 to {_MOST_CUSTOMERS}")
    asyncio.run(serve(Server(**vars(given))))


if __name__ == "__main__":
    main()
