"""The scheduled half of the stand-in for Optimove: listeners, customers in pages, statuses until clearance."""

from __future__ import annotations

import asyncio
import itertools
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from benchmarks.big_campaign import big_campaign

from optimove_conditional_execution import (
    APIError,
    AsyncListenerReceiver,
    CampaignCustomer,
    CampaignDetails,
    CampaignReadyEvent,
    ConfigurationError,
    CustomerPromotionStatus,
    Endpoint,
    Endpoints,
    ListenerReceiver,
    NotFoundError,
    OptimoveClient,
    Request,
    Response,
)
from optimove_conditional_execution.testing import Campaign, FakeOptimove, campaign_ready, listener_request
from tests.client.conftest import QUICK

CUSTOMERS = "/Customers/GetProcessedCampaignCustomers"
STATUSES = "/Integrations/UpdateCustomerPromotionStatus"
REGISTER = "/General/RegisterEventListener"


class Clock:
    now = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now


def ask(fake: FakeOptimove, method: str, path: str, *, query: str = "", body: object = None) -> Response:
    encoded = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return fake.handle(Request(method, path, query, {"X-API-KEY": fake.api_key}, encoded))


def page(fake: FakeOptimove, campaign: Campaign, query: str = "") -> list[dict[str, Any]]:
    response = ask(fake, "GET", CUSTOMERS, query=f"CampaignID={campaign.campaign_id}&{query}")
    assert response.status == 200
    rows: list[dict[str, Any]] = json.loads(response.body)
    assert response.headers["content-length"] == str(len(response.body))
    return rows


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["CustomerID"] for row in rows]


def report(fake: FakeOptimove, campaign: Campaign, **statuses: bool) -> Response:
    return ask(fake, "POST", STATUSES, body=update(campaign.campaign_id, statuses))


def update(campaign_id: object, statuses: dict[str, bool], **changes: object) -> dict[str, Any]:
    reported = [{"CustomerID": customer_id, "Status": status} for customer_id, status in statuses.items()]
    return {"TimeStamp": "2026-11-23 09:00:00", "CampaignID": campaign_id, "PromosUpdated": reported, **changes}


# ---- what an integrator writes


def test_my_listener(fake_optimove: FakeOptimove) -> None:
    events: list[CampaignReadyEvent] = []
    receiver = ListenerReceiver(events.append, token="the-token", answer_within=5.0)
    campaign = fake_optimove.add_campaign(3)
    assert fake_optimove.announce(receiver, campaign, token="wrong").status == 401
    assert fake_optimove.announce(receiver, campaign, token="the-token").status == 200
    assert events == [campaign.event()]
    assert events[0].campaign_id == campaign.campaign_id


def test_my_async_listener(fake_optimove: FakeOptimove) -> None:
    events: list[CampaignReadyEvent] = []

    async def ready(event: CampaignReadyEvent) -> None:
        events.append(event)

    async def main() -> Response:
        receiver = AsyncListenerReceiver(ready, token="a token/?", answer_within=5.0)
        return await fake_optimove.aannounce(receiver, campaign, token="a token/?")

    campaign = fake_optimove.add_campaign(["C1"])
    assert asyncio.run(main()).status == 200
    assert events == [campaign.event()]


