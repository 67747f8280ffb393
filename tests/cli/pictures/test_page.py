"""The page: whole by itself, escaped, readable in both colour schemes and by machines."""

from __future__ import annotations

import base64
import hashlib
import platform
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimove_conditional_execution import __version__
from optimove_conditional_execution.cli.pictures import BurnUp, Histogram, Section
from optimove_conditional_execution.cli.pictures.markup import escaped, tag
from optimove_conditional_execution.cli.pictures.page import page
from optimove_conditional_execution.cli.pictures.plot import NARROW, WIDE
from optimove_conditional_execution.cli.pictures.style import DARK, LIGHT
from optimove_conditional_execution.cli.pictures.svg import burn_up_svg, histogram_svg, standalone

unhurried = settings(deadline=None)  # the machine may be busy

MADE = datetime(2026, 11, 24, 20, 31, 5, tzinfo=UTC)
LATENCIES = Histogram.of([31, 35, 34, 73, 2_500], deadline_ms=2_000)
REVIEW = BurnUp.of(
    {"decided": [(0, 0), (1, 400), (2, 1_000)], "acknowledged": [(0, 0), (1, 0), (2, 800)]},
    clearance=60, safety_margin=5, total=1_000,
)  # fmt: skip
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\" ' & \x00\x1b[31m\u202e\ud800 http://evil.example/"


