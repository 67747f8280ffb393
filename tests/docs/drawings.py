"""The pictures of the documentation, from the code that they show; `python -m tests.docs.drawings` draws them anew."""

from __future__ import annotations

import random
from typing import Final

from optimove_conditional_execution.cli.pictures import BurnUp, Histogram
from optimove_conditional_execution.cli.pictures.plot import WIDE
from optimove_conditional_execution.cli.pictures.svg import burn_up_svg, histogram_svg, standalone
from tests.docs.pages import DOCS

FOLDER: Final = DOCS / "pictures"


def drawings() -> dict[str, str]:
    """Return the files and what must stand in them."""
    chance = random.Random(7)
    latencies = [round(chance.lognormvariate(4.2, 0.7)) for _ in range(2_000)] + [2_300, 2_900]
    histogram = Histogram.of(latencies, deadline_ms=2_000)
    decided = [(float(second), min(600_000, 900 * second)) for second in range(0, 681, 10)]
    acknowledged = [(second, count * 6 // 7 // 10_000 * 10_000) for second, count in decided[:-1]]
    burn_up = BurnUp.of(
        {"decided": decided, "acknowledged": [*acknowledged, (680.0, 600_000 * 6 // 7)]},
        clearance=900,
        safety_margin=30,
        total=600_000,
    )
    return {
        "latencies.svg": standalone(histogram_svg(histogram, WIDE, name="latencies")),
        "review.svg": standalone(burn_up_svg(burn_up, WIDE, name="review")),
    }


if __name__ == "__main__":
    for name, text in drawings().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
