"""What the documentation says about the project holds: versions, commands, links, pages."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import re
from pathlib import Path
from typing import Any, get_args

import click
import pytest

import optimove_conditional_execution
from optimove_conditional_execution import Endpoints, OptimoveClient
from optimove_conditional_execution.cli.app import program
from optimove_conditional_execution.cli.charts import BurnUp, Histogram, ReviewSamples
from optimove_conditional_execution.cli.rehearse import DEMO_CUSTOMERS
from optimove_conditional_execution.cli.tools import REQUIREMENTS, project
from optimove_conditional_execution.rehearsal import (
    Latencies,
    Observation,
    PlannedNotification,
    Reply,
    ScheduledResult,
    TriggeredResult,
)
from optimove_conditional_execution.rehearsal.demo import (
    SAFETY_MARGIN,
    demo_scheduled,
    scheduled_part,
    triggered_part,
)
from optimove_conditional_execution.rehearsal.plan import demo_plan
from optimove_conditional_execution.rehearsal.triggered import Simulation
from optimove_conditional_execution.settings import BASE_URL_VARIABLE, TIMEZONE_VARIABLE
from optimove_conditional_execution.signature_diagnosis import Mistake
from tests.docs.drawings import PAGE, chart_block, drawings, drawn
from tests.docs.pages import DOCS, PAGES, ROOT, blocks, name_of, without_code, without_fences
from tests.house.test_levels import LEVELS, SOURCE

README = ROOT / "README.md"
PACKAGE = "optimove_conditional_execution"
OPTION = re.compile(r"^\| `([a-z-]+)` \|", re.MULTILINE)


def command(name: str) -> str:
    """Return a command of the README as .ci/run takes it."""
    found = re.findall(rf"^<!-- command: {name} -->\n```sh\n(.*?)\n```$", README.read_text("utf-8"), re.MULTILINE)
    assert len(found) == 1, f"README.md must have one command {name!r}"
    return str(found[0])


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL), re.M)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def test_the_newest_version_in_the_changelog_is_this_one() -> None:
    headings = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert headings[0] == ("Unreleased", "")
    version, date = headings[1]
    assert version == optimove_conditional_execution.__version__
    assert date


def test_the_readme_has_two_commands_and_each_is_a_line() -> None:
    text = README.read_text("utf-8")
    assert re.findall(r"<!-- command: (\w+) -->", text) == ["demo", "test"]
    assert command("demo") == "python3 -m venv .venv && .venv/bin/pip install -q '.[cli]' && .venv/bin/optimove-ce demo"
    assert command("test") == "python3 -m venv .venv && .venv/bin/pip install -q 'nox[uv]' && .venv/bin/nox"


def test_ci_runs_the_commands_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "<!-- command: $1 -->" in script
    assert "for name in demo test;" in script
    # No step lives only in CI.
    assert "pytest" not in script
    assert "pip install" not in script


def test_nox_runs_what_the_readme_and_contributing_name() -> None:
    noxfile = (ROOT / "noxfile.py").read_text("utf-8")
    sessions = set(re.findall(r"^@nox\.session.*\ndef (\w+)\(", noxfile, re.MULTILINE))
    default = re.search(r"nox\.options\.sessions = \[(.*?)\]", noxfile, re.DOTALL)
    assert default is not None
    run_by_default = set(re.findall(r'"(\w+)[-"]', default[1]))
    table = dict(re.findall(r"^\| `(\w+)` \| .* \| (yes|no) \|$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M))
    assert set(table) == sessions
    assert {name for name, by_default in table.items() if by_default == "yes"} == run_by_default
    assert 'session.install(".[cli]")\n    session.run("optimove-ce", "demo")' in noxfile


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_relative_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{name_of(page)} links to {target}"
        assert not anchor or anchor in anchors(file), f"{name_of(page)} links to {target}"


def test_the_navigation_names_every_page() -> None:
    named = re.findall(r"^ +- .+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_the_reference_shows_every_public_name() -> None:
    shown = {
        name
        for page in (DOCS / "reference").glob("*.md")
        for name in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.MULTILINE)
    }
    public = {f"optimove_conditional_execution.{name}" for name in optimove_conditional_execution.__all__}
    errors = {f"optimove_conditional_execution.{name}" for name in dir(optimove_conditional_execution.errors)}
    stores = {f"optimove_conditional_execution.{name}" for name in ("ClaimStore", "Journal")}  # shown with the stores
    assert public - errors - stores - {"optimove_conditional_execution.__version__"} <= shown
    for name in shown - {"optimove_conditional_execution.errors"}:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_the_tables_of_endpoints_are_those_of_the_code() -> None:
    endpoints = Endpoints()
    names = {field: getattr(endpoints, field) for field in Endpoints.__dataclass_fields__ if field != "path_prefix"}
    expected = {field: f"{endpoint.method} {endpoint.path}" for field, endpoint in names.items()}
    table = re.findall(r"^\| `(\w+)` \| `(.+?)` \|", (DOCS / "how-to" / "going-live.md").read_text("utf-8"), re.M)
    assert dict(table) == expected
    api = (DOCS / "explanation" / "optimove-api.md").read_text("utf-8")
    for line in expected.values():
        assert f"`{line}`" in api


def parameters_of(name: str) -> set[str]:
    """Return the parameters of something public: a function, a class, a method of a class or of a client."""
    places: list[Any] = [optimove_conditional_execution, OptimoveClient]
    first, _, rest = name.partition(".")
    found = next(getattr(place, first) for place in places if hasattr(place, first))
    return set(inspect.signature(getattr(found, rest) if rest else found).parameters)


def test_the_setting_for_each_unknown_is_there() -> None:
    unknown = (DOCS / "explanation" / "optimove-api.md").read_text("utf-8").split("\n## Unknown\n")[1]
    rows = re.findall(r"^\| (?!unknown|---)(.+?) \| (.+) \| (.+) \|$", unknown, re.M)
    assert len(rows) > 50
    for what, _, setting in rows:
        named = re.findall(r"`([A-Za-z_.]+)\((\w+)=\.\.\.\)`", setting)
        assert named or setting.startswith("no setting"), what
        for name, parameter in named:
            assert parameter in parameters_of(name), f"{name}({parameter}=...)"
    variables = set(re.findall(r"`(OPTIMOVE_\w+)`", unknown))
    assert variables == {BASE_URL_VARIABLE, TIMEZONE_VARIABLE}


def test_each_guarantee_names_tests_that_are_there() -> None:
    page = DOCS / "explanation" / "guarantees.md"
    promised = page.read_text("utf-8").split("## What is not guaranteed")[0]
    rows = re.findall(r"^\| (?!guarantee|---)(.+?) \| (.+) \|$", promised, re.M)
    assert len(rows) > 20
    for guarantee, held_by in rows:
        tests = re.findall(r"\[`(test_\w+)`\]\((\S+)\)", held_by)
        assert tests, guarantee
        for name, path in tests:
            text = (page.parent / path).read_text("utf-8")
            assert re.search(rf"^(    )?(async )?def {name}\(", text, re.M), f"{name} is not in {path}"


def test_every_mistake_that_verify_names_is_explained() -> None:
    page = (DOCS / "how-to" / "capturing-a-raw-body.md").read_text("utf-8")
    assert {name for name in get_args(Mistake) if f"`{name}`" not in page} == set()


def test_the_design_names_every_room_with_its_level() -> None:
    rows = re.findall(
        r"^\| (\d) \| `([\w/.]+)` \| (.*) \|$", (DOCS / "explanation" / "design.md").read_text("utf-8"), re.M
    )
    rooms = {room.removesuffix("/").removesuffix(".py").removesuffix("__init__"): int(level) for level, room, _ in rows}
    assert rooms == LEVELS
    for _, room, text in rows:
        named = set(re.findall(r"`(\w+\.py)`", text))
        if named:
            assert named == {path.name for path in (SOURCE / room).glob("*.py")} - {"__init__.py"}, room


def test_modules_that_are_named_are_there() -> None:
    files = [
        path
        for folder in (SOURCE, *map(ROOT.joinpath, ("tests", "examples", "docs", "benchmarks")))
        for path in folder.rglob("*.py")
    ]
    known = {"noxfile.py", *(path.as_posix() for path in files)}
    known |= {f"/{name}" for kind in REQUIREMENTS for name in project(kind)}
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        titles = {block.title for block in blocks(page)}
        for name in re.findall(r"`([\w./-]+\.py)`", without_fences(page)):
            inside = name.removeprefix("src/")  # the package may stand elsewhere
            there = name in titles or any(path.endswith(f"/{inside}") or path == name for path in known)
            assert there, f"{name_of(page)} names {name}"


def test_pages_name_no_machine() -> None:
    for page in [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]:
        assert not re.search(r"/(work|home|tmp|root)/|localhost:\d", page.read_text("utf-8")), name_of(page)


def test_shell_blocks_use_commands_that_are_there() -> None:
    for page in PAGES:
        for block in blocks(page):
            for name in re.findall(r"optimove-ce (\w+)", block.code) if block.language == "sh" else []:
                assert name in program.list_commands(click.Context(program)), f"{name_of(page)}:{block.line}"


def test_the_command_reference_names_every_option_and_argument() -> None:
    sections = re.split(r"^## ", (DOCS / "reference" / "command-line.md").read_text("utf-8"), flags=re.M)[1:]
    context = click.Context(program)
    named = {section.split("\n", 1)[0].strip("`"): set(OPTION.findall(section)) for section in sections}
    real = {
        name: {str(max(parameter.opts, key=len)) for parameter in command.params}
        for name in program.list_commands(context)
        if (command := program.get_command(context, name)) is not None
    }
    assert len(real) > 10
    assert {name: named.get(name) for name in real} == real


def test_the_command_reference_names_the_keys_of_the_json() -> None:
    text = (DOCS / "reference" / "command-line.md").read_text("utf-8")
    table: dict[tuple[str, str], set[str]] = {}
    for command_name, what, keys in re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| .*\|$", text, re.M):
        table[command_name, what] = set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", keys)))
    reply = Reply("http://127.0.0.1:9/x", 0.1, status=200)
    one = Observation(PlannedNotification("C1"), "uid", (reply,))
    result = TriggeredResult.of([one], deadline_ms=1)
    scheduled = ScheduledResult()
    assert {
        ("demo", "the only one"): set(triggered_part(result).numbers) | {"campaign"},
        ("demo", "`campaign` in it"): set(scheduled_part(scheduled, control=0, reports=()).numbers),
        ("trigger", '`"event": "result"`'): set(one.as_json()) - {"event"},
        ("trigger", '`"event": "summary"`'): set(result.as_json()) - {"event"},
        ("campaign", '`"event": "campaign"`'): set(scheduled.as_json()) - {"event"},
        ("simulate", '`"event": "result"`'): set(one.as_plain_json()) - {"event"},
        ("simulate", '`"event": "summary"`'): set(Simulation().as_json()) - {"event"},
    }.items() <= table.items()


LATENCIES_OF_THE_README = (
    134,
    86,
    35,
    35,
    37,
    35,
    39,
    35,
    34,
    36,
    36,
    40,
    35,
    35,
    35,
    36,
    35,
    34,
    35,
    34,
    34,
    37,
    36,
    35,
    37,
    34,
    34,
    34,
    39,
    36,
)
"""Of the run that the README shows."""


def test_the_charts_in_the_readme_are_those_of_its_demo() -> None:
    output = next(block.code for block in blocks(README) if block.language == "text")
    assert f"latency     {Latencies.of(LATENCIES_OF_THE_README)}\n" in output
    assert f"\n\n{drawn(Histogram(LATENCIES_OF_THE_README, deadline_ms=2_000))}\n" in output
    samples = ReviewSamples()
    outcome = asyncio.run(demo_scheduled(DEMO_CUSTOMERS, on_progress=samples))
    assert outcome.ok
    scheduled = output.partition("A scheduled campaign")[2]
    assert {timeless(f"{name:<11} {value}") for name, value in outcome.lines} <= set(timeless(scheduled).splitlines())
    total = DEMO_CUSTOMERS - outcome.numbers["control_group"]
    burn_up = BurnUp.of_review(samples.of(outcome.result.campaign_id), total=total, safety_margin=SAFETY_MARGIN)
    now, shown = drawn(burn_up), output[output.index("Customers over time") :]
    assert shown.splitlines()[:2] == now.splitlines()[:2]
    sentences = [timeless(" ".join(text[text.index("After ") :].split("\n\n")[0].split())) for text in (now, shown)]
    assert sentences[0] == sentences[1]


def test_the_charts_in_the_documentation_are_drawn_by_this_code() -> None:
    page = PAGE.read_text("utf-8")
    for title, text in drawings().items():
        assert chart_block(title, text) in page, "python -m tests.docs.drawings draws it anew"


def test_the_demo_output_in_the_readme_is_one_of_this_demo() -> None:
    output = next(block.code for block in blocks(README) if block.language == "text")
    triggered, _, _ = output.partition("A scheduled campaign")
    shown = {name: int(number) for name, number in re.findall(r"^(\w+) +(\d+)$", triggered, re.MULTILINE)}
    result = TriggeredResult(
        sent=shown["sent"],
        approved=shown["approved"],
        denied=shown["denied"],
        abstained=shown["abstained"],
        faults={name: (shown[f"{name}{s}"], shown[f"{name}{s}"]) for name, s in (("forged", ""), ("duplicate", "s"))},
        wrong=shown["lost"] + shown["late"],
        late=shown["late"],
    )
    numbers = triggered_part(result).numbers
    assert {name: numbers[name] for name in shown} == shown
    assert result.sent == sum(shown[name] for name in ("decided", "forged", "duplicates", "lost", "late"))
    assert result.ok
    played = re.findall(r"^\w+-\d+ +(\S+(?: \S+)?)  ", output, re.MULTILINE)
    assert set(played) == {one.scenario for one in demo_plan(40, seed=7)}


def timeless(text: str) -> str:
    return re.sub(r"\d+(\.\d)? s\b", "some s", text)


def test_nothing_is_left_to_fill_in() -> None:
    for page in PAGES:
        assert not re.search("TO BE FILLED|@@|TODO", page.read_text("utf-8")), name_of(page)


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("receivers", "WebhookReceiver"),
        ("receivers", "AsyncWebhookReceiver"),
        ("receivers", "ListenerReceiver"),
        ("receivers", "AsyncListenerReceiver"),
        ("review", "CampaignReview"),
        ("review", "AsyncCampaignReview"),
    ],
)
def test_the_reference_has_all_arguments_of_what_is_mounted(page: str, name: str) -> None:
    text = (DOCS / "reference" / f"{page}.md").read_text("utf-8")
    block = re.search(rf"^::: {PACKAGE}\.{name}\n((?: +.*\n)*)", text, re.M)
    assert block is not None
    assert "__init__" in block[1]  # it is inherited, and left out otherwise
    kind = getattr(optimove_conditional_execution, name)
    described = set(re.findall(r"^    (\w+): ", inspect.getdoc(kind.__init__) or "", re.M))
    assert described >= set(inspect.signature(kind).parameters)
