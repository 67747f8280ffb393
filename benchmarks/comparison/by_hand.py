"""What an engineer writes in an hour: raw bytes, a constant-time compare, one client, a timeout."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response

Decide = Callable[[str], Awaitable[object]]
Verify = Callable[[bytes, Mapping[str, str]], bool]

APPROVAL = "/conditional-execution/v2/triggered/approval"


def verified_by(secret: str) -> Verify:
    def verify(body: bytes, headers: Mapping[str, str]) -> bool:
        expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(expected, headers.get("optimove-signature-content", ""))

    return verify


def create_app(decide: Decide, *, verify: Verify, base_url: str, api_key: str) -> FastAPI:
    app = FastAPI()
    client = httpx.AsyncClient(base_url=base_url, headers={"X-API-KEY": api_key}, timeout=2.0)

    @app.post("/optimove")
    async def optimove(request: Request) -> Response:
        body = await request.body()
        if not verify(body, request.headers):
            return Response(status_code=401)
        notification: dict[str, Any] = json.loads(body)
        approved = await decide(notification["user"]["user_id"])
        answer = {
            "timestamp": int(time.time() * 1000),
            "request_uid": notification["request_uid"],
            "approved": bool(approved),
            "additional_data": {},
        }
        (await client.post(APPROVAL, json=answer)).raise_for_status()
        return Response(status_code=200)

    return app


def review(
    decide: Callable[[list[str]], list[str]], *, base_url: str, api_key: str, campaign: int, size: int = 1_000
) -> None:
    """Review a scheduled campaign: read all, decide in batches, report each."""
    with httpx.Client(base_url=base_url, headers={"X-API-KEY": api_key}, timeout=30.0) as client:
        customers = client.get("/Customers/GetProcessedCampaignCustomers", params={"CampaignID": campaign})
        ids = [customer["CustomerID"] for customer in customers.raise_for_status().json()]
        for start in range(0, len(ids), size):
            approved = decide(ids[start : start + size])
            update = {
                "CampaignID": campaign,
                "TimeStamp": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
                "PromosUpdated": [{"CustomerID": customer_id, "Status": True} for customer_id in approved],
            }
            client.post("/Integrations/UpdateCustomerPromotionStatus", json=update).raise_for_status()
