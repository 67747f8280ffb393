"""A campaign whose first page stops in its middle, over real HTTP."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from typing import Any, Self

from optimove_conditional_execution import AsyncCampaignReview, CampaignReadyEvent, CampaignReview, ReviewReport
from optimove_conditional_execution.testing import FaultServer
from optimove_conditional_execution.testing.faults import Connection, Fault


class StallingCampaign:
    """Serves so many rows, and then nothing more, without ending the answer."""

    def __init__(self, rows: int) -> None:
        body = ",".join(json.dumps({"CustomerID": f"C{number:07d}"}) for number in range(1, rows + 1))

        async def stall(line: Connection) -> None:
            await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n[" + body.encode() + b",")
            await line.hang()

        page = Fault("stall", stall)
        self._server = FaultServer(lambda request: page if request.method == "GET" else None)

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._server.close()

    def review(self, colour: str, reviewer: Any) -> ReviewReport:
        fake = self._server.optimove
        campaign = fake.add_campaign(5_000, lead_seconds=2)
        event: CampaignReadyEvent = campaign.event()
        assert event.clearance_required_by > dt.datetime.now(dt.UTC).replace(tzinfo=None)
        if colour == "sync":
            with self._server.client() as client:
                return CampaignReview(reviewer, client=client, batch_size=500).run(event)

        async def go() -> ReviewReport:
            async with self._server.async_client() as client:
                return await AsyncCampaignReview(reviewer, client=client, batch_size=500).run(event)

        return asyncio.run(go())
