"""The display of reviews, on a terminal and in a pipe."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from optimove_conditional_execution import CampaignReview
from optimove_conditional_execution.cli.console import ReviewDisplay
from optimove_conditional_execution.flows.report import Progress
from optimove_conditional_execution.testing import FakeOptimove


def progress(campaign_id: int = 7, reviewed: int = 1_500, slack: float | None = 40.0, left: float = 50.0) -> Progress:
    return Progress(
        campaign_id=campaign_id,
        rows=3_000,
        reviewed=reviewed,
        approved=reviewed - 500,
        denied=500,
        failed=0,
        acknowledged=0,
        all_read=reviewed > 1_000,
        rate=12_345.6,
        seconds=1.0,
        seconds_left=left,
        slack=slack,
    )


def piped() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=100), text


def terminal() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=100, force_terminal=True, _environ={"TERM": "xterm"}), text


def test_a_pipe_gets_a_line_a_second_and_the_last_one() -> None:
    console, text = piped()
    with ReviewDisplay(console) as display:
        for reviewed in (600, 700, 1_500):
            display(progress(reviewed=reviewed))
    assert text.getvalue().splitlines() == [
        "campaign 7: 600 decided, 100 approved, 12,346/s, 50 s left, 40 s slack",
        "campaign 7: 1,500 decided, 1,000 approved, 12,346/s, 50 s left, 40 s slack",
    ]


def test_nothing_is_said_twice() -> None:
    console, text = piped()
    with ReviewDisplay(console) as display:
        display(progress())
    assert text.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("slack", "left", "shown"),
    [
        (None, 50.0, "50 s left, ? slack"),
        (-3.0, 50.0, "50 s left, -3 s slack"),
        (9_000.0, 7_200.0, "2 h left, 2.5 h slack"),
    ],
)
def test_times(slack: float | None, left: float, shown: str) -> None:
    console, text = piped()
    with ReviewDisplay(console) as display:
        display(progress(slack=slack, left=left))
    assert text.getvalue().rstrip("\n").endswith(shown)


def test_a_terminal_gets_a_table_with_a_row_for_each_campaign() -> None:
    console, text = terminal()
    with ReviewDisplay(console) as display:
        display(progress(7))
        display(progress(8, reviewed=900, slack=-3.0))
    head, seventh, eighth = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.getvalue()).splitlines()[-3:]
    assert head.split() == ["campaign", "decided", "approved", "rate", "left", "slack"]
    assert seventh.split()[0] == "7"
    assert seventh.split()[-7:] == ["1,500", "1,000", "12,346/s", "50", "s", "40", "s"]
    assert eighth.split()[0] == "8"
    assert eighth.split()[-2:] == ["-3", "s"]


def test_an_error_puts_the_terminal_back_in_order() -> None:
    console, text = terminal()
    with pytest.raises(KeyError), ReviewDisplay(console):
        raise KeyError
    assert text.getvalue().rindex("\x1b[?25h") > text.getvalue().rindex("\x1b[?25l")


def test_a_review_takes_it() -> None:
    fake = FakeOptimove()
    console, text = piped()
    with ReviewDisplay(console) as display, fake.client() as client:
        review = CampaignReview(
            lambda customers, deadline: [one.customer_id for one in customers[::2]], client=client, progress=display
        )
        review.run(fake.add_campaign(300).event())
    assert "campaign 1359: 300 decided, 150 approved" in text.getvalue().splitlines()[-1]
