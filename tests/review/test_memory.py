"""What a large campaign costs in memory, with a server that knows no pages, in a process of its own."""

from __future__ import annotations

from benchmarks.big_campaign import big_campaign
from benchmarks.review import run

CUSTOMERS = 100_000
LIST_OF_MODELS = 100.0
"""Megabytes that the same customers take at once, at the least: 1.6 kB each are 155."""


def test_an_array_of_any_length_costs_little() -> None:
    with big_campaign(CUSTOMERS, ignores_paging=True) as campaign:
        reviewed = run("no paging", campaign).megabytes
        naive = run("naive", campaign).megabytes
    assert reviewed < 60
    assert naive > LIST_OF_MODELS, "the comparison has become worthless"
