"""The page that compares holds the rows of the program that compares, and the SDK does what its column says."""

from __future__ import annotations

import asyncio
import re

import pytest
from benchmarks.comparison import receiving, reviewing
from benchmarks.comparison.calling import CALLERS
from benchmarks.comparison.packages import PACKAGES
from benchmarks.comparison.tables import FEATURES

from tests.docs.pages import DOCS

PAGE = (DOCS / "explanation" / "comparison.md").read_text("utf-8")
COLUMNS = {
    "A webhook for triggered campaigns": list(receiving.GATES),
    "A call to Optimove": list(CALLERS),
    "A scheduled campaign": [*reviewing.WAYS, "dlt"],
    "A package": list(PACKAGES),
}
CELL = re.compile(r"yes|no|-|\d+ of \d+|(over )?\d+ s|\d+ MB|[\d,]+|\d+\.\d")


def rows(title: str) -> list[list[str]]:
    """Return the cells of a table, the line of dashes left out."""
    found = re.search(rf"^\| {title} \|.*\n(?:\|.*\n)+", PAGE, re.MULTILINE)
    assert found is not None, title
    lines = [line[2:-2].split(" | ") for line in found[0].splitlines()]
    return [lines[0], *lines[2:]]


@pytest.mark.parametrize("title", FEATURES)
def test_the_tables_are_those_that_the_program_prints(title: str) -> None:
    head, *body = rows(title)
    assert head == [title, *COLUMNS[title]]
    assert [feature for feature, *_ in body] == FEATURES[title]
    for feature, *cells in body:
        assert len(cells) == len(COLUMNS[title]), feature
        assert all(CELL.fullmatch(cell) for cell in cells), feature


def test_the_page_says_how_to_print_them() -> None:
    assert ".venv/bin/python -m benchmarks comparison" in PAGE


def test_a_webhook_of_the_sdk_does_what_its_column_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "PATIENCE", 60.0)
    _, *body = rows("A webhook for triggered campaigns")
    said = {(feature, cell) for feature, cell, *_ in body}
    shown: set[tuple[str, str]] = set()
    for _ in range(3):  # deadlines are short here, and a busy machine misses one of them now and then
        table = asyncio.run(receiving.compare(["this SDK"]))
        assert [*table.rows] == [feature for feature, *_ in body]
        shown |= {(feature, cell) for feature, (cell,) in table.rows.items()}
        if said <= shown:
            return
    assert said <= shown, said - shown
