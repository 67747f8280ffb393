"""Reports in a real browser: seen in light and dark, on a desk, a telephone and paper, and silent on the network."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from optimove_conditional_execution.cli.app import program
from optimove_conditional_execution.cli.charts import BurnUp, Histogram, Section, write_page
from tests.browser.chromium import Page, chromium, installed
from tests.cli.test_charts import HOSTILE

CONTRAST = """(() => {
  const channel = value => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const canvas = document.createElement('div');
  canvas.style.color = 'canvas';
  document.body.append(canvas);
  const rgb = element => getComputedStyle(element).color.match(/[0-9]+/g).map(Number).slice(0, 3);
  const ground = light(rgb(canvas));
  canvas.remove();
  return [...document.querySelectorAll('pre, pre span')].map(element => {
    const ink = light(rgb(element));
    return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
  }).sort((a, b) => a - b)[0];
})()"""
LETTERS = "parseFloat(getComputedStyle(document.querySelector('pre')).fontSize)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a demo."""
    path = tmp_path_factory.mktemp("reports") / "demo.html"
    arguments = ["demo", "--count", "9", "--customers", "2000", "--timeout-ms", "4000", "--report", str(path)]
    # Whether it went well is not the question here, on a machine that may be slow.
    result = CliRunner().invoke(program, arguments)
    assert path.is_file(), result.output
    return path


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "letters"), [(1280, 14), (900, 14), (390, 7.9)])
def test_both_charts_are_seen_whole_and_can_be_read(
    page: Page, report: Path, width: int, letters: float, dark: bool
) -> None:
    page.open(report, width=width, dark=dark)
    text = page.value("document.body.innerText")
    assert "--- deadline 4,000 ms ---" in text
    assert "Customers over time, against clearance" in text
    assert page.value("document.documentElement.scrollWidth <= window.innerWidth"), "nothing sticks out"
    assert page.value(LETTERS) >= letters
    assert page.value(CONTRAST) >= 3
    lines = page.value("document.querySelector('pre').getClientRects()[0].height")
    line = page.value("parseFloat(getComputedStyle(document.querySelector('pre')).lineHeight)")
    assert round(lines / line) == text.rstrip("\n").count("\n") + 1, "no line is broken"


@pytest.mark.parametrize("dark", [False, True])
def test_it_asks_nobody_for_anything_and_has_no_complaint(page: Page, report: Path, dark: bool) -> None:
    page.open(report, dark=dark)
    assert page.requests == [report.as_uri()]
    assert page.complaints == []


def test_it_prints_with_dark_ink(page: Page, report: Path) -> None:
    page.open(report, media="print", dark=False)
    assert page.value("getComputedStyle(document.querySelector('pre')).color") == "rgb(0, 0, 0)"
    pdf = base64.b64decode(page.call("Page.printToPDF", printBackground=True)["data"])
    assert pdf.startswith(b"%PDF-")


def test_hostile_texts_stay_texts(page: Page, tmp_path: Path) -> None:
    charts: list[Histogram | BurnUp] = [
        Histogram([1, 5_000], deadline_ms=200),
        BurnUp({HOSTILE: [(0, 0), (9, 5)]}, clearance=10),
    ]
    section = Section(title=HOSTILE, ok=False, verdict=HOSTILE, facts=[(HOSTILE, HOSTILE)], charts=charts,
                      findings=[HOSTILE], warnings=[HOSTILE])  # fmt: skip
    write_page(tmp_path / "report.html", title=HOSTILE, sections=[section])
    page.open(tmp_path / "report.html", width=390)
    assert page.requests == [(tmp_path / "report.html").as_uri()]
    assert page.complaints == []
    assert page.value("document.querySelectorAll('script, img').length") == 0
    assert page.value("document.body.innerText").count("<script>alert(1)</script>") >= 5
    assert page.value("document.documentElement.scrollWidth <= window.innerWidth")


def test_what_these_tests_look_for_would_be_found(page: Page, tmp_path: Path) -> None:
    loud = tmp_path / "loud.html"
    loud.write_text(
        "<!doctype html><img src='http://127.0.0.1:9/pixel'><script>console.error('loud')</script>"
        "<pre style='color: #eee'>pale</pre>"
    )
    page.open(loud)
    assert "http://127.0.0.1:9/pixel" in page.requests
    assert any("loud" in complaint for complaint in page.complaints)
    assert page.value(CONTRAST) < 3


def test_a_missing_browser_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssertionError, match="none of chromium, chromium-browser, google-chrome is on PATH"):
        installed()
