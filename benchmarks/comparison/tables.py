"""All tables of the page, in its order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Final

from benchmarks.comparison import calling, packages, receiving, reviewing
from benchmarks.comparison.words import Table

FEATURES: Final[Mapping[str, list[str]]] = {
    "A webhook for triggered campaigns": list(receiving.PROBES),
    "A call to Optimove": list(calling.PROBES),
    "A scheduled campaign": [*reviewing.PROBES, reviewing.MEMORY],
    "A package": [*packages.PROBES, packages.IMPORT],
}
"""The rows of each table; a test compares them with the page's."""


def compared() -> Iterator[Table]:
    """Measure, and yield a table at a time."""
    yield asyncio.run(receiving.compare())
    yield calling.compare()
    yield reviewing.compare()
    yield packages.compare()
