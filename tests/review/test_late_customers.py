"""Customers that come later than their event, and pages that are answered with a 404: by Optimove, or by a proxy."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from optimove_conditional_execution import (
    CampaignCustomer,
    Deadline,
    DeadlineExceeded,
    NotFoundError,
    Request,
    Response,
    RetryPolicy,
    ReviewReport,
)
from optimove_conditional_execution.flows import paging
from optimove_conditional_execution.flows.paging import Paging, is_from_api, seconds_for_customers
from optimove_conditional_execution.testing import FakeOptimove, FaultServer, faults
from optimove_conditional_execution.testing.faults import Fault
from tests.review.conftest import Rig, everybody

TEXT = {"content-type": "text/plain"}
HTML = {"content-type": "text/html"}
PROXY = {
    "plain text": Response(404, TEXT, b"default backend - 404"),
    "words of a web server": Response(404, TEXT, b"404 page not found\n"),
    "a web page": Response(404, HTML, b"<html><body>404 Not Found</body></html>"),
}
OWN = {
    "JSON": Response(404, {"content-type": "application/json"}, b'{"message": "No data"}'),
    "a JSON string": Response(404, {"content-type": "application/json"}, b'"No data"'),
    "plain text": Response(404, TEXT, b"Not Found"),
    "nothing": Response(404),
}


def skip_of(request: Request) -> int | None:
    """Return where a page begins, or None for a request of something else."""
    if not request.path.endswith("GetProcessedCampaignCustomers"):
        return None
    return int(request.query.rpartition("skip=")[2])


def answering(fake: FakeOptimove, odd: Callable[[int], Response | None]) -> list[int]:
    """Let a function of `$skip` answer pages; return where they began."""
    handle, pages = fake.handle, list[int]()

    def answer(request: Request) -> Response:
        skip = skip_of(request)
        if skip is None:
            return handle(request)
        pages.append(skip)
        return odd(skip) or handle(request)

    fake.handle = answer  # type: ignore[method-assign]
    return pages


# ---- a 404 behind the first page


@pytest.mark.parametrize("missing", [*PROXY.values(), *OWN.values()], ids=[*PROXY, *(f"own {name}" for name in OWN)])
def test_a_404_in_the_middle_is_asked_for_again(missing: Response, rig: Rig) -> None:
    campaign = rig.fake.add_campaign(1_000, lead_seconds=60)
    once = iter([missing])
    pages = answering(rig.fake, lambda skip: next(once, None) if skip == 200 else None)
    report = rig.run(everybody, campaign.event(), page_size=100)
    assert (report.complete, len(campaign.recipients()), report.warnings) == (True, 1_000, ())
    assert pages.count(200) == 2


@pytest.mark.parametrize("missing", OWN.values(), ids=OWN)
def test_a_second_404_of_the_apis_own_ends_the_reading_with_a_warning(
    missing: Response, rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    campaign = rig.fake.add_campaign(300, lead_seconds=60)
    pages = answering(rig.fake, lambda skip: missing if skip == 200 else None)
    begun = time.monotonic()
    report = rig.run(everybody, campaign.event(), page_size=100)
    assert time.monotonic() - begun >= 0.2, "there was no pause"
    assert (report.complete, report.acknowledged) == (True, 200)
    assert pages.count(200) == 2
    (warning,) = report.warnings
    assert "404 after 200 rows, twice" in warning
    assert warning in caplog.text
    assert ReviewReport.from_json(report.to_json()).warnings == report.warnings


@pytest.mark.parametrize("missing", PROXY.values(), ids=PROXY)
def test_what_a_proxy_says_is_never_the_end(missing: Response, rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    campaign = rig.fake.add_campaign(300)
    pages = answering(rig.fake, lambda skip: missing if skip == 200 else None)
    quick = {"retry": RetryPolicy(first_pause=0.05, longest_pause=0.2), "rate_limit": None}
    report = rig.run(everybody, campaign.event(), page_size=100, seconds=4, client_options=quick)
    assert (report.complete, report.acknowledged) == (False, 200), "those who had come were not asked about"
    # A pause can end in the moment in which the time does; then that is the error.
    assert isinstance(report.error, NotFoundError | DeadlineExceeded)
    assert "answered 404 Not Found" in caplog.text
    assert pages.count(200) > 2


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_404_without_time_to_ask_again_is_no_end(kind: str, fake_optimove: FakeOptimove) -> None:
    """Less time is left than the pause takes, so it may not be the end: what came is kept, and the error is raised."""
    campaign = fake_optimove.add_campaign(300, lead_seconds=60)
    pages = answering(fake_optimove, lambda skip: OWN["JSON"] if skip == 300 else None)
    deadline = Deadline.after(0.9, clock=lambda: 0.0)  # always so much
    came: list[CampaignCustomer] = []

    def read() -> None:
        with fake_optimove.client() as client:
            rows = client.get_processed_campaign_customers(campaign.campaign_id, page_size=100, deadline=deadline)
            came.extend(rows)

    async def aread() -> None:
        async with fake_optimove.async_client() as client:
            rows = client.get_processed_campaign_customers(campaign.campaign_id, page_size=100, deadline=deadline)
            async for customer in rows:
                came.append(customer)

    with pytest.raises(NotFoundError):
        read() if kind == "sync" else asyncio.run(aread())
    assert (len(came), pages) == (300, [0, 100, 200, 300])


def test_the_404s_of_two_places_are_not_two_of_one() -> None:
    reading = Paging(7, page_size=100)
    error = NotFoundError("", status=404, operation="")
    for skip in range(3):
        operation = reading.next_page()
        assert operation is not None
        assert dict(operation.query)["$skip"] == str(skip)
        reading.feed(b'[{"CustomerID": "C%d"}]' % skip)
        reading.close_page()
        assert reading.next_page() is not None
        reading.missing(error)
        assert reading.pause > 0
    assert reading.next_page() is not None
    reading.missing(error)
    assert reading.next_page() is None


@pytest.mark.parametrize(
    ("body", "own"),
    [
        (b"", True),
        (b" \r\n", True),
        (b"null", True),
        (b'\xef\xbb\xbf{"a":1}', True),
        (b"Not Found", True),
        (b'{"message": "' + b"x" * 5_000, True),
        (b"<!doctype html>", False),
        (b"no healthy upstream", False),
        (b"404 Not Found", False),
    ],
)
def test_who_has_sent_a_404(body: bytes, own: bool) -> None:
    assert is_from_api(NotFoundError("", status=404, operation="", body=body)) is own


# ---- customers that are not there yet


EARLY = {"[]": Response(200, body=b"[]"), "204": Response(204), "404": OWN["plain text"]}


@pytest.mark.parametrize("early", EARLY.values(), ids=EARLY)
def test_customers_that_come_after_their_event_are_waited_for(early: Response, rig: Rig) -> None:
    campaign = rig.fake.add_campaign(300, lead_seconds=20)
    begun = time.monotonic()
    pages = answering(rig.fake, lambda skip: early if time.monotonic() - begun < 0.5 else None)
    report = rig.run(everybody, campaign.event(), safety_margin=1)
    assert (report.complete, len(campaign.recipients()), report.warnings) == (True, 300, ())
    assert 2 <= pages.count(0) <= 12


def test_an_empty_campaign_is_complete_with_a_warning(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    campaign = rig.fake.add_campaign(1)
    pages = answering(rig.fake, lambda skip: Response(200, body=b"[]"))
    begun = time.monotonic()
    report = rig.run(everybody, campaign.event(), seconds=4)
    assert time.monotonic() - begun >= 0.9, "a quarter of the time"
    assert (report.complete, report.rows, report.error) == (True, 0, None)
    assert "no customers" in report.warnings[0]
    assert "no customers" in caplog.text
    assert len(pages) >= 2


def test_a_campaign_that_stays_unknown_is_an_error(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(1)
    pages = answering(rig.fake, lambda skip: OWN["plain text"])
    report = rig.run(everybody, campaign.event(), seconds=4)
    assert isinstance(report.error, NotFoundError)
    assert not report.complete
    assert len(pages) >= 2


class StoppedClock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("page", ["empty", "404"])
def test_the_pauses_before_an_empty_campaign_is_believed_grow(page: str) -> None:
    clock, told, pauses = StoppedClock(), list[str](), list[float]()
    reading = Paging(7, page_size=100, waiting=Deadline.after(200, clock=clock), on_warning=told.append)
    error = NotFoundError("", status=404, operation="")
    while reading.next_page() is not None:
        try:
            if page == "empty":
                reading.close_page()
            else:
                reading.missing(error)
        except NotFoundError:
            break
        pauses.append(reading.pause)
        clock.now += reading.pause
    if page == "empty":
        assert pauses.pop() == 0.0
    assert pauses[:5] == [0.5, 0.5, 1.0, 2.0, 4.0]
    assert max(pauses) == 30.0
    assert sum(pauses) == 200.0
    assert len(told) == (page == "empty")
    assert all("for 200 s" in text for text in told)


@pytest.mark.parametrize(
    ("left", "until", "seconds"),
    [(14_400, 14_370, 3_600), (240, 210, 60), (120, 90, 30), (70, 60, 30), (60, 30, 15), (10, 9, 4.5), (4, 2, 1)],
)
def test_a_quarter_of_the_time_and_half_a_minute_where_there_is_time(left: float, until: float, seconds: float) -> None:
    assert seconds_for_customers(left, until=until) == seconds


# ---- the client by itself


class Colours:
    """Reads customers with a client of either colour."""

    def __init__(self, colour: str, fake: FakeOptimove) -> None:
        self.colour = colour
        self.fake = fake

    def read(self, campaign_id: int, **options: Any) -> int:
        retry = RetryPolicy(first_pause=0.01, longest_pause=0.02)
        if self.colour == "sync":
            with self.fake.client(retry=retry) as client:
                return sum(1 for _ in client.get_processed_campaign_customers(campaign_id, **options))

        async def go() -> int:
            async with self.fake.async_client(retry=retry) as client:
                return len([one async for one in client.get_processed_campaign_customers(campaign_id, **options)])

        return asyncio.run(go())


@pytest.fixture(params=["sync", "async"])
def reader(request: pytest.FixtureRequest, fake_optimove: FakeOptimove) -> Colours:
    return Colours(request.param, fake_optimove)


def test_a_client_without_a_deadline_believes_an_empty_campaign_at_once(
    reader: Colours, caplog: pytest.LogCaptureFixture
) -> None:
    campaign = reader.fake.add_campaign(1)
    reader.fake.answer_next(Response(200, body=b"[]"))
    begun = time.monotonic()
    assert reader.read(campaign.campaign_id) == 0
    assert time.monotonic() - begun < 10
    assert [record.levelno for record in caplog.records if "no customers" in record.getMessage()] == [logging.WARNING]


def test_a_client_with_a_deadline_waits_for_customers(reader: Colours, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "_FIRST_PAUSE", 0.1)
    campaign = reader.fake.add_campaign(5)
    reader.fake.answer_next(Response(200, body=b"[]"), OWN["JSON"])
    told: list[str] = []
    assert reader.read(campaign.campaign_id, deadline=Deadline.after(20), on_warning=told.append) == 5
    assert not told


def test_a_client_waits_as_long_as_it_is_told(reader: Colours, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "_FIRST_PAUSE", 0.1)
    campaign = reader.fake.add_campaign(5)
    reader.fake.answer_next(Response(200, body=b"[]"))
    assert reader.read(campaign.campaign_id, wait_for_customers=5) == 5
    reader.fake.answer_next(Response(200, body=b"[]"))
    told: list[str] = []
    ended = reader.read(campaign.campaign_id, deadline=Deadline.after(20), wait_for_customers=0, on_warning=told.append)
    assert (ended, len(told)) == (0, 1)


def test_a_client_without_a_deadline_asks_again_after_a_proxys_404(reader: Colours) -> None:
    campaign = reader.fake.add_campaign(300)
    answers = itertools.chain([None, PROXY["plain text"], PROXY["a web page"]], itertools.repeat(None))
    handle = reader.fake.handle
    reader.fake.handle = lambda request: next(answers) or handle(request)  # type: ignore[method-assign]
    assert reader.read(campaign.campaign_id, page_size=100) == 300


@pytest.mark.parametrize("engine", ["httpx", "httpx2", "aiohttp"])
def test_every_engine_tells_a_proxys_404_from_the_apis(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "_NOT_FOUND_PAUSE", 0.2)
    html = faults.answer("html", PROXY["a web page"])
    text = faults.answer("text", PROXY["plain text"])
    own = faults.answer("own", OWN["JSON"])
    meets: list[Fault | None] = [None, html, text, None, own, None, own, own]

    async def read(server: FaultServer, campaign_id: int) -> int:
        async with server.async_client(engine=engine) as client:
            pages = client.get_processed_campaign_customers(campaign_id, page_size=100, deadline=Deadline.after(30))
            return len([customer async for customer in pages])

    with FaultServer(meets) as server:
        campaign = server.optimove.add_campaign(1_000)
        assert asyncio.run(read(server, campaign.campaign_id)) == 300
        assert [met.fault for met in server.met] == [None, "html", "text", None, "own", None, "own", "own"]
