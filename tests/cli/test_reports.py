"""What the commands draw in the end, and the pages of `--report`, from real runs."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
from pathlib import Path
from unittest import mock

import pytest
from click.testing import CliRunner

from optimove_conditional_execution.cli.app import program
from optimove_conditional_execution.cli.charts import BurnUp, ReviewSamples
from optimove_conditional_execution.cli.console import review_sections
from optimove_conditional_execution.flows.report import Progress, ReviewReport
from optimove_conditional_execution.rehearsal import ScheduledResult, demo
from optimove_conditional_execution.rehearsal.demo import demo_scheduled
from optimove_conditional_execution.review import asking
from optimove_conditional_execution.testing import FakeOptimove
from tests.cli.conftest import Run, environment
from tests.cli.test_demo import everybody

GATE = """
def odd(customers, deadline):
    return [customer.customer_id for customer in customers if int(customer.customer_id[1:]) % 2]

def broken(customers, deadline):
    raise ValueError("C0000001 is <broken>")
"""


def review(folder: Path, fake: FakeOptimove, url: str, *arguments: str, given: str = "") -> tuple[int, str, str]:
    settings = {"OPTIMOVE_API_KEY": fake.api_key, "OPTIMOVE_BASE_URL": url, "OPTIMOVE_TIMEZONE": "UTC"}
    (folder / "gate.py").write_text(GATE)
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, environment(**settings), clear=True),
        mock.patch.dict(sys.modules),  # the gate of each folder is another one
        mock.patch.object(sys, "path", [*sys.path]),
    ):
        sys.modules.pop("gate", None)
        done = CliRunner().invoke(program, ["review", *arguments], input=given)
    return done.exit_code, done.stdout, done.stderr


def words(page: str) -> str:
    """Return a page's text without tags."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL).split())


