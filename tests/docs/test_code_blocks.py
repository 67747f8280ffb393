"""Every Python block of the documentation runs; the blocks of a page continue each other."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from optimove_conditional_execution.testing import FakeOptimove
from tests.docs.pages import PAGES, ROOT, Block, blocks, name_of

PYTHON = {name_of(page): [block for block in blocks(page) if block.language == "python"] for page in PAGES}
RUN = {name: found for name, found in PYTHON.items() if any(block.snippet is None for block in found)}
SNIPPETS = sorted({block.snippet for found in PYTHON.values() for block in found if block.snippet is not None})


def execute(name: str, found: list[Block], folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a page's blocks in one module; a block with a title is a file too, which later ones can import."""
    module = ModuleType(f"page_{abs(hash(name))}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.syspath_prepend(folder)
    for block in found:
        if block.snippet is not None:
            continue
        if block.title is not None:
            (folder / block.title).write_text(block.code, encoding="utf-8")
            monkeypatch.delitem(sys.modules, Path(block.title).stem, raising=False)
        # Errors then point at the line of the page.
        code = compile("\n" * (block.line - 1) + block.code, str(ROOT / name), "exec", dont_inherit=True)
        exec(code, module.__dict__)
    return module.__dict__


@pytest.fixture
def page(
    request: pytest.FixtureRequest,
    fake_optimove: FakeOptimove,
    optimove_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """The names that a page's blocks define, run with Optimove's stand-in on loopback."""
    monkeypatch.setenv("OPTIMOVE_API_KEY", fake_optimove.api_key)
    monkeypatch.setenv("OPTIMOVE_BASE_URL", optimove_url)
    monkeypatch.setenv("OPTIMOVE_WEBHOOK_SECRET", str(fake_optimove.secret))
    monkeypatch.chdir(tmp_path)  # where their files belong
    return execute(request.param, PYTHON[request.param], tmp_path, monkeypatch)


@pytest.mark.parametrize("page", sorted(RUN), indirect=True)
def test_blocks_run_and_their_tests_pass(page: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    tests: list[Callable[..., Any]] = [value for name, value in page.items() if name.startswith("test_")]
    for test in tests:
        names = inspect.signature(test).parameters
        fixtures = {"fake_optimove": FakeOptimove(), "monkeypatch": monkeypatch}
        assert set(names) <= set(fixtures), f"{test.__name__} wants fixtures that this runner does not have"
        test(**{name: fixtures[name] for name in names})


@pytest.mark.parametrize("page", ["README.md"], indirect=True)
def test_the_gate_of_the_readme_answers(page: dict[str, Any], fake_optimove: FakeOptimove) -> None:
    assert asyncio.run(ask(page["app"], page["client"], fake_optimove)) == {"C100": "denied", "C300": "approved"}


@pytest.mark.parametrize("page", ["docs/tutorial/first-gate.md"], indirect=True)
def test_the_gate_of_the_tutorial_answers(
    page: dict[str, Any], fake_optimove: FakeOptimove, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients: list[Any] = []

    def client_of() -> Any:
        clients.append(fake_optimove.async_client())
        return clients[0]

    monkeypatch.setitem(page, "AsyncOptimoveClient", client_of)
    app = page["create_app"]()
    assert asyncio.run(ask(app, clients[0], fake_optimove)) == {"C100": "denied", "C300": "approved"}


async def ask(app: Any, client: Any, optimove: FakeOptimove) -> dict[str, str]:
    """Post a notification about each customer to the app's webhook; return what Optimove made of the answers."""
    results: dict[str, str] = {}
    webhook = await client.ensure_webhook("https://gate.example.com/optimove")
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="https://gate.example.com") as http:
        for user_id in ("C100", "C300"):
            question, (delivery,) = optimove.trigger(user_id)
            assert delivery.url == webhook.url
            answer = await http.post(
                delivery.url, content=delivery.request.body, headers=list(delivery.request.headers)
            )
            assert answer.status_code == 200
            results[user_id] = optimove.result(question.request_uid)
    await client.aclose()
    return results


def test_the_readme_gate_has_twelve_lines() -> None:
    gate = PYTHON["README.md"][0]
    assert len([line for line in gate.code.splitlines() if line.strip()]) <= 12


@pytest.mark.parametrize("path", SNIPPETS)
def test_included_files_are_there(path: str) -> None:
    assert path.startswith("examples/"), "only examples are included: each of them has a test"
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("path", SNIPPETS)
def test_included_files_are_linked_beside(path: str) -> None:
    # Where a page is read on a code host, an include is a line that includes nothing.
    for name, found in PYTHON.items():
        if path in {block.snippet for block in found}:
            assert f"(../../{path})" in (ROOT / name).read_text("utf-8"), name


def test_no_python_hides_in_other_fences() -> None:
    for page in PAGES:
        for block in blocks(page):
            where = f"{name_of(page)}:{block.line}"
            known = {"python", "sh", "text", "json", "mermaid", "yaml"}
            assert block.language in known, f"{where}: name the block's language"
