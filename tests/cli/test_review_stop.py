"""`optimove-ce review` that is stopped by a signal, or whose server refuses; and who was left without an answer."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from optimove_conditional_execution.flows.journal import DecidedBatch
from optimove_conditional_execution.stores import SqliteJournal
from optimove_conditional_execution.testing import FakeOptimove
from tests.cli.conftest import COMMAND
from tests.cli.test_review import environment, review

PATIENCE = 60

GATE = """
import pathlib, time

def slow(customers, deadline):
    pathlib.Path("asked").touch()
    while not deadline.expired:
        time.sleep(0.01)
    pathlib.Path("expired").touch()
    time.sleep(60)

def everybody(customers, deadline):
    return [customer.customer_id for customer in customers]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "gate.py").write_text(GATE)
    return tmp_path


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(folder: Path, fake_optimove: FakeOptimove) -> Iterator[Start]:
    """Start `review` in a pipe."""
    begun: list[subprocess.Popen[str]] = []

    def start(url: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, "review", *arguments, "--journal", "reviews.db"],
            cwd=folder,
            env=environment(fake_optimove, url) | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def wait_for(path: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.02)


def test_sigterm_stops_it_and_resume_goes_on(
    folder: Path, fake_optimove: FakeOptimove, optimove_url: str, start: Start
) -> None:
    campaign = fake_optimove.add_campaign(3)
    with SqliteJournal(folder / "reviews.db") as journal:
        journal.add(campaign.event())
    process = start(optimove_url, "resume", "gate:slow", "--log", "decisions.db", "--stop-within", "4", "--json")
    wait_for(folder / "asked")
    process.send_signal(signal.SIGTERM)
    printed, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM
    assert (folder / "expired").exists()
    (report,) = json.loads(printed)
    assert (report["stopped"], report["complete"], report["not_reached"]) == (True, False, 3)
    assert "Stopping within 4 s" in complaints
    assert "review resume gate:slow --journal reviews.db --log decisions.db goes on" in complaints
    journal_option = ["--journal", "reviews.db"]
    status, listed, _ = review(folder, fake_optimove, optimove_url, "unanswered", *journal_option, "--json")
    names = [f"C{number:07}" for number in (1, 2, 3)]
    assert (status, [(one["customer_id"], one["why"]) for one in json.loads(listed)]) == (
        0, [(name, "no answer") for name in names],
    )  # fmt: skip
    status, resumed, _ = review(folder, fake_optimove, optimove_url, "resume", "gate:everybody", *journal_option)
    assert (status, "\nComplete: every customer" in resumed, len(campaign.recipients())) == (0, True, 3)
    status, listed, _ = review(folder, fake_optimove, optimove_url, "unanswered", *journal_option)
    assert (status, listed) == (0, "Every customer whom the reviewer was asked about was answered about.\n")


def test_a_second_signal_ends_it_at_once(
    folder: Path, fake_optimove: FakeOptimove, optimove_url: str, start: Start
) -> None:
    (folder / "event.json").write_text(json.dumps(fake_optimove.add_campaign(3).payload))
    process = start(optimove_url, "run", "gate:slow", "event.json", "--stop-within", str(10 * PATIENCE))
    wait_for(folder / "asked")
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    assert "Stopping" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "Interrupted." in complaints) == (128 + signal.SIGINT, True)


def test_who_is_unanswered_is_listed_by_campaign(folder: Path, fake_optimove: FakeOptimove, optimove_url: str) -> None:
    one, other = fake_optimove.add_campaign(3).event(), fake_optimove.add_campaign(3).event()
    with SqliteJournal(folder / "reviews.db") as journal:
        for event in (one, other):
            journal.add(event)
        journal.record(
            one.key,
            [
                DecidedBatch(unanswered=("A", "B", "C", "D"), failed={"TimeoutError": ("E",), "ValueError": ("F",)}),
                DecidedBatch(approved=("A",), denied=("B",), not_reached=("C",), failed={"ValueError": ("D",)}),
            ],
        )
        journal.record(other.key, [DecidedBatch(unanswered=("A",))])
    arguments = ["unanswered", "--journal", "reviews.db", "--campaign", str(one.campaign_id)]
    status, listed, _ = review(folder, fake_optimove, optimove_url, *arguments)
    assert status == 0
    assert [line.split("  ")[-2:] for line in listed.splitlines()] == [
        ["C", "no answer"], ["D", "no answer"], ["E", "TimeoutError"],
    ]  # fmt: skip
    status, listed, _ = review(folder, fake_optimove, optimove_url, *arguments[:3], "--json")
    assert len(json.loads(listed)) == 4


def test_a_server_that_cannot_be_reached_is_told_at_once_in_a_pipe_too(
    folder: Path, fake_optimove: FakeOptimove, start: Start
) -> None:
    (folder / "event.json").write_text(json.dumps(fake_optimove.add_campaign(3).payload))
    process = start("http://127.0.0.1:1", "run", "gate:everybody", "event.json", "--stop-within", "2")
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "Nothing listens there" in line
    assert "tried again" in line
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "INCOMPLETE" in printed) == (128 + signal.SIGTERM, True)


def test_a_wrong_key_is_told_at_once_and_ends_it(
    folder: Path, fake_optimove: FakeOptimove, optimove_url: str, start: Start
) -> None:
    (folder / "event.json").write_text(json.dumps(fake_optimove.add_campaign(3).payload))
    process = start(optimove_url, "run", "gate:everybody", "event.json", OPTIMOVE_API_KEY="another")
    printed, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "401 Unauthorized. Check OPTIMOVE_API_KEY" in complaints
    assert "401 Unauthorized. Check OPTIMOVE_API_KEY" in printed
