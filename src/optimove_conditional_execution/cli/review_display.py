"""How far reviews are: a live table for people, a line a second for pipes."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Self, final

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from optimove_conditional_execution.flows.report import Progress

_BAR_WIDTH: Final = 16
_SECONDS_A_LINE: Final = 1.0
_HOUR: Final = 3_600


@final
class ReviewDisplay:
    """What a review takes as `progress=`, shown on a terminal.

    Use it as a context manager, which puts the terminal back in order:

        with ReviewDisplay() as display:
            CampaignReview(reviewer, client=client, progress=display).run(event)

    In a pipe it prints a line a second, and the last one of each review. It needs the extra `cli`.
    """

    def __init__(self, console: Console | None = None) -> None:
        """Show nothing yet.

        Args:
            console: Where to; unset, standard error.
        """
        self._console = Console(stderr=True) if console is None else console
        self._latest: dict[int, Progress] = {}
        self._printed: dict[int, tuple[float, Progress]] = {}
        alive = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = (
            Live(console=self._console, get_renderable=self._table, refresh_per_second=8, transient=True)
            if alive
            else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            if self._latest:
                self._console.print(self._table())
            return
        for progress in self._latest.values():
            if self._printed[progress.campaign_id][1] is not progress:
                self._print(progress)

    def __call__(self, progress: Progress) -> None:
        """Take note of how far a review is; called by the review, in its own thread."""
        self._latest[progress.campaign_id] = progress
        if self._live is not None:
            return
        printed = self._printed.get(progress.campaign_id)
        if printed is None or time.monotonic() - printed[0] >= _SECONDS_A_LINE:
            self._print(progress)

    def _print(self, progress: Progress) -> None:
        self._printed[progress.campaign_id] = (time.monotonic(), progress)
        values = ", ".join(value if name == "rate" else f"{value} {name}" for name, value in _cells(progress))
        self._console.print(Text(f"campaign {progress.campaign_id}: {values}"), soft_wrap=True)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for name in ("campaign", "", "decided", "approved", "rate", "left", "slack"):
            table.add_column(name, no_wrap=True, justify="left" if name in ("campaign", "") else "right")
        # A copy, since the review goes on in a thread of its own.
        for progress in list(self._latest.values()):
            # How many there are is known when the last row has come.
            total = max(1, progress.rows) if progress.all_read else None
            decided, approved, rate, left, slack = (value for _, value in _cells(progress))
            table.add_row(
                str(progress.campaign_id),
                ProgressBar(total=total, completed=progress.reviewed, width=_BAR_WIDTH, pulse=total is None),
                decided,
                approved,
                rate,
                left,
                Text(slack, style="bold red" if progress.behind else ""),
            )
        return table


def _cells(progress: Progress) -> list[tuple[str, str]]:
    """Return names and values, in the order in which they are shown."""
    decided = progress.approved + progress.denied
    return [
        ("decided", f"{decided:,}"),
        ("approved", f"{progress.approved:,}"),
        ("rate", f"{progress.rate:,.0f}/s"),
        ("left", _duration(progress.seconds_left)),
        ("slack", "?" if progress.slack is None else _duration(progress.slack)),
    ]


def _duration(seconds: float) -> str:
    if abs(seconds) < _HOUR:
        return f"{seconds:,.0f} s"
    return f"{seconds / _HOUR:,.1f} h"