def test_the_demo_draws_both_charts_and_writes_the_page(optimove_ce: Run, tmp_path: Path) -> None:
    path = tmp_path / "demo.html"
    # The deadline is generous, since the machine may be busy.
    arguments = ["--count", "9", "--customers", "2000", "--timeout-ms", "4000", "--seed", "5", "--report", str(path)]
    done = optimove_ce("demo", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert max(map(len, done.stdout.splitlines())) <= 110
    for drawn in ("Answers by latency, in ms", "--- deadline 4,000 ms ---", "Customers over time"):
        assert drawn in done.stdout
    text = words(path.read_text("utf-8"))
    for line in (
        "✓ Nothing lost, nothing late (--seed 5 plays it again).",
        "✓ All customers accounted for",
        "deadline 4000 ms",
    ):
        assert line in text
    assert "1,980 decided and 1,697 acknowledged of 1,980 customers" in text
    for name, value in re.findall(r"^(sent|decided|approved|forged|lost|late|recipients) +(.+)$", done.stdout, re.M):
        assert f"{name} {value}" in text
    page = path.read_text("utf-8")
    assert "--- deadline 4,000 ms ---" in text
    assert not re.search(r"C\d{7}|(eligible|excluded|undecided|failing|slow)-\d", page), "no customer is named"


def test_a_demo_that_went_wrong_says_so_on_its_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "demo.html"
    monkeypatch.setattr(demo, "demo_scheduled", functools.partial(demo_scheduled, reviewer=everybody))
    arguments = ["demo", "--count", "1", "--timeout-ms", "3000", "--customers", "300", "--json", "--report", str(path)]
    result = CliRunner().invoke(program, arguments)
    assert result.exit_code == 1
    assert json.loads(result.output)["ok"] is False, "--json is still one object"
    text = words(path.read_text("utf-8"))
    assert (
        "✗ The review and the simulator differ. ! 42 would get the campaign and must not: "
        "C0000007, C0000014, C0000021 and others." in text
    )


@pytest.mark.parametrize("command", [["demo"], ["review", "resume", "gate:odd", "--journal", "none.db"], ["campaign"]])
def test_a_report_that_cannot_be_written_stops_the_command_before_it_works(
    command: list[str], optimove_ce: Run, tmp_path: Path
) -> None:
    done = optimove_ce(*command, "--report", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "is a folder" in done.stderr


def test_a_review_draws_its_burn_up_and_writes_the_page(
    fake_optimove: FakeOptimove, optimove_url: str, tmp_path: Path
) -> None:
    campaign = fake_optimove.add_campaign(3_000)
    arguments = ["run", "gate:odd", "-", "--journal", "reviews.db", "--report", "review.html"]
    given = json.dumps(campaign.payload)
    status, printed, complaints = review(tmp_path, fake_optimove, optimove_url, *arguments, given=given)
    assert (status, complaints) == (0, "")
    lines = printed.splitlines()
    assert lines[1:3] == ["campaign     1359", "reviewed     3,000"]
    assert lines[14:16] == ["Customers over time, against clearance", ". decided   # acknowledged"]
    assert lines[-1] == "Complete: every customer was decided, and every status to report was acknowledged."
    assert max(map(len, lines)) <= 90
    page = (tmp_path / "review.html").read_text("utf-8")
    text = words(page)
    assert "Campaign 1359 ✓ Complete" in text
    assert "acknowledged 1,500" in text
    assert "3,000 decided and 1,500 acknowledged of 3,000 customers" in text
    assert not re.search(r"C\d{7}", page)
    assert fake_optimove.api_key not in page


def test_resumed_reviews_have_a_section_each(
    fake_optimove: FakeOptimove, optimove_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_FIRST_PAUSE", 0.05)
    for size in (400, 200):
        given = json.dumps(fake_optimove.add_campaign(size).payload)
        run = ["run", "gate:broken", "-", "--journal", "reviews.db", "--report", "review.html"]
        status, printed, _ = review(tmp_path, fake_optimove, optimove_url, *run, given=given)
        assert (status, "INCOMPLETE" in printed, "Customers over time" in printed) == (1, True, False)
    page = (tmp_path / "review.html").read_text("utf-8")
    assert "✗ INCOMPLETE" in page
    assert "batches failed: The reviewer raised ValueError." in page
    assert "broken" not in page, "what the reviewer raised says nothing on the page"
    resume = ["resume", "gate:odd", "--journal", "reviews.db", "--report", "review.html"]
    status, printed, _ = review(tmp_path, fake_optimove, optimove_url, *resume)
    assert status == 0
    assert printed.count("Customers over time, against clearance") == 2
    text = words((tmp_path / "review.html").read_text("utf-8"))
    assert len(re.findall(r"Campaign \d+ ✓ Complete", text)) == 2
    assert "200 decided and 100 acknowledged of 200 customers" in text
    assert "400 decided and 200 acknowledged of 400 customers" in text
    status, printed, _ = review(tmp_path, fake_optimove, optimove_url, *resume)
    assert (status, printed) == (0, "Nothing is left to do.\n")
    assert "Nothing is left to do." in words((tmp_path / "review.html").read_text("utf-8"))


def told(seconds: float, decided: int, *, all_read: bool = True) -> Progress:
    return Progress(
        campaign_id=7, rows=decided, reviewed=decided, approved=decided, denied=0, failed=0, acknowledged=0,
        all_read=all_read, rate=1.0, seconds=seconds, seconds_left=60.0, slack=None,
    )  # fmt: skip


def burn_ups(reports: list[ReviewReport], samples: ReviewSamples) -> list[BurnUp]:
    sections = review_sections(reports, samples, safety_margin=30.0, nothing="")
    return [chart for section in sections for chart in section.charts if isinstance(chart, BurnUp)]


def test_two_reviews_of_one_campaign_are_not_mixed() -> None:
    samples = ReviewSamples()
    for moment in range(3):
        samples(told(moment, 10 * moment))
    one = ReviewReport(campaign_id=7, reviewed=20)
    (alone,) = burn_ups([one], samples)
    assert (alone.drawable, alone.total) == (True, 20)
    assert [chart.drawable for chart in burn_ups([one, one], samples)] == [False, False]


def test_how_many_customers_there_are_is_not_guessed() -> None:
    samples = ReviewSamples()
    samples(told(0, 0, all_read=False))
    samples(told(1, 10, all_read=False))
    (chart,) = burn_ups([ReviewReport(campaign_id=7, reviewed=10)], samples)
    assert (chart.drawable, chart.total) == (True, None)


def test_a_campaign_shows_what_the_simulator_heard() -> None:
    now = [1_800_000_000.0]
    fake = FakeOptimove(wall_clock=lambda: now[0])
    campaign = fake.add_campaign(300, lead_seconds=60)
    for seconds in (10, 20, 65):
        at_ms = int((now[0] + seconds) * 1000)
        statuses = [(f"C{number:07d}", True) for number in range(seconds, seconds + 100)]
        campaign.take(statuses, timestamp="", at_ms=at_ms)
    result = ScheduledResult.of(campaign, [200])
    assert result.reported_over_time == [(0.0, 0), (10.0, 100), (20.0, 200), (65.0, 300)]
    assert (result.clearance_seconds, result.rows, result.late) == (60.0, 300, 100)
    chart = BurnUp({"reported": result.reported_over_time}, clearance=result.clearance_seconds, total=result.rows)
    assert "That was 5 s after clearance." in chart.sentence
