"""The charts in the documentation, from the code that draws them; `python -m tests.docs.drawings` draws them anew."""

from __future__ import annotations

import contextlib
import io
import random
import re

from optimove_conditional_execution.cli.charts import BurnUp, Histogram, show
from tests.docs.pages import DOCS

PAGE = DOCS / "reference" / "command-line.md"


def drawn(chart: Histogram | BurnUp) -> str:
    """Return a chart as a pipe gets it."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        show(chart)
    return "".join(f"{line.rstrip()}\n" for line in printed.getvalue().splitlines())


def drawings() -> dict[str, str]:
    """Return the titles of the blocks in the page, and what must stand in them."""
    chance = random.Random(7)
    latencies = [round(chance.lognormvariate(4.2, 0.7)) for _ in range(2_000)] + [2_300, 2_900]
    decided = [(float(second), min(600_000, 900 * second)) for second in range(0, 681, 10)]
    # Sent once the last page has been read, and all have been decided about: 52 updates in 10 s.
    series = {"decided": decided, "acknowledged": [(0.0, 0), (670.0, 0), (680.0, 600_000 * 6 // 7)]}
    return {
        "Latencies against the deadline": drawn(Histogram(latencies, deadline_ms=2_000)),
        "A review against clearance": drawn(BurnUp(series, clearance=900, safety_margin=30, total=600_000)),
    }


def chart_block(title: str, text: str) -> str:
    """Return a chart as the page holds it."""
    return f'```text title="{title}"\n{text}```'


if __name__ == "__main__":
    page = PAGE.read_text("utf-8")
    for name, text in drawings().items():
        page = re.sub(rf'```text title="{name}"\n.*?```', chart_block(name, text), page, flags=re.DOTALL)
    PAGE.write_text(page, "utf-8")