class Reader(HTMLParser):
    """Collects tags, attributes and text, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def section(**changes: Any) -> Section:
    values: dict[str, Any] = {"title": "A triggered campaign", "ok": True, "verdict": "Nothing lost.", **changes}
    return Section(**values)


def whole() -> str:
    return page(
        "A rehearsal",
        [
            section(facts=[("sent", "40")], pictures=[LATENCIES]),
            section(
                title="A scheduled one", ok=False, verdict="It does not add up.", pictures=[REVIEW],
                findings=["42 too many"], warnings=["look here"],
            ),
        ],
        made=MADE,
    )  # fmt: skip


def test_everything_that_was_given_is_there() -> None:
    reader = Reader(whole())
    text = " ".join(reader.texts)
    for expected in (
        "A rehearsal", "24 November 2026, 20:31:05 UTC", "A triggered campaign", "✓ Nothing lost.", "sent", "40",
        "✗ It does not add up.", "42 too many", "look here", LATENCIES.sentence, REVIEW.sentence, LATENCIES.caption,
        f"optimove-conditional-execution {__version__}", f"Python {platform.python_version()}",
    ):  # fmt: skip
        assert expected in text
    assert ("time", {"datetime": "2026-11-24T20:31:05+00:00"}) in reader.tags


def test_nothing_is_loaded_and_nothing_is_run() -> None:
    text = whole()
    reader = Reader(text)
    names = {name for name, _ in reader.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "image", "use", "base", "form"}
    for _, attributes in reader.tags:
        assert not set(attributes) & {"src", "href", "style", "xlink:href", "srcset", "action"}
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"url\(|@import|@font-face", text)
    addresses = set(re.findall(r"https?://[^\"'<>\s]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}, "the name of a kind of element, which nobody opens"


def test_the_policy_names_the_style_sheet_and_allows_nothing_else() -> None:
    text = whole()
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [
        given["content"] for name, given in Reader(text).tags if given.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_whatever_is_text_is_escaped() -> None:
    text = page(
        HOSTILE,
        [section(title=HOSTILE, verdict=HOSTILE, facts=[(HOSTILE, HOSTILE)], findings=[HOSTILE], warnings=[HOSTILE])],
        made=MADE,
    )
    reader = Reader(text)
    assert not {"script", "img"} & {name for name, _ in reader.tags}
    assert not re.search("[\x00\x1b\u202e\ud800]", text)
    text.encode()
    assert sum("<script>alert(1)</script>" in piece for piece in reader.texts) == 8


@unhurried
@given(st.text())
def test_any_text_survives_as_text(text: str) -> None:
    written = tag("p", {"title": text}, escaped(text))
    reader = Reader(written)
    assert [name for name, _ in reader.tags] == ["p"]
    assert "<" not in escaped(text)
    assert '"' not in escaped(text)


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_pictures_are_wellformed_and_described(size: Any) -> None:
    for drawn, picture in (
        (histogram_svg(LATENCIES, size, name="a"), LATENCIES),
        (burn_up_svg(REVIEW, size, name="b"), REVIEW),
    ):
        root = ElementTree.fromstring(drawn)
        space = "{http://www.w3.org/2000/svg}"
        assert root.tag == f"{space}svg"
        assert root.get("role") == "img"
        title, desc = root[0], root[1]
        assert (title.tag, title.text, root.get("aria-labelledby")) == (f"{space}title", picture.title, title.get("id"))
        assert (desc.tag, desc.text, root.get("aria-describedby")) == (f"{space}desc", picture.sentence, desc.get("id"))
        inside(root)


def inside(root: ElementTree.Element) -> None:
    """Assert that whatever is drawn lies in the picture."""
    _, _, width, height = (float(number) for number in str(root.get("viewBox")).split())
    for element in root.iter():
        for name, most in (("x", width), ("x1", width), ("x2", width), ("cx", width), ("y", height), ("y1", height)):
            value = element.get(name)
            assert value is None or -1 <= float(value) <= most + 1, (element.tag, name, value)


@unhurried
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20), st.floats(0.5, 1e6), st.sampled_from([WIDE, NARROW]))
def test_any_latencies_are_drawn_inside(latencies: list[float], deadline_ms: float, size: Any) -> None:
    root = ElementTree.fromstring(histogram_svg(Histogram.of(latencies, deadline_ms=deadline_ms), size, name="a"))
    inside(root)
    bars = [element for element in root.iter() if "bar" in str(element.get("class")).split()]
    assert bars
    assert all(float(str(bar.get("height"))) >= 2 and float(str(bar.get("width"))) > 1 for bar in bars)
    assert any("late" in str(bar.get("class")) for bar in bars) == any(one > deadline_ms for one in latencies)


def test_ids_are_unique() -> None:
    ids = [given["id"] for _, given in Reader(whole()).tags if "id" in given]
    assert len(ids) == len(set(ids)) >= 10


def test_tables_hold_the_numbers() -> None:
    text = whole()
    assert re.search(r"<td>31 to 35 ms</td><td>\d</td><td>[\d.]+%</td><td>in time</td>", text)
    assert re.search(r"<td>2,240 to 2,500 ms</td><td>1</td><td>100.0%</td><td>late</td>", text)
    assert "<td>1.0 s</td><td>400</td><td>0</td>" in text
    assert '<th scope="col">acknowledged</th>' in text


def test_what_has_no_data_is_told_in_words() -> None:
    empty = Histogram.of([], deadline_ms=2_000)
    text = page("A rehearsal", [section(pictures=[empty, BurnUp.of({}, clearance=1)])], made=MADE)
    assert empty.sentence in text
    assert "there is nothing to draw" in text
    assert "<svg" not in text


def brightness(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colours", [LIGHT, DARK])
@pytest.mark.parametrize(
    ("ink", "paper", "least"),
    [
        ("ink", "card", 7), ("ink", "paper", 7), ("muted", "card", 4.5), ("muted", "paper", 4.5),
        ("bad", "bad-soft", 4.5), ("done", "good-soft", 4.5), ("warn", "card", 4.5), ("ink", "bad-soft", 7),
        ("ink", "warn-soft", 7), ("bar", "card", 3), ("done", "card", 3), ("bad", "card", 4.5),
    ],
)  # fmt: skip
def test_colours_have_the_contrast_that_wcag_asks_for(
    colours: dict[str, str], ink: str, paper: str, least: float
) -> None:
    lighter, darker = sorted((brightness(colours[ink]), brightness(colours[paper])), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= least


def test_a_picture_stands_alone_with_its_colours() -> None:
    text = standalone(burn_up_svg(REVIEW, WIDE, name="review"))
    root = ElementTree.fromstring(text)
    style = next(element for element in root.iter() if element.tag.endswith("style"))
    assert "prefers-color-scheme:dark" in str(style.text)
