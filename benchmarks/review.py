"""A campaign of a million customers through a review, a naive program and a floor, each in a process of its own.

`python -m benchmarks.review WHAT URL` is one such process; it prints seconds and megabytes.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import httpx
from pydantic import BaseModel, BeforeValidator, Field

from benchmarks.big_campaign import CAMPAIGN_ID, BigCampaign, big_campaign
from benchmarks.result import Result
from optimove_conditional_execution import (
    CampaignCustomer,
    CampaignReadyEvent,
    CampaignReview,
    OptimoveClient,
    RateLimit,
)
from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.handlers import CampaignReviewer
from optimove_conditional_execution.stores import MemoryJournal, SqliteDecisionLog, SqliteJournal

MANY: Final = 1_000_000
FEW: Final = 100_000
CHUNK: Final = 10_000
ROUNDS: Final = 3
LIMIT: Final = RateLimit(50, per=10.0)

GET: Final = f"/Customers/GetProcessedCampaignCustomers?CampaignID={CAMPAIGN_ID}"
UPDATE: Final = "/Integrations/UpdateCustomerPromotionStatus"


class Customer(BaseModel):
    """What an integrator would write down from Optimove's reference."""

    customer_id: Annotated[str, Field(alias="CustomerID")]
    action_id: Annotated[int | None, Field(alias="ActionID")] = None
    channel_id: Annotated[int | None, Field(alias="ChannelID")] = None
    template_id: Annotated[int | None, Field(alias="TemplateID")] = None
    promo_codes: Annotated[
        list[str], BeforeValidator(lambda codes: codes.split(",") if codes else []), Field(alias="PromoCode")
    ] = []
    customer_attributes: Annotated[list[Any], Field(alias="CustomerAttributes")] = []


def post(client: httpx.Client, ids: Sequence[str]) -> None:
    updates = [{"CustomerID": customer_id, "Status": True} for customer_id in ids]
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    client.post(UPDATE, json={"TimeStamp": now, "CampaignID": CAMPAIGN_ID, "PromosUpdated": updates}).raise_for_status()


def naive(url: str) -> None:
    """Ask for everything, validate a list, post the chunks in a row."""
    with httpx.Client(base_url=url, timeout=60) as client:
        customers = [Customer.model_validate(row) for row in client.get(GET).json()]
        approved = [customer.customer_id for customer in customers[::2]]
        for at in range(0, len(approved), CHUNK):
            post(client, approved[at : at + CHUNK])


def floor(url: str) -> None:
    """Read page by page, parse with `json.loads` and post; nothing is checked, remembered or bounded."""
    read, approved = 0, list[str]()
    with httpx.Client(base_url=url, timeout=60) as client:
        while True:
            with client.stream("GET", f"{GET}&$top={CHUNK}&$skip={read}") as answer:
                rows = json.loads(b"".join(answer.iter_raw()) or b"[]")
            if not rows:
                break
            read += len(rows)
            approved += [row["CustomerID"] for row in rows[::2]]
            while len(approved) >= CHUNK:
                post(client, approved[:CHUNK])
                approved = approved[CHUNK:]
        if approved:
            post(client, approved)