def test_a_test_cannot_pass_without_asking(fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(1)
    sync: Any = ListenerReceiver(print, token="t")
    twin: Any = AsyncListenerReceiver(print, token="t")
    with pytest.raises(TypeError, match="aannounce"):
        fake_optimove.announce(twin, campaign)
    with pytest.raises(TypeError, match="use announce"):
        asyncio.run(fake_optimove.aannounce(sync, campaign))


@pytest.mark.parametrize("prefix", ["", "/current"])
def test_a_campaign_through_the_client(prefix: str) -> None:
    fake = FakeOptimove(endpoints=Endpoints(path_prefix=prefix))
    campaign = fake.add_campaign(25, page_cap=7)
    with fake.client() as client:
        customers = list(client.get_processed_campaign_customers(campaign.campaign_id, page_size=10))
        approved = [customer.customer_id for customer in customers if int(customer.customer_id[1:]) % 2]
        assert client.update_customer_promotion_status(campaign.campaign_id, dict.fromkeys(approved, True)) == 13
    assert [customer.customer_id for customer in customers] == [f"C{number:07d}" for number in range(1, 26)]
    assert customers[0] == CampaignCustomer(
        customer_id="C0000001", action_id=19, channel_id=504, template_id=7, promo_codes=("WB23",)
    )
    assert campaign.recipients() == approved
    assert campaign.calls == [13]
    path = f"{prefix}{CUSTOMERS}"
    assert {call.request.path for call in fake.calls_of("get_processed_campaign_customers")} == {path}


@pytest.mark.parametrize("prefix", ["", "/current"])
def test_the_details_of_a_campaign(prefix: str) -> None:
    fake = FakeOptimove(endpoints=Endpoints(path_prefix=prefix))
    usual = fake.add_campaign(1, duration=3)
    own = fake.add_campaign(1, details={"Notes": "vip", "Duration": 5, "Tags": ["a"]})

    async def ask_async() -> CampaignDetails:
        async with fake.async_client() as client:
            return await client.get_campaign_details(own.campaign_id)

    with fake.client() as client:
        details = client.get_campaign_details(usual.campaign_id)
        assert (details.target_group_id, details.duration, details.notes, details.tags) == (15, 3, "", ())
        details = client.get_campaign_details(own.campaign_id)
        assert details == asyncio.run(ask_async())
        assert (details.duration, details.notes, details.tags) == (5, "vip", ("a",))
        assert "vip" not in repr(details)
        own.details["Notes"] = "all"
        assert client.get_campaign_details(own.campaign_id).notes == "all"
        with pytest.raises(NotFoundError):
            client.get_campaign_details(7)
    assert fake.calls_of("get_campaign_details")[0].request.path == f"{prefix}/Actions/GetCampaignDetails"
    assert ask(fake, "GET", f"{prefix}/actions/getcampaigndetails", query="CampaignID=x").status == 400


@pytest.mark.parametrize("channels", [1, 2])
def test_whom_a_campaign_was_sent_to(channels: int) -> None:
    fake = FakeOptimove()
    campaign = fake.add_campaign(40, control_every=10, channels=channels, page_cap=7)
    approved = [f"C{number:07d}" for number in range(1, 31)]
    with fake.client() as client:
        assert list(client.get_customer_execution_details_by_campaign(campaign.campaign_id)) == []
        client.update_customer_promotion_status(campaign.campaign_id, dict.fromkeys(approved, True))
        fake.execute(campaign, unapproved=["C0000035", "stranger"], dropped=["C0000002"])
        sent = list(client.get_customer_execution_details_by_campaign(campaign.campaign_id, page_size=10))
        first = list(client.get_customer_execution_details_by_campaign(campaign.campaign_id, channel_id=504))
        other = list(client.get_customer_execution_details_by_campaign(campaign.campaign_id, channel_id=505))
    expected = [name for name in approved if name not in {"C0000002", "C0000010", "C0000020", "C0000030"}]
    expected.append("C0000035")
    assert [row.customer_id for row in first] == [*expected, "stranger"]
    assert [row.customer_id for row in other] == (expected if channels == 2 else [])
    assert [row.customer_id for row in sent] == [*expected * channels, "stranger"]
    assert (sent[0].action_id, sent[0].template_id, sent[0].template_name) == (19, 7, "Welcome back")
    assert sent[0].scheduled_time == campaign.payload["ClearanceRequiredBy"]


def test_whom_a_campaign_of_rows_of_ones_own_was_sent_to() -> None:
    fake = FakeOptimove()
    rows = [
        {"CustomerID": "A", "ChannelID": 1},
        {"CustomerID": "B", "ChannelID": 1},
        {"CustomerID": "A", "ChannelID": 2},
    ]
    campaign = fake.add_campaign(rows)
    with fake.client() as client:
        client.update_customer_promotion_status(campaign.campaign_id, {"A": True})
        fake.execute(campaign)
        sent = list(client.get_customer_execution_details_by_campaign(campaign.campaign_id))
    assert [(row.customer_id, row.channel_id) for row in sent] == [("A", 1), ("A", 2)]


def test_customers_that_were_begun_in_an_event_loop_go_on_after_its_end(fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(2_000)
    with fake_optimove.client() as client:
        customers = client.get_processed_campaign_customers(campaign.campaign_id, page_size=500)

        async def begin() -> int:
            return sum(1 for _ in itertools.islice(customers, 10))

        assert asyncio.run(begin()) + sum(1 for _ in customers) == 2_000


def test_over_real_http(fake_optimove: FakeOptimove, optimove_url: str) -> None:
    campaign = fake_optimove.add_campaign(12_000)
    with OptimoveClient(fake_optimove.api_key, base_url=optimove_url, timezone="UTC") as client:
        client.ensure_event_listener("https://gate.example.com/campaigns?token=x")
        assert [listener.event_type_id for listener in client.get_registered_event_listeners()] == [5]
        found = [customer.customer_id for customer in client.get_processed_campaign_customers(campaign.campaign_id)]
        statuses = [CustomerPromotionStatus(customer_id=customer_id, status=True) for customer_id in found]
        assert client.update_customer_promotion_status(campaign.campaign_id, statuses) == 12_000
        client.unregister_event_listener()
        assert client.get_registered_event_listeners() == []
    assert len(campaign.recipients()) == 12_000
    assert campaign.calls == [10_000, 2_000]
    # Bodies of this size are not remembered; the campaign tells what was in them.
    assert [call.request.body for call in fake_optimove.calls_of("update_customer_promotion_status")] == [b"", b""]


# ---- listeners


def test_listeners_live_as_the_fake_keeps_them(fake_optimove: FakeOptimove) -> None:
    for url in ("https://a.test/1", "https://a.test/2"):
        body = {"EventTypeID": 5, "ListenerURL": url}
        assert ask(fake_optimove, "POST", REGISTER, body=body) == Response(200)
    assert ask(fake_optimove, "POST", REGISTER, body={**body, "EventTypeID": 13, "ChannelID": 504}).status == 200
    listed = json.loads(ask(fake_optimove, "GET", "/General/GetRegisteredEventListeners").body)
    assert listed == [
        {"EventTypeID": 5, "ListenerURL": "https://a.test/2"},
        {"EventTypeID": 13, "ListenerURL": "https://a.test/2", "ChannelID": 504},
    ]
    for _ in range(2):
        gone = ask(fake_optimove, "POST", "/General/UnregisterEventListener", body={"EventTypeID": 5})
        assert gone == Response(200)
    assert fake_optimove.listeners == {(13, 504): "https://a.test/2"}


@pytest.mark.parametrize(
    "body",
    [
        {"EventTypeID": 5, "ListenerURL": "https://a.test", "ChannelID": 504},
        {"EventTypeID": "5", "ListenerURL": "https://a.test"},
        {"EventTypeID": True, "ListenerURL": "https://a.test"},
        {"EventTypeID": 5},
        {"EventTypeID": 5, "ListenerURL": ""},
        {"EventTypeID": 13, "ListenerURL": "https://a.test", "ChannelID": "x"},
        b"[",
    ],
)
def test_listeners_that_are_refused(body: object, fake_optimove: FakeOptimove) -> None:
    assert ask(fake_optimove, "POST", REGISTER, body=body).status == 400
    assert fake_optimove.listeners == {}


def test_unregistering_needs_a_type(fake_optimove: FakeOptimove) -> None:
    assert ask(fake_optimove, "POST", "/General/UnregisterEventListener", body={}).status == 400


def test_a_delivery_for_the_registered_listener(fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(1)
    assert fake_optimove.ready(campaign) == []
    fake_optimove.listeners[5, None] = "https://gate.test/campaigns?a=1#x"
    fake_optimove.listeners[13, 504] = "https://gate.test/executed"
    (delivery,) = fake_optimove.ready(campaign, token="t/ü")
    assert delivery.url == "https://gate.test/campaigns?a=1&token=t%2F%C3%BC"
    assert (delivery.request.method, delivery.request.path) == ("POST", "/campaigns")
    assert delivery.request.query == "a=1&token=t%2F%C3%BC"
    assert json.loads(delivery.request.body) == campaign.payload
    fake_optimove.listeners[5, None] = "https%3A%2F%2Fgate.test%2Fcampaigns%3Ftoken%3Dt"
    assert fake_optimove.ready(campaign)[0].url == "https://gate.test/campaigns?token=t"


def test_the_event_has_the_samples_shape(sample: Callable[[str], bytes]) -> None:
    clock = Clock()
    fake = FakeOptimove(wall_clock=clock, timezone="Asia/Kolkata")
    campaign = fake.add_campaign(1, lead_seconds=3600.2)
    assert set(campaign.payload) == set(json.loads(sample("listener-event-5.json")))
    assert campaign.payload == campaign_ready(
        1359, timestamp="2026-11-18 16:36:40", clearance_required_by="2026-11-18 17:36:41"
    )
    assert campaign.clearance_ms == 1_795_003_601_000
    assert campaign.event().clearance_deadline("Asia/Kolkata").timestamp() * 1000 == campaign.clearance_ms
    clock.now += 10
    assert campaign.payload == campaign.payload
    assert fake.add_campaign(1).campaign_id == 1360
    assert fake.add_campaign(1, campaign_id=7).payload["CampaignID"] == 7
    changed = campaign_ready(timestamp="x", clearance_required_by="y", changes={"ChannelID": 1})
    assert (changed["ChannelID"], listener_request(b"raw").body) == (1, b"raw")


def test_clients_get_the_zone_of_the_fake() -> None:
    fake = FakeOptimove(timezone="Europe/Malta")
    with fake.client() as client:
        assert client.timezone is not None
        assert client.timezone.key == "Europe/Malta"
    with fake.client(timezone="UTC") as client:
        assert client.timezone is not None
        assert client.timezone.key == "UTC"
    with pytest.raises(ConfigurationError):
        FakeOptimove(timezone="Mars/Olympus")


# ---- customers


def test_pages(fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(5)
    assert ids(page(fake_optimove, campaign)) == ["C0000001", "C0000002", "C0000003", "C0000004", "C0000005"]
    assert ids(page(fake_optimove, campaign, "$top=2&$skip=3")) == ["C0000004", "C0000005"]
    assert ids(page(fake_optimove, campaign, "%24top=2&%24skip=1")) == ["C0000002", "C0000003"]
    assert page(fake_optimove, campaign, "$top=2&$skip=5") == []
    assert page(fake_optimove, campaign, "$top=2&$skip=99") == []


def test_the_case_of_the_classic_paths_does_not_matter(fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(1)
    query = f"campaignId={campaign.campaign_id}"
    assert ask(fake_optimove, "GET", CUSTOMERS.lower(), query=query).status == 200
    assert ask(fake_optimove, "POST", CUSTOMERS, query=query).status == 405
    assert ask(fake_optimove, "GET", "/current" + CUSTOMERS, query=query).status == 404
    webhooks = "/Conditional-Execution/v2/triggered/webhooks"
    assert ask(fake_optimove, "GET", webhooks).status == 404


def test_a_server_that_caps_pages_gives_short_ones_or_ignores_paging(fake_optimove: FakeOptimove) -> None:
    capped = fake_optimove.add_campaign(5, page_cap=2)
    assert ids(page(fake_optimove, capped, "$top=4&$skip=1")) == ["C0000002", "C0000003"]
    short = fake_optimove.add_campaign(5, page_sizes=(3, 1))
    assert [len(page(fake_optimove, short, f"$top=4&$skip={skip}")) for skip in (0, 3, 4, 5)] == [3, 1, 1, 0]
    stubborn = fake_optimove.add_campaign(5, ignores_paging=True, page_cap=2)
    assert page(fake_optimove, stubborn, "$top=2&$skip=4") == page(fake_optimove, stubborn)
    assert len(page(fake_optimove, stubborn)) == 5


@pytest.mark.parametrize(
    ("empty_as", "status", "body"),
    [("[]", 200, b"[]"), ("null", 200, b"null"), ("empty", 200, b""), ("204", 204, b""), ("404", 404, b"Not Found")],
)
def test_what_stands_where_no_rows_are_left(
    empty_as: Any, status: int, body: bytes, fake_optimove: FakeOptimove
) -> None:
    campaign = fake_optimove.add_campaign(2, empty_as=empty_as)
    response = ask(fake_optimove, "GET", CUSTOMERS, query=f"CampaignID={campaign.campaign_id}&$skip=2&$top=2")
    assert (response.status, response.body) == (status, body)
    with fake_optimove.client() as client:
        assert len(list(client.get_processed_campaign_customers(campaign.campaign_id, page_size=2))) == 2


def test_every_channel_has_a_row_for_each_customer(fake_optimove: FakeOptimove) -> None:
    listed: list[str | dict[str, str]] = ["C0000001", "C0000002", {"CustomerID": "C0000003"}]
    for customers in (3, listed):
        campaign = fake_optimove.add_campaign(customers, channels=2)
        rows = page(fake_optimove, campaign)
        assert [(row["CustomerID"][-1], row["ChannelID"]) for row in rows] == [
            ("1", 504), ("2", 504), ("3", 504), ("1", 505), ("2", 505), ("3", 505),
        ]  # fmt: skip
        assert page(fake_optimove, campaign, "$top=3&$skip=2") == rows[2:5]
        assert campaign.row_count == 6
    many = fake_optimove.add_campaign(1, channels=8)
    assert len({row["ChannelID"] for row in page(fake_optimove, many)}) == 8


def test_control_group(fake_optimove: FakeOptimove) -> None:
    for customers in (5, ["a", "b", "c", "d", "e"]):
        campaign = fake_optimove.add_campaign(customers, control_every=2)
        assert [row["ActionID"] for row in page(fake_optimove, campaign)] == [19, 1, 19, 1, 19]


def test_attributes(fake_optimove: FakeOptimove) -> None:
    for customers in (2, ["C0000001", "C0000002"]):
        campaign = fake_optimove.add_campaign(customers)
        assert "CustomerAttributes" not in page(fake_optimove, campaign)[0]
        rows = page(fake_optimove, campaign, 'CustomerAttributes=Alias;50% "x"&$skip=1')
        assert rows[0]["CustomerAttributes"] == ["Alias of C0000002", '50% "x" of C0000002']


def test_rows_of_ones_own_are_served_as_they_are(fake_optimove: FakeOptimove) -> None:
    odd = {"customerid": 17, "ActionID": "4", "PromoCode": "A,B", "More": {"x": None}}
    named = {"CustomerID": "ü", "CustomerAttributes": {"Country": "MT", "Alias": "Dana"}}
    campaign = fake_optimove.add_campaign([odd, named])
    assert page(fake_optimove, campaign) == [odd, {"CustomerID": "ü"}]
    rows = page(fake_optimove, campaign, "CustomerAttributes=Alias;Age")
    assert rows[1]["CustomerAttributes"] == ["Dana", ""]
    assert report(fake_optimove, campaign, **{"17": True, "ü": True}).status == 200
    assert (campaign.recipients(), campaign.unknown) == (["17", "ü"], set())


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("CampaignID=x", 400),
        ("CampaignID=1359&$top=-1", 400),
        ("CampaignID=1359&$top=0", 400),
        ("CampaignID=1359&$skip=1.5", 400),
        ("CampaignID=" + "9" * 30, 400),
        ("CampaignID=7", 404),
    ],
)
def test_questions_that_are_refused(query: str, status: int, fake_optimove: FakeOptimove) -> None:
    fake_optimove.add_campaign(1)
    assert ask(fake_optimove, "GET", CUSTOMERS, query=query).status == status


@pytest.mark.parametrize(
    "options",
    [
        {"customers": -1}, {"customers": "C1"}, {"customers": {"CustomerID": "C1"}}, {"customers": True},
        {"page_cap": 0}, {"page_sizes": (1, 0)}, {"channels": 0}, {"control_every": 0}, {"empty_as": "{}"},
    ],
)  # fmt: skip
def test_campaigns_that_make_no_sense(options: dict[str, Any], fake_optimove: FakeOptimove) -> None:
    with pytest.raises(ConfigurationError):
        fake_optimove.add_campaign(**{"customers": 1, **options})
    assert fake_optimove.campaigns == {}


def test_a_million_customers_cost_no_memory(fake_optimove: FakeOptimove) -> None:
    tracemalloc.start()
    try:
        campaign = fake_optimove.add_campaign(1_000_000, channels=2)
        assert tracemalloc.get_traced_memory()[1] < 100_000
        last = page(fake_optimove, campaign, "$top=10000&$skip=1995000")
        assert ids(last)[0] == "C0995001"
        assert ids(last)[-1] == "C1000000"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


# ---- statuses


def test_only_who_was_approved_gets_it(fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(["a", "b", "c"])
    assert report(fake_optimove, campaign, a=True, b=False) == Response(200)
    assert campaign.recipients() == ["a"]
    assert (campaign.statuses, campaign.calls) == ({"a": True, "b": False}, [2])
    assert (campaign.twice, campaign.contradictions, campaign.unknown, campaign.late) == (set(), set(), set(), [])
    assert "'a'" not in repr(campaign)


def test_twice_contradictions_and_strangers(fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(["a", "b", "c"])
    report(fake_optimove, campaign, a=True, b=True, stranger=True)
    report(fake_optimove, campaign, a=True, b=False, A=True)
    assert campaign.recipients() == ["a"]
    assert campaign.twice == {"a", "b"}
    assert campaign.contradictions == {"b"}
    assert campaign.unknown == {"stranger", "A"}
    assert campaign.calls == [3, 3]


@pytest.mark.parametrize(
    "customer_id",
    [
        "C0000000",
        "C0000004",
        "C00000001",
        "c0000001",
        "C1",
        "",
        "C0000001 ",
        "C\u0660\u0660\u0660\u0660\u0660\u0660\u0661",
    ],
)
def test_ids_that_no_generated_customer_has(customer_id: str, fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(3)
    campaign.take([(customer_id, True), ("C0000003", True)], timestamp="", at_ms=0)
    assert (campaign.unknown, campaign.recipients()) == ({customer_id}, ["C0000003"])


def test_statuses_after_clearance_do_not_count() -> None:
    clock = Clock()
    fake = FakeOptimove(wall_clock=clock)
    campaign = fake.add_campaign(["a", "b"], lead_seconds=10)
    clock.now += 10
    assert report(fake, campaign, a=True).status == 200
    clock.now += 0.001
    assert report(fake, campaign, a=False, b=True).status == 200
    assert campaign.recipients() == ["a"]
    assert campaign.late == [("a", False), ("b", True)]
    assert [(each.size, each.in_time, each.timestamp) for each in campaign.updates] == [
        (1, True, "2026-11-23 09:00:00"),
        (2, False, "2026-11-23 09:00:00"),
    ]
    assert (campaign.twice, campaign.contradictions) == (set(), set())
    passed = fake.add_campaign(["a"], lead_seconds=-1)
    assert report(fake, passed, a=True).status == 200
    assert passed.recipients() == []


def test_ten_thousand_at_most(fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(10_001)
    everybody = {f"C{number:07d}": True for number in range(1, 10_002)}
    assert report(fake_optimove, campaign, **everybody).status == 400
    assert (campaign.recipients(), campaign.updates) == ([], [])
    everybody.popitem()
    assert report(fake_optimove, campaign, **everybody).status == 200
    assert len(campaign.recipients()) == 10_000


@pytest.mark.parametrize(
    "changes",
    [
        {"TimeStamp": None}, {"TimeStamp": "2026-11-23T09:00:00Z"}, {"TimeStamp": 5},
        {"CampaignID": "1359"}, {"CampaignID": True}, {"CampaignID": None},
        {"PromosUpdated": []}, {"PromosUpdated": None}, {"PromosUpdated": {"CustomerID": "a", "Status": True}},
        {"PromosUpdated": [{"CustomerID": "a", "Status": "true"}]},
        {"PromosUpdated": [{"CustomerID": "a", "Status": 1}]},
        {"PromosUpdated": [{"CustomerID": 1, "Status": True}]},
        {"PromosUpdated": [{"CustomerID": " ", "Status": True}]},
        {"PromosUpdated": [{"CustomerID": "a", "Status": True}, "b"]},
    ],
)  # fmt: skip
def test_updates_that_are_refused_take_nobody(changes: dict[str, object], fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(["a"])
    body = update(campaign.campaign_id, {"a": True}, **changes)
    assert ask(fake_optimove, "POST", STATUSES, body=body).status == 400
    assert (campaign.updates, campaign.recipients()) == ([], [])


def test_an_unknown_campaign(fake_optimove: FakeOptimove) -> None:
    assert ask(fake_optimove, "POST", STATUSES, body=update(7, {"a": True})).status == 404
    with fake_optimove.client(retry=QUICK) as client:
        with pytest.raises(NotFoundError):
            client.update_customer_promotion_status(7, {"a": True})
        with pytest.raises(NotFoundError):
            list(client.get_processed_campaign_customers(7))


def test_the_documented_update_is_understood(fake_optimove: FakeOptimove, sample: Callable[[str], bytes]) -> None:
    campaign = fake_optimove.add_campaign(["C234638", "C984571", "C1"])
    body = sample("update-customer-promotion-status-request.json")
    assert ask(fake_optimove, "POST", STATUSES, body=body).status == 200
    assert campaign.recipients() == ["C234638", "C984571"]


def test_planned_answers_lose_nothing(fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(2)
    fake_optimove.answer_next(Response(503))
    with fake_optimove.client(retry=QUICK) as client:
        assert client.update_customer_promotion_status(campaign.campaign_id, {"C0000001": True}) == 1
        fake_optimove.answer_next(Response(400))
        with pytest.raises(APIError):
            client.update_customer_promotion_status(campaign.campaign_id, {"C0000002": True})
    assert campaign.calls == [1, 1, 1]
    assert campaign.twice == {"C0000001"}


def test_a_tenant_with_other_paths() -> None:
    endpoints = Endpoints(get_processed_campaign_customers=Endpoint("POST", "/held"), path_prefix="/current")
    fake = FakeOptimove(endpoints=endpoints)
    campaign = fake.add_campaign(1)
    query = f"CampaignID={campaign.campaign_id}"
    assert ask(fake, "POST", "/current/held", query=query).status == 200
    assert ask(fake, "GET", CUSTOMERS, query=query).status == 404


@pytest.mark.parametrize("ignores_paging", [False, True])
def test_the_server_of_the_benchmarks(ignores_paging: bool) -> None:
    with (
        big_campaign(2_500, ignores_paging=ignores_paging, page_cap=1_000) as server,
        OptimoveClient("key", base_url=server.url, timezone="UTC") as client,
    ):
        found = client.get_processed_campaign_customers(server.campaign_id)
        customers = list(itertools.islice(found, 2_500))
        assert [customer.customer_id for customer in customers] == [f"C{number:07d}" for number in range(1, 2_501)]
        statuses = {customer.customer_id: index % 5 > 0 for index, customer in enumerate(customers)}
        client.update_customer_promotion_status(server.campaign_id, statuses)
        client.update_customer_promotion_status(server.campaign_id, {"C0000001": True})
        stats = server.stats()
    assert (stats.updates, stats.largest, stats.statuses, stats.repeated) == (2, 2_500, 2_501, 1)
    assert (stats.approved, stats.denied) == (2_001, 499)
    assert stats.rows >= 2_500


def test_the_repr_counts(fake_optimove: FakeOptimove) -> None:
    fake_optimove.add_campaign(1)
    assert repr(fake_optimove) == "<FakeOptimove: 0 webhooks, 0 notifications, 0 listeners, 1 campaigns>"
