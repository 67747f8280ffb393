"""A scheduled campaign of the simulator, with a service of one's own on the other side of real sockets."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from optimove_conditional_execution import AsyncListenerReceiver, AsyncOptimoveClient, CampaignReadyEvent
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.cli.campaigning import CampaignResult, until_cleared
from optimove_conditional_execution.cli.listening import until_reachable
from optimove_conditional_execution.cli.servers import served
from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.testing import FakeOptimove
from tests import conftest
from tests.cli.conftest import COMMAND, PATIENCE, Run, environment

KEY = {"OPTIMOVE_API_KEY": "key-of-the-tests"}


class Service:
    """Approves the customers whose number is even, as soon as a listener is told of a campaign."""

    def __init__(self, *, approves: bool = True) -> None:
        self.client: AsyncOptimoveClient | None = None
        self.receiver = AsyncListenerReceiver(self._ready, token="the-token", answer_within=PATIENCE)
        self.events: list[CampaignReadyEvent] = []
        self._approves = approves

    async def _ready(self, event: CampaignReadyEvent) -> None:
        self.events.append(event)
        assert self.client is not None
        found = self.client.get_processed_campaign_customers(event.campaign_id)
        ids = [customer.customer_id async for customer in found if int(customer.customer_id[1:]) % 2 == 0]
        if self._approves:
            await self.client.update_customer_promotion_status(event.campaign_id, dict.fromkeys(ids, True))


async def started(*arguments: str, variables: Mapping[str, str]) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, "--json", stdout=subprocess.PIPE, env=environment(**variables)
    )
    assert process.stdout is not None
    ready = json.loads(await process.stdout.readline())
    assert ready["event"] == "ready"
    return process, ready["environment"]


def reviewed(service: Service, *arguments: str, registers: bool = False) -> tuple[int | None, dict[str, Any]]:
    """Run the command against a service; return its exit status and the result of the campaign."""

    async def run() -> tuple[int | None, dict[str, Any]]:
        async with served(ASGIApp(service.receiver)) as url:
            listener = f"{url}/campaigns"
            chosen = () if registers else ("--listener", listener)
            process, settings = await started(
                "campaign", *chosen, *arguments, variables={"OPTIMOVE_LISTENER_TOKEN": "the-token"} | KEY
            )
            assert "OPTIMOVE_API_KEY" not in settings
            async with AsyncOptimoveClient(
                KEY["OPTIMOVE_API_KEY"],
                base_url=settings["OPTIMOVE_BASE_URL"],
                timezone=settings["OPTIMOVE_TIMEZONE"],
            ) as client:
                service.client = client
                if registers:
                    await client.register_event_listener(f"{listener}?token=the-token")
                async with asyncio.timeout(PATIENCE):
                    output, _ = await process.communicate()
        return process.returncode, json.loads(output)

    return asyncio.run(run())


@pytest.mark.parametrize("registers", [False, True])
def test_a_review_of_ones_own(registers: bool, tmp_path: Path) -> None:
    service = Service()
    file, report = tmp_path / "recipients.txt", tmp_path / "report.html"
    status, result = reviewed(
        service, "--customers", "12", "--lead", "60", "--wait", "3", "--campaign-id", "77",
        "--timezone", "Asia/Kolkata", "--recipients", str(file), "--report", str(report), registers=registers,
    )  # fmt: skip
    assert status == 0
    even = [f"C{number:07d}" for number in range(2, 13, 2)]
    assert result == {
        "event": "campaign", "campaign_id": 77, "listener_status": 200, "rows": 12, "updates": 1, "largest_update": 6,
        "approved": 6, "denied": 0, "unknown": 0, "late": 0, "twice": 0, "contradictions": 0,
        "first_recipients": even,
    }  # fmt: skip
    assert file.read_text().split() == even
    page = report.read_text("utf-8")
    assert "6 customers reported in time." in page
    assert "6 statuses reported of 12 customers" in page
    assert KEY["OPTIMOVE_API_KEY"] not in page
    assert [event.campaign_id for event in service.events] == [77]


def test_nothing_reported_is_status_1() -> None:
    status, result = reviewed(Service(approves=False), "--customers", "4", "--lead", "1")
    assert status == 1
    assert (result["listener_status"], result["updates"], result["first_recipients"]) == (200, 0, [])


def test_a_listener_that_refuses_is_told() -> None:
    async def run() -> tuple[int | None, dict[str, Any]]:
        async with served(ASGIApp(Service().receiver)) as url:
            process, settings = await started("campaign", "--listener", url, "--lead", "0.5", variables={})
            assert len(settings["OPTIMOVE_API_KEY"]) > 20
            output, _ = await process.communicate()
            return process.returncode, json.loads(output)

    status, result = asyncio.run(run())
    assert (status, result["listener_status"]) == (1, 401)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(number: signal.Signals, started: Callable[..., subprocess.Popen[str]]) -> None:
    process = started("campaign")
    assert process.stdout is not None
    names = [process.stdout.readline().removeprefix("export ").partition("=")[0] for _ in range(3)]
    assert names == ["OPTIMOVE_BASE_URL", "OPTIMOVE_TIMEZONE", "OPTIMOVE_API_KEY"]
    process.send_signal(number)
    output, complaints = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (1, "")
    assert complaints == "Waiting for your listener: start your service with these settings.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--listener", "/campaigns"),
        ("--timezone", "Mars/Olympus"),
        ("--lead", "0"),
        ("--customers", "-1"),
        ("--listener", "http://no-such-machine.invalid/campaigns"),
    ],
)
def test_what_makes_no_sense_is_status_2(arguments: tuple[str, ...], optimove_ce: Run) -> None:
    done = optimove_ce("campaign", *arguments)
    assert done.returncode == 2
    assert "Error: " in done.stderr


def test_it_waits_for_a_service_that_starts_later() -> None:
    async def run() -> None:
        service = Service()
        async with served(ASGIApp(service.receiver)) as url:
            port = int(url.rpartition(":")[2])
        waiting = asyncio.create_task(until_reachable(f"{url}/campaigns"))
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done
        async with served(ASGIApp(service.receiver), port=port), asyncio.timeout(PATIENCE):
            await waiting

    asyncio.run(run())


def test_a_name_that_no_machine_has() -> None:
    with pytest.raises(ConfigurationError, match="No machine is called no-such-machine"):
        asyncio.run(until_reachable("http://no-such-machine.invalid/campaigns"))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("campaigns?token=the-token", "The listener has been told; clearance in 60 s."),
        (
            "campaigns?token=another-token",
            "Warning: the listener gave HTTP 401: its token is not the one in the URL; set OPTIMOVE_LISTENER_TOKEN "
            "alike; clearance in 60 s.",
        ),
        ("campaign?token=the-token", "Warning: the listener gave HTTP 404; clearance in 60 s."),
    ],
)
def test_people_hear_at_once_what_the_listener_said(path: str, said: str, optimove_ce: Run) -> None:
    async def ignore(event: CampaignReadyEvent) -> None: ...

    route = Route("/campaigns", ASGIApp(AsyncListenerReceiver(ignore, token="the-token")), methods=["POST"])
    with conftest.served(Starlette(routes=[route])) as url:
        done = optimove_ce("campaign", "--listener", f"{url}/{path}", "--customers", "2", "--wait", "0.1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == said
    assert "-token" not in done.stdout + done.stderr


def test_the_lines_for_people() -> None:
    fake = FakeOptimove()
    campaign = fake.add_campaign(20)
    assert str(CampaignResult(campaign, None)).splitlines() == [
        "campaign 1359: the listener gave no answer; 20 rows",
        "0 updates, of 0 at most: 0 approved, 0 denied, 0 unknown, 0 late, 0 twice, 0 contradictions",
        "Nobody would get it.",
    ]
    statuses = {f"C{number:07d}": number > 2 for number in range(1, 16)}
    campaign.take(statuses.items(), timestamp="", at_ms=campaign.clearance_ms)
    lines = str(CampaignResult(campaign, 200)).splitlines()
    assert lines[1].startswith("1 updates, of 15 at most: 13 approved, 2 denied, ")
    assert lines[2].startswith("would get it: C0000003, C0000004, ")
    assert lines[2].endswith("C0000012 and 3 more")
    asyncio.run(until_cleared(campaign, wait=0.01))


def test_simulate_fires_campaigns_too() -> None:
    async def run() -> list[dict[str, Any]]:
        service = Service()
        async with served(ASGIApp(service.receiver)) as url:
            process, settings = await started(
                "simulate", "--campaign-every", "30", "--customers", "3", "--lead", "2", variables={}
            )
            async with AsyncOptimoveClient(
                settings["OPTIMOVE_API_KEY"],
                base_url=settings["OPTIMOVE_BASE_URL"],
                timezone=settings["OPTIMOVE_TIMEZONE"],
            ) as service.client:
                await service.client.ensure_event_listener(f"{url}/campaigns?token=the-token")
                assert process.stdout is not None
                async with asyncio.timeout(PATIENCE):
                    result = json.loads(await process.stdout.readline())
                process.send_signal(signal.SIGINT)
                output, _ = await process.communicate()
            assert process.returncode == 0
        return [result, json.loads(output)]

    result, summary = asyncio.run(run())
    assert (result["event"], result["listener_status"], result["first_recipients"]) == ("campaign", 200, ["C0000002"])
    assert (summary["event"], summary["sent"]) == ("summary", 0)