def every_second(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    return [customer.customer_id for customer in customers[::2]]


def everybody(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    return [customer.customer_id for customer in customers]


def review(
    url: str,
    *,
    durable: bool = True,
    limit: RateLimit | None = None,
    page_size: int | None = CHUNK,
    reviewer: CampaignReviewer = every_second,
    logged: bool = False,
) -> None:
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    event = CampaignReadyEvent(
        event_type_id=5, timestamp=now, campaign_id=CAMPAIGN_ID, clearance_required_by=now + timedelta(hours=1)
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(SqliteJournal(Path(folder) / "reviews.db")) as file,
        OptimoveClient("key", base_url=url, timezone="UTC", rate_limit=limit) as client,
        contextlib.closing(SqliteDecisionLog(Path(folder) / "decisions.db")) as log,
        CampaignReview(
            reviewer,
            client=client,
            journal=file if durable else MemoryJournal(),
            page_size=page_size,
            decision_log=log if logged else None,
        ) as campaign_review,
    ):
        report = campaign_review.run(event)
    if not report.complete:
        raise RuntimeError(f"incomplete: {report.error}")


WORK: Final[dict[str, Callable[[str], None]]] = {
    "naive": naive,
    "floor": floor,
    "review": review,
    "in memory": lambda url: review(url, durable=False),
    "all approved": lambda url: review(url, reviewer=everybody),
    "no paging": lambda url: review(url, page_size=None),
    "logged": lambda url: review(url, logged=True),
    "limited": lambda url: review(url, limit=LIMIT, reviewer=everybody),
    "limited, logged": lambda url: review(url, limit=LIMIT, reviewer=everybody, logged=True),
}


class Run(NamedTuple):
    """What one process took: wall seconds, and megabytes at its peak above those of its imports."""

    seconds: float
    megabytes: float


def run(what: str, campaign: BigCampaign) -> Run:
    before = campaign.stats()
    command = [sys.executable, "-m", "benchmarks.review", what, campaign.url]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    after = campaign.stats()
    half = 1 if what.startswith(("all", "limited")) else 2
    if after.statuses - before.statuses != campaign.customers // half or after.largest > CHUNK:
        raise RuntimeError(f"{what}: {after.statuses - before.statuses} statuses were sent")
    return Run(*map(float, printed.stdout.split()))


def measure() -> list[Result]:
    names = ("naive", "floor", "review", "in memory")
    took: dict[str, list[Run]] = {name: [] for name in names}
    with big_campaign(MANY) as campaign:
        for _ in range(ROUNDS):
            for name in names:
                took[name].append(run(name, campaign))
        before = campaign.stats()
        limited = run("limited", campaign).seconds
        after = campaign.stats()
        logged = run("logged", campaign).seconds
        limited_logged = run("limited, logged", campaign).seconds
    requests = after.pages + after.updates - before.pages - before.updates
    allowed = LIMIT.per * ((requests - 1) // LIMIT.requests)
    with big_campaign(FEW) as campaign:
        few = run("review", campaign).megabytes
    with big_campaign(MANY, ignores_paging=True) as campaign:
        one_array = run("no paging", campaign).megabytes
    kinds: dict[str, dict[str, Any]] = {"plain": {}, "channels": {"channels": 3}, "codes": {"personal_codes": True}}
    each: dict[str, list[Run]] = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, options in kinds.items():
            with big_campaign(FEW, **options) as campaign:
                each[name].append(run("all approved", campaign))
    fewest = {name: min(one.seconds for one in runs) for name, runs in each.items()}
    best = {name: min(each.seconds for each in runs) for name, runs in took.items()}
    peak = {name: max(each.megabytes for each in runs) for name, runs in took.items()}
    return [
        Result("review of 1,000,000 / naive program", "s", best["review"], best["naive"], 0.5),
        Result("review of 1,000,000 / floor", "s", best["review"], best["floor"], 2.5),
        Result("  with SQLite journal / in memory", "s", best["review"], best["in memory"], 1.11),
        Result("  peak memory / naive program", "MB", peak["review"], peak["naive"], 0.06),
        Result("  peak memory / 60 MB", "MB", peak["review"], 60.0, 1.0),
        Result("  peak memory, 100,000 customers / 60 MB", "MB", few, 60.0, 1.0),
        Result("  peak memory, one array of 1,000,000 / 60 MB", "MB", one_array, 60.0, 1.0),
        Result("  50 requests in 10 s / what they must take", "s", limited, allowed, 1.05),
        Result("  with a decision log / without", "s", logged, best["review"], 1.15),
        Result("  50 requests in 10 s, with a log / without", "s", limited_logged, limited, 1.15),
        Result("review of 100,000, each in 3 channels / in one", "s", fewest["channels"], fewest["plain"], 5.5),
        Result("review of 100,000, each with a promo code / with one", "s", fewest["codes"], fewest["plain"], 2.5),
    ]


def peak() -> float:
    """Return the most megabytes that this process has had in memory.

    `resource.getrusage` knows it too, but there it begins with what the parent had when it started this process.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    what, url = sys.argv[1:]
    # What is imported late belongs to the imports, too.
    with httpx.Client() as client, tempfile.TemporaryDirectory() as folder:
        client.build_request("GET", url)
        SqliteJournal(Path(folder) / "warm.db").close()
        OptimoveClient("key", base_url=url).close()
    before = peak()
    began = time.perf_counter()
    WORK[what](url)
    seconds = time.perf_counter() - began
    print(seconds, peak() - before)


if __name__ == "__main__":
    main()
