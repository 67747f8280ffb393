"""A scheduled campaign, reviewed in different ways; `python -m benchmarks.comparison.reviewing` is one such process."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.big_campaign import CAMPAIGN_ID, BigCampaign, big_campaign
from benchmarks.comparison import by_hand
from benchmarks.comparison.words import KEY, NOT_ITS_JOB, Table, word
from benchmarks.review import peak
from benchmarks.review import run as run_bigly
from optimove_conditional_execution import (
    CampaignCustomer,
    CampaignReadyEvent,
    CampaignReview,
    Deadline,
    OptimoveClient,
)
from optimove_conditional_execution.stores import SqliteJournal
from optimove_conditional_execution.testing import Campaign, FakeOptimove, FaultServer

CUSTOMERS: Final = 200_000
ROOT: Final = Path(__file__).parent.parent.parent

Decide = Callable[[list[str]], list[str]]
Way = Callable[[str, CampaignReadyEvent, Path, Decide], None]
"""Reviews a campaign: Optimove's URL, the event, a folder of its own, how to decide about a batch."""


def sdk(url: str, event: CampaignReadyEvent, folder: Path, decide: Decide) -> None:
    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        return decide([customer.customer_id for customer in customers])

    with OptimoveClient(KEY, base_url=url, timezone="UTC") as client:
        CampaignReview(reviewer, client=client, journal=SqliteJournal(folder / "reviews.db"), concurrency=1).run(event)


def hand(url: str, event: CampaignReadyEvent, folder: Path, decide: Decide) -> None:
    by_hand.review(decide, base_url=url, api_key=KEY, campaign=event.campaign_id)


WAYS: Final[Mapping[str, Way]] = {"this SDK": sdk, "by hand": hand}


def dlt_reads(url: str) -> None:
    """Read the customers with dlt's REST client; deciding and reporting is not its job."""
    rest = importlib.import_module("dlt.sources.helpers.rest_client")
    paginators: Any = importlib.import_module("dlt.sources.helpers.rest_client.paginators")
    pages = paginators.OffsetPaginator(limit=10_000, offset_param="$skip", limit_param="$top", total_path=None)
    client = rest.RESTClient(base_url=url, headers={"X-API-KEY": KEY}, paginator=pages)
    params = {"CampaignID": CAMPAIGN_ID}
    read = sum(len(page) for page in client.paginate("Customers/GetProcessedCampaignCustomers", params=params))
    if read != CUSTOMERS:
        raise RuntimeError(f"{read} customers were read")


# ---- with faults


def reviewed(way: str, *, channels: int = 1, crash: bool = False, fail: bool = False) -> tuple[Campaign, Counter[str]]:
    """Review 10,000 customers in processes of their own, again after a crash; return how often each was asked about."""
    fake = FakeOptimove(api_key=KEY)
    campaign = fake.add_campaign(10_000, channels=channels)
    with FaultServer(optimove=fake) as server, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "event.json").write_text(campaign.event().model_dump_json(by_alias=True))
        command = [sys.executable, "-m", "benchmarks.comparison.reviewing", way, server.url, folder]
        for faults in [["crash"], []] if crash else [["fail"] if fail else []]:
            subprocess.run([*command, *faults], cwd=ROOT, capture_output=True, check=False)
        return campaign, Counter((Path(folder) / "asked").read_text().split())


def deciding(folder: Path, fault: str) -> Decide:
    """Return a decision that writes down whom it is asked about, approves all, and has a fault in the sixth batch."""
    batches = 0

    def decide(ids: list[str]) -> list[str]:
        nonlocal batches
        batches += 1
        with (folder / "asked").open("a") as asked:
            asked.writelines(f"{customer_id}\n" for customer_id in ids)
        if batches == 6 and fault == "crash":
            time.sleep(0.5)  # what was decided before is on its way, or written down
            os.kill(os.getpid(), signal.SIGKILL)
        if batches == 6 and fault == "fail":
            raise ConnectionError("the register is down for a moment")
        return ids

    return decide


def again(way: str) -> str:
    campaign, asked = reviewed(way, crash=True)
    if len(campaign.recipients()) != 10_000:
        raise RuntimeError(f"{way}: {len(campaign.recipients())} were approved in the end")
    return f"{sum(count - 1 for count in asked.values()):,}"


def once(way: str) -> bool:
    _, asked = reviewed(way, channels=2)
    return set(asked.values()) == {1}


def others(way: str) -> str:
    campaign, _ = reviewed(way, fail=True)
    return f"{len(campaign.recipients()):,}"


# ---- memory


def memory(campaign: BigCampaign) -> list[str]:
    took = {name: run_bigly(name, campaign).megabytes for name in ("review", "naive")}
    command = [sys.executable, "-m", "benchmarks.comparison.reviewing", "dlt", campaign.url]
    read = float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
    return [f"{took['review']:.0f} MB", f"{took['naive']:.0f} MB", f"{read:.0f} MB"]


MEMORY: Final = f"peak memory for {CUSTOMERS:,} customers, above that of the imports"
PROBES: Final[Mapping[str, Callable[[str], bool | str]]] = {
    "customers asked about again after `kill -9` in the sixth of ten batches": again,
    "asks once about a customer who stands in two rows": once,
    "customers approved of 10,000 when the decision raises for one batch of 1,000": others,
}


def compare() -> Table:
    """Review campaigns in every way."""
    cells = {feature: [*(word(probe(way)) for way in WAYS), NOT_ITS_JOB] for feature, probe in PROBES.items()}
    with big_campaign(CUSTOMERS) as campaign:
        cells[MEMORY] = memory(campaign)
    return Table("A scheduled campaign", [*WAYS, "dlt"], cells)


def main(way: str, url: str, folder: str = "", fault: str = "") -> None:
    if way == "dlt":
        importlib.import_module("dlt.sources.helpers.rest_client")
        before = peak()
        dlt_reads(url)
        print(peak() - before)
        return
    event = CampaignReadyEvent.from_json((Path(folder) / "event.json").read_bytes())
    WAYS[way](url, event, Path(folder), deciding(Path(folder), fault))


if __name__ == "__main__":
    main(*sys.argv[1:])
