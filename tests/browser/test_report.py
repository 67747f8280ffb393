"""Reports in a real browser: seen in light and dark, on a desk, a telephone and paper, and silent on the network."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from optimove_conditional_execution.cli.pictures import BurnUp, Histogram, Section, write_page
from optimove_conditional_execution.cli.program import program
from tests.browser.chromium import Page, chromium, installed
from tests.cli.pictures.test_page import HOSTILE

SHOWN = """[...document.querySelectorAll('svg')].map(svg => {
  const box = svg.getBoundingClientRect();
  const bars = [...svg.querySelectorAll('rect, path')].map(one => one.getBoundingClientRect());
  return {
    size: svg.classList[1], width: box.width, height: box.height,
    letters: parseFloat(svg.getAttribute('font-size')) * box.width / svg.viewBox.baseVal.width,
    drawn: bars.filter(bar => bar.width > 0 && bar.height > 0).length,
  };
}).filter(one => one.width > 0)"""


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
@pytest.mark.parametrize(("width", "size"), [(1280, "wide"), (390, "narrow"), (320, "narrow")])
def test_both_pictures_are_seen(page: Page, report: Path, width: int, size: str, dark: bool) -> None:
    page.open(report, width=width, dark=dark)
    shown = page.value(SHOWN)
    assert [one["size"] for one in shown] == [size, size]
    for one in shown:
        assert one["width"] > 250
        assert one["height"] > 150
        assert one["drawn"] >= 1
        assert one["letters"] >= 9, "letters can be read"
    assert page.value("document.documentElement.scrollWidth <= window.innerWidth"), "nothing sticks out"
    assert page.value("getComputedStyle(document.body).backgroundColor") == (
        "rgb(16, 19, 24)" if dark else "rgb(246, 247, 249)"
    )


@pytest.mark.parametrize("dark", [False, True])
def test_it_asks_nobody_for_anything_and_has_no_complaint(page: Page, report: Path, dark: bool) -> None:
    page.open(report, dark=dark)
    assert page.requests == [report.as_uri()]
    assert page.complaints == []


def test_screen_readers_get_names_and_descriptions(page: Page, report: Path) -> None:
    page.open(report)
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    images = {
        node["name"]["value"]: node.get("description", {}).get("value", "")
        for node in nodes
        if node.get("role", {}).get("value") == "image" and not node["ignored"]
    }
    answers, customers = sorted(images)
    assert answers.startswith("Answers by latency, in ms")
    assert "came after the deadline of 4,000 ms." in images[answers]
    assert customers == "Customers over time, against clearance"
    assert "1,980 decided" in images[customers]
    headings = [node["name"]["value"] for node in nodes if node.get("role", {}).get("value") == "heading"]
    assert headings[:2] == ["Demonstration of Conditional Execution", "A triggered campaign"]


def test_the_numbers_open_on_a_screen_and_are_there_on_paper(page: Page, report: Path) -> None:
    visible = "[...document.querySelectorAll('table')].map(one => one.checkVisibility({contentVisibilityAuto: true}))"
    page.open(report)
    page.until(visible, [False, False])
    page.value("document.querySelectorAll('summary').forEach(one => one.click())")
    page.until(visible, [True, True])
    page.open(report, media="print", dark=True)
    page.until(visible, [True, True])
    assert page.value("getComputedStyle(document.querySelector('h2')).color") == "rgb(26, 31, 38)", "dark ink"
    assert [one["size"] for one in page.value(SHOWN)] == ["wide", "wide"]
    pdf = base64.b64decode(page.call("Page.printToPDF", printBackground=True)["data"])
    assert pdf.startswith(b"%PDF-")


def test_a_picture_is_not_blank(page: Page, report: Path) -> None:
    page.open(report)
    clip = page.value(
        "(() => { const box = document.querySelector('svg .bar').getBoundingClientRect();"
        "return {x: box.x, y: box.y, width: box.width, height: box.height, scale: 1}; })()"
    )
    bar = page.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
    page.value("document.querySelectorAll('.bar').forEach(one => one.remove())")
    assert page.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"] != bar


def test_hostile_texts_stay_texts(page: Page, tmp_path: Path) -> None:
    pictures: list[Histogram | BurnUp] = [
        Histogram.of([1, 5_000], deadline_ms=200),
        BurnUp.of({HOSTILE: [(0, 0), (9, 5)]}, clearance=10),
    ]
    section = Section(title=HOSTILE, ok=False, verdict=HOSTILE, facts=[(HOSTILE, HOSTILE)], pictures=pictures,
                      findings=[HOSTILE], warnings=[HOSTILE])  # fmt: skip
    write_page(tmp_path / "report.html", title=HOSTILE, sections=[section])
    page.open(tmp_path / "report.html", width=390)
    assert page.requests == [(tmp_path / "report.html").as_uri()]
    assert page.complaints == []
    assert page.value("document.querySelectorAll('script, img').length") == 0
    assert page.value("document.body.innerText").count("<script>alert(1)</script>") >= 5
    assert page.value("document.documentElement.scrollWidth <= window.innerWidth")
    assert len(page.value(SHOWN)) == 2


def test_what_these_tests_look_for_would_be_found(page: Page, tmp_path: Path) -> None:
    loud = tmp_path / "loud.html"
    loud.write_text("<!doctype html><img src='http://127.0.0.1:9/pixel'><script>console.error('loud')</script>")
    page.open(loud)
    assert "http://127.0.0.1:9/pixel" in page.requests
    assert any("loud" in complaint for complaint in page.complaints)
    assert page.value(SHOWN) == []


def test_a_missing_browser_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssertionError, match="none of chromium, chromium-browser, google-chrome is on PATH"):
        installed()
