"""A program under gevent's monkey patch that reviews campaigns in several ways: see test_gevent.py. Prints JSON."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import asyncio  # noqa: E402 - the patch comes first
import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402

from optimove_conditional_execution import (  # noqa: E402
    CampaignCustomer,
    CampaignReadyEvent,
    CampaignReview,
    Deadline,
    OptimoveClient,
    ReviewReport,
    per_customer,
)
from optimove_conditional_execution.stores import SqliteJournal  # noqa: E402

native_thread = monkey.get_original("_thread", "get_ident")
MAIN_THREAD = native_thread()


class Seen:
    """What the reviewer saw of its surroundings."""

    def __init__(self, campaigns: int) -> None:
        self._together = min(campaigns, 2)
        self.threads: set[int] = set()
        self.loops = self.at_once = self.most_at_once = self.beats = 0

    def review(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        self.threads.add(native_thread())
        try:
            asyncio.get_running_loop()
            self.loops += 1
        except RuntimeError:
            pass
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(0.5)
        end = time.monotonic() + 30  # a busy machine may begin the next one later
        while self.most_at_once < self._together and time.monotonic() < end:
            time.sleep(0.01)
        self.at_once -= 1
        return [customer.customer_id for customer in customers]

    def beat(self) -> None:
        while True:
            gevent.sleep(0.01)
            self.beats += 1


def submit(client: OptimoveClient, journal: SqliteJournal, events: list[CampaignReadyEvent], seen: Seen) -> Any:
    """Submit all events one after the other, as a listener does."""
    told: list[ReviewReport] = []
    with CampaignReview(seen.review, client=client, journal=journal, on_report=told.append) as review:
        for event in events:
            review.submit(event)
    return [report.complete for report in told]


def run(client: OptimoveClient, journal: SqliteJournal, events: list[CampaignReadyEvent], seen: Seen) -> Any:
    """Run all at once, each in a greenlet of its own."""
    review = CampaignReview(seen.review, client=client, journal=journal)
    greenlets = [gevent.spawn(review.run, event) for event in events]
    return [greenlet.get().complete for greenlet in greenlets]


def resume(client: OptimoveClient, journal: SqliteJournal, events: list[CampaignReadyEvent], seen: Seen) -> Any:
    """Resume what the journal holds."""
    for event in events:
        journal.add(event)
    return [report.complete for report in CampaignReview(seen.review, client=client, journal=journal).resume()]


def one_by_one(client: OptimoveClient, journal: SqliteJournal, events: list[CampaignReadyEvent], seen: Seen) -> Any:
    """Ask about single customers."""

    def function(customer: CampaignCustomer) -> bool:
        seen.threads.add(native_thread())
        return True

    review = CampaignReview(per_customer(function), client=client, journal=journal)
    return [greenlet.get().complete for greenlet in [gevent.spawn(review.run, event) for event in events]]


def raising(client: OptimoveClient, journal: SqliteJournal, events: list[CampaignReadyEvent], seen: Seen) -> Any:
    """Let the reviewer raise."""

    def fail(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        raise SystemExit(3)

    return list(CampaignReview(fail, client=client, journal=journal).run(events[0]).warnings)


def killed(client: OptimoveClient, journal: SqliteJournal, events: list[CampaignReadyEvent], seen: Seen) -> Any:
    """Let a time-out end a review while its reviewer runs."""
    review = CampaignReview(seen.review, client=client, journal=journal)
    reviewing = gevent.getcurrent()

    def time_out() -> None:
        while not seen.at_once:
            gevent.sleep(0.01)
        gevent.kill(reviewing, gevent.Timeout())

    gevent.spawn(time_out)
    try:
        review.run(events[0])
    except gevent.Timeout:
        while seen.at_once:
            gevent.sleep(0.01)
        gevent.sleep(0.2)  # the reviewer is done now, and nothing waits for it
        kept = journal.reviews()[0]
        return [kept.decided, kept.finished, review.run(events[0]).complete]
    return "not killed"


KINDS: dict[str, Callable[..., Any]] = {
    each.__name__: each for each in (submit, run, resume, one_by_one, raising, killed)
}


def work(kind: str, url: str, key: str, folder: Path, payloads: list[str]) -> dict[str, Any]:
    """Review campaigns in one way, and tell what came of it."""
    seen = Seen(len(payloads))
    events = [CampaignReadyEvent.from_json(payload) for payload in payloads]
    beating = gevent.spawn(seen.beat)
    with OptimoveClient(key, base_url=url, timezone="UTC") as client, SqliteJournal(folder / f"{kind}.db") as journal:
        result = KINDS[kind](client, journal, events, seen)
    beating.kill()
    return {
        "result": result,
        "threads": len(seen.threads - {MAIN_THREAD}),
        "loops": seen.loops,
        "most_at_once": seen.most_at_once,
        "beats": seen.beats,
    }


def main(url: str, key: str, folder: str, plan: str) -> None:
    """Work through a JSON object of kinds and the payloads of their campaigns."""
    told = {kind: work(kind, url, key, Path(folder), payloads) for kind, payloads in json.loads(plan).items()}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
