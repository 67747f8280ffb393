"""`optimove-ce reconcile` and `review explain`, from outside, against the simulator over HTTP."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import sqlite3
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution import (
    CampaignCustomer,
    CampaignReadyEvent,
    CampaignReview,
    Deadline,
    Decision,
    ReviewReport,
)
from optimove_conditional_execution.stores import DecidedBatch, SqliteDecisionLog, SqliteJournal
from optimove_conditional_execution.testing import Campaign, FakeOptimove
from tests.cli.conftest import Run
from tests.test_journals import without_times

EXCLUDED, ABSTAINED, BROKEN = "C0000002", "C0000004", "C0000005"


def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> dict[str, bool | Decision]:
    answers: dict[str, bool | Decision] = {customer.customer_id: True for customer in customers}
    found = {EXCLUDED: Decision.deny("self-excluded\x1b[2J"), ABSTAINED: Decision.abstain("not sure")}
    return answers | {name: decision for name, decision in found.items() if name in answers}


@pytest.fixture
def variables(fake_optimove: FakeOptimove, optimove_url: str) -> dict[str, str]:
    return {"OPTIMOVE_API_KEY": fake_optimove.api_key, "OPTIMOVE_BASE_URL": optimove_url}


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    """The options for a journal and a log."""
    return ["--journal", str(tmp_path / "reviews.db"), "--log", str(tmp_path / "decisions.db")]


@pytest.fixture
def campaign(fake_optimove: FakeOptimove, places: list[str]) -> Campaign:
    """A campaign that was reviewed."""
    campaign = fake_optimove.add_campaign(30, control_every=10)
    with (
        SqliteJournal(places[1]) as journal,
        SqliteDecisionLog(places[3]) as log,
        fake_optimove.client() as client,
    ):
        review = CampaignReview(
            reviewer, client=client, journal=journal, decision_log=log, batch_size=8, control_group="skip"
        )
        assert review.run(campaign.event()).complete
    return campaign


def test_nothing_is_wrong(
    optimove_ce_process: Run,
    fake_optimove: FakeOptimove,
    variables: dict[str, str],
    places: list[str],
    campaign: Campaign,
) -> None:
    fake_optimove.execute(campaign)
    done = optimove_ce_process("reconcile", str(campaign.campaign_id), *places, variables=variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"Campaign {campaign.campaign_id}",
        "          25  approved",
        "          25  of them acknowledged by Optimove",
        "           0  held back by the kill switch, and so not approved",
        "          25  sent by Optimove",
        "           0  sent and not approved",
        "           0  approved, acknowledged, and not sent",
        "           0  approved, not acknowledged, and not sent",
        "           0  approved by only one of journal and log",
    ]


@pytest.mark.parametrize("sources", [slice(0, 2), slice(2, 4), slice(0, 4)], ids=["journal", "log", "both"])
def test_who_got_it_unapproved_is_status_1_and_named_in_the_file_alone(
    sources: slice,
    optimove_ce: Run,
    fake_optimove: FakeOptimove,
    variables: dict[str, str],
    places: list[str],
    campaign: Campaign,
    tmp_path: Path,
) -> None:
    fake_optimove.execute(campaign, unapproved=[EXCLUDED, "=1+1"], dropped=["C0000001"])
    ids = tmp_path / "ids.csv"
    ids.write_text("an older one")
    options = [*places[sources], "--ids", str(ids)]
    done = optimove_ce("reconcile", str(campaign.campaign_id), *options, "--json", variables=variables)
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["ok"], told["unapproved"], told["not_sent"], told["sent"]) == (False, 2, 1, 26)
    assert list(csv.reader(ids.read_text().splitlines())) == [
        ["difference", "customer_id"],
        ["unapproved", "=1+1"],  # a program reads it, so nothing is added
        ["unapproved", EXCLUDED],
        ["not_sent", "C0000001"],
    ]
    assert stat.S_IMODE(ids.stat().st_mode) == 0o600
    plain = optimove_ce("reconcile", str(campaign.campaign_id), *options, variables=variables)
    assert plain.returncode == 1
    assert "           2  sent and not approved\n           1  approved, acknowledged, and not sent\n" in plain.stdout
    assert not re.search("C0000", done.stdout + plain.stdout + plain.stderr)
    assert sorted(each.name for each in tmp_path.iterdir() if each.suffix not in (".db", ".lock")) == ["ids.csv"]


def test_what_says_nothing_is_said(
    optimove_ce: Run, variables: dict[str, str], places: list[str], campaign: Campaign, fake_optimove: FakeOptimove
) -> None:
    before = optimove_ce("reconcile", str(campaign.campaign_id), *places, variables=variables)
    assert before.returncode == 0
    assert "          25  approved, acknowledged, and not sent\n" in before.stdout
    assert before.stdout.endswith("Optimove lists nobody: perhaps the campaign has not gone out yet.\n")
    other = fake_optimove.add_campaign(3)
    fake_optimove.execute(other, unapproved=["C0000001"])
    with SqliteDecisionLog(places[3]) as log:
        log.erase("C0000001")
    unknown = optimove_ce("reconcile", str(other.campaign_id), *places, variables=variables)
    assert unknown.returncode == 1
    assert unknown.stdout.endswith(
        "The journal has no review of this campaign.\nThe log has no decision about this campaign.\n"
    )
    erased = optimove_ce("reconcile", str(campaign.campaign_id), *places, variables=variables)
    assert "1 decision of the log is about a customer who was erased: it cannot be compared.\n" in erased.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["7"], "Give --journal, --log, or both"),
        (["0", "--log", "decisions.db"], "CAMPAIGN"),
        (["7", "--journal", "nowhere.db"], "There is no journal nowhere.db."),
        (["7", "--log", "nowhere.db"], "There is no log nowhere.db."),
        (["7", "--journal", "text.db"], "text.db cannot be used"),
        (["7", "--journal", "reviews.db", "--ids", "no/ids.csv"], "no/ids.csv cannot be written: No such file"),
        (["7", "--journal", "reviews.db", "--ids", "kept.csv"], "answered 404"),
        (["7", "--journal", "postgresql://127.0.0.1:1/none"], "The journal cannot be used"),
    ],
)
def test_what_cannot_be_compared_is_status_2(
    arguments: list[str], complaint: str, optimove_ce: Run, variables: dict[str, str], tmp_path: Path
) -> None:
    SqliteJournal(tmp_path / "reviews.db").close()
    (tmp_path / "text.db").write_text("no database" * 100)
    (tmp_path / "kept.csv").write_text("kept")
    with contextlib.chdir(tmp_path):
        done = optimove_ce("reconcile", *arguments, variables=variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert (tmp_path / "kept.csv").read_text() == "kept"
    assert not any(each.name.startswith("tmp") for each in tmp_path.iterdir())


def test_a_secret_that_does_not_fit_is_status_2(
    optimove_ce: Run, fake_optimove: FakeOptimove, variables: dict[str, str], tmp_path: Path
) -> None:
    campaign, path = fake_optimove.add_campaign(3), tmp_path / "pseudonyms.db"
    with SqliteDecisionLog(path, identify="right") as log, fake_optimove.client() as client:
        assert CampaignReview(reviewer, client=client, decision_log=log).run(campaign.event()).complete
    fake_optimove.execute(campaign)
    arguments = ["reconcile", str(campaign.campaign_id), "--log", str(path)]
    for secret, status in (("right", 0), ("wrong", 2)):
        done = optimove_ce(*arguments, variables={**variables, "OPTIMOVE_DECISION_LOG_SECRET": secret})
        assert done.returncode == status
    assert done.stdout == ""
    assert "OPTIMOVE_DECISION_LOG_SECRET" in done.stderr
    assert "wrong" not in done.stderr
    assert optimove_ce(*arguments, variables=variables).returncode == 2


# ---- review explain

LINE = re.compile(r"    (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC|time not recorded)  (.*)")


def explained(optimove_ce: Run, *arguments: str) -> tuple[str, list[str]]:
    """Return the first line and the steps, whose times are checked."""
    done = optimove_ce("review", "explain", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    first, *steps = done.stdout.splitlines()
    found = [LINE.fullmatch(step) for step in steps]
    return first, [each[2] for each in found if each is not None]


def test_a_customer_is_explained_from_the_journal_alone(
    optimove_ce: Run, optimove_ce_process: Run, places: list[str], campaign: Campaign
) -> None:
    journal = places[:2]
    clearance = campaign.payload["ClearanceRequiredBy"]
    head = f"campaign {campaign.campaign_id}  clearance {clearance}  "
    final = "approvals became final, and were sent from then on"
    first, steps = explained(optimove_ce, "C0000001", *journal)
    assert first == f"{head}approved, and Optimove took it."
    assert re.fullmatch(r"batch \d+: approved", steps[0])
    assert steps[1:] == [final, "update 1: Optimove took it"]
    first, steps = explained(optimove_ce, EXCLUDED, *journal)
    assert first == f"{head}denied (self-excluded?[2J)."
    assert re.fullmatch(r"batch \d+: denied", steps[0])
    first, _ = explained(optimove_ce, ABSTAINED, *journal)
    assert first == f"{head}not approved, the reviewer abstained (not sure)."
    first, _ = explained(optimove_ce, "C0000010", *journal)
    assert first == f"{head}not asked about, a customer of the control group."
    number = str(campaign.campaign_id)
    assert explained(optimove_ce, "C7", *journal, "--campaign", number) == (f"{head}not in the campaign.", [])
    assert explained(optimove_ce, "C7", *journal) == ("1 review does not name the customer.", [])
    done = optimove_ce_process("review", "explain", EXCLUDED, *journal, "--campaign", number, "--json")
    (told,) = json.loads(done.stdout)
    steps = told.pop("steps")
    assert told == {
        "campaign_id": campaign.campaign_id, "clearance_required_by": clearance, "standing": "denied",
        "reason": "self-excluded\x1b[2J", "acknowledged": False,
    }  # fmt: skip
    assert [step["what"] for step in steps] == ["denied", "released"]
    assert abs(steps[0]["at"] - campaign.added_ms / 1_000) < 600
    none = optimove_ce("review", "explain", EXCLUDED, *journal, "--campaign", "7")
    assert (none.returncode, none.stdout) == (1, "The journal holds no such review.\n")


def test_an_older_journal_is_explained_without_times(optimove_ce: Run, places: list[str], campaign: Campaign) -> None:
    without_times(Path(places[1]))
    done = optimove_ce("review", "explain", "C0000001", *places[:2])
    assert done.returncode == 0
    first, *steps = done.stdout.splitlines()
    assert first.endswith("approved, and Optimove took it.")
    assert [step.split("  ")[2:3] for step in steps] == [["time not recorded"]] * 3
    assert steps[-1] == "    time not recorded  update not recorded: Optimove took it"


SETS = ('[[504,19,7,["WB23"]]]', '[[504,19,7,["WB23"]],[505,19,7,["WB23"]]]')


def one(what: str, row_set: int = 0, **more: Any) -> DecidedBatch:
    fields: dict[str, Any] = {what: ("C",), **more}
    return DecidedBatch(row_sets=SETS[row_set : row_set + 1], **fields)


@pytest.mark.parametrize(
    ("batches", "standing"),
    [
        ([one("approved")], "approved"),
        ([one("approved"), one("denied", 1, revoked=("C",))], "denied"),
        ([one("approved"), one("confirmed", 1)], "approved"),
        ([one("approved", 1), DecidedBatch(failed={"KeyError": ("C",)}, row_sets=SETS[:1])], "approved"),
        ([one("approved"), DecidedBatch(failed={"KeyError": ("C",)}, row_sets=SETS[1:])], "failed"),
        ([one("unanswered")], "unanswered"),
        ([one("approved"), one("not_reached", 1)], "not_reached"),
        ([one("approved"), DecidedBatch(released=1), one("not_reached", 1)], "approved"),
        ([DecidedBatch(failed={"KeyError": ("C",)}, row_sets=SETS[:1]), one("approved")], "approved"),
        ([DecidedBatch(approved=("B", "D"))], "unknown"),
    ],
)
def test_of_several_answers_the_rules_of_a_review_count(
    batches: list[DecidedBatch], standing: str, optimove_ce: Run, tmp_path: Path, fake_optimove: FakeOptimove
) -> None:
    event: CampaignReadyEvent = fake_optimove.add_campaign(1).event()
    with SqliteJournal(tmp_path / "j.db") as journal:
        journal.add(event)
        journal.record(event.key, batches)
        journal.keep_report(event.key, ReviewReport(campaign_id=event.campaign_id).to_json())
    options = ["--journal", str(tmp_path / "j.db"), "--campaign", str(event.campaign_id), "--json"]
    (told,) = json.loads(optimove_ce("review", "explain", "C", *options).stdout)
    assert (told["standing"], told["acknowledged"]) == (standing, False)
    assert told["reason"] == ("KeyError" if standing == "failed" else None)


def test_the_reason_is_that_of_the_answer_that_counts(
    optimove_ce: Run, tmp_path: Path, fake_optimove: FakeOptimove
) -> None:
    event: CampaignReadyEvent = fake_optimove.add_campaign(1).event()
    failed = DecidedBatch(failed={"KeyError": ("C",)}, row_sets=SETS[:1])
    with SqliteJournal(tmp_path / "j.db") as journal:
        journal.add(event)
        journal.record(event.key, [failed, one("denied", reasons={"C": "excluded"}), one("confirmed", 1)])
    first, steps = explained(optimove_ce, "C", "--journal", str(tmp_path / "j.db"))
    assert first.endswith("  denied (excluded).")
    assert steps == [
        "batch 1: not approved, the decision failed (KeyError)",
        "batch 2: denied",
        "batch 3: asked about again, and the earlier decision stands",
    ]


def test_a_file_that_is_no_journal_is_status_2(optimove_ce: Run, places: list[str], campaign: Campaign) -> None:
    with contextlib.closing(sqlite3.connect(places[1])) as connection, connection:
        connection.execute("UPDATE batches SET batch = 'x'")
    done = optimove_ce("review", "explain", "C0000001", *places[:2])
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be read" in done.stderr


def test_the_journal_from_the_environment(
    optimove_ce: Run, places: list[str], campaign: Campaign, variables: dict[str, str]
) -> None:
    given = {"OPTIMOVE_JOURNAL": places[1]}
    assert "approved" in optimove_ce("review", "explain", "C0000001", variables=given).stdout
    assert "finished" in optimove_ce("review", "status", variables=given).stdout
    number = str(campaign.campaign_id)
    told = optimove_ce("reconcile", number, "--json", variables=variables | given).stdout
    assert json.loads(told)["reviews"] == 1
    missing = optimove_ce("review", "status")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "OPTIMOVE_JOURNAL" in missing.stderr
