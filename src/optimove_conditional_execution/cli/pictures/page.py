"""A report as one HTML page that needs nothing else: no script, no network, no file beside it."""

from __future__ import annotations

import base64
import hashlib
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Final, final

from optimove_conditional_execution import __version__
from optimove_conditional_execution.cli.pictures.burn_up import BurnUp
from optimove_conditional_execution.cli.pictures.histogram import Histogram
from optimove_conditional_execution.cli.pictures.markup import Markup, escaped, joined, tag
from optimove_conditional_execution.cli.pictures.plot import NARROW, WIDE
from optimove_conditional_execution.cli.pictures.samples import evenly
from optimove_conditional_execution.cli.pictures.style import PAGE_STYLE
from optimove_conditional_execution.cli.pictures.svg import burn_up_svg, histogram_svg
from optimove_conditional_execution.cli.pictures.wording import number

_TABLE_ROWS: Final = 20
_LONG_FACT: Final = 22
_LIBRARIES: Final = ("httpx", "pydantic", "click")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of a report: what was tried, how it went, and what it looks like.

    Attributes:
        title: A heading.
        ok: Whether it went well.
        verdict: How it went, as a sentence.
        facts: Names and values, in order.
        pictures: Drawn one below the other, each with a table of its numbers.
        findings: A sentence for each thing that is wrong, as the command prints it.
        warnings: A sentence for each thing that somebody should look at.
    """

    title: str
    ok: bool
    verdict: str
    facts: Sequence[tuple[str, str]] = ()
    pictures: Sequence[Histogram | BurnUp] = ()
    findings: Sequence[str] = ()
    warnings: Sequence[str] = ()


def page(title: str, sections: Sequence[Section], *, made: datetime) -> str:
    """Return the page.

    Args:
        title: Its heading.
        sections: In order.
        made: When, with a zone.
    """
    # Only this style sheet is applied, and nothing is run or loaded, whatever else might get into the page.
    digest = base64.b64encode(hashlib.sha256(PAGE_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = joined(
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "color-scheme", "content": "light dark"}),
        tag("meta", {"name": "robots", "content": "noindex"}),
        tag("title", None, escaped(title)),
        tag("style", None, Markup(PAGE_STYLE)),
    )
    when = tag("time", {"datetime": made.isoformat(timespec="seconds")}, escaped(f"{made:%d %B %Y, %H:%M:%S %Z}"))
    parts = [_section(section, f"s{index}") for index, section in enumerate(sections, start=1)]
    header = tag("header", None, tag("h1", None, escaped(title)), tag("p", {"class": "muted"}, when))
    footer = tag("footer", None, tag("p", None, escaped(", ".join(versions()))))
    body = tag("body", None, tag("main", None, header, *parts, footer))
    return f'<!doctype html>\n<html lang="en">{tag("head", None, head)}\n{body}</html>\n'


def versions() -> list[str]:
    """Return the versions of what made the report."""
    libraries = [f"{name} {version(name)}" for name in _LIBRARIES]
    return [f"optimove-conditional-execution {__version__}", f"Python {platform.python_version()}", *libraries]


def _section(section: Section, name: str) -> Markup:
    sign, kind = ("✓", "good") if section.ok else ("✗", "bad")
    facts = [
        tag(
            "div",
            {"class": "long" if len(value) > _LONG_FACT else None},
            tag("dt", None, escaped(key)),
            tag("dd", None, escaped(value)),
        )
        for key, value in section.facts
    ]
    return tag(
        "section",
        {"aria-labelledby": f"{name}-heading"},
        tag("h2", {"id": f"{name}-heading"}, escaped(section.title)),
        tag("p", {"class": f"verdict {kind}"}, escaped(f"{sign} {section.verdict}")),
        _notes("Findings", section.findings, "bad"),
        _notes("Warnings", section.warnings, "warn"),
        tag("dl", None, *facts) if facts else Markup(""),
        *(_figure(picture, f"{name}-p{index}") for index, picture in enumerate(section.pictures, start=1)),
    )


def _notes(heading: str, notes: Iterable[str], kind: str) -> Markup:
    items = [tag("li", None, escaped(note)) for note in notes]
    return tag("ul", {"class": f"notes {kind}", "aria-label": heading}, *items) if items else Markup("")


def _figure(picture: Histogram | BurnUp, name: str) -> Markup:
    heading = tag("h3", None, escaped(picture.title))
    words = tag("p", None, escaped(picture.sentence))
    drawn: Sequence[Markup]
    if isinstance(picture, Histogram):
        drawn = [histogram_svg(picture, size, name=name) for size in (WIDE, NARROW)] if picture.bins else ()
        table = _latencies(picture)
    else:
        drawn = [burn_up_svg(picture, size, name=name) for size in (WIDE, NARROW)] if picture.drawable else ()
        table = _customers(picture)
    if not drawn:
        return tag("figure", None, heading, tag("figcaption", None, words))
    caption = tag("figcaption", None, words, tag("p", None, escaped(picture.caption)))
    numbers = tag("details", None, tag("summary", None, escaped("The numbers")), tag("div", {"class": "scroll"}, table))
    return tag("figure", None, heading, *drawn, caption, numbers)


def _latencies(picture: Histogram) -> Markup:
    seen, rows = 0, []
    for one in picture.bins:
        seen += one.count
        if one.count:
            share = f"{seen / picture.total:.1%}"
            rows.append((str(one), f"{one.count:,}", share, "late" if one.late else "in time"))
    return _table(("latency", "answers", "up to here", "deadline"), rows)


def _customers(picture: BurnUp) -> Markup:
    moments = sorted({seconds for series in picture.series for seconds, _ in series.points})
    shown = [moment for moment, _ in evenly([(moment, 0) for moment in moments], _TABLE_ROWS)]
    rows = [
        (
            f"{moment:,.1f} s",
            *("" if (at := series.at(moment)) is None else number(round(at)) for series in picture.series),
        )
        for moment in shown
    ]
    return _table(("time", *(series.name for series in picture.series)), rows)


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    head = tag("tr", None, *(tag("th", {"scope": "col"}, escaped(name)) for name in names))
    body = [tag("tr", None, *(tag("td", None, escaped(cell)) for cell in row)) for row in rows]
    return tag("table", None, tag("thead", None, head), tag("tbody", None, *body))
