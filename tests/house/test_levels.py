"""Imports go down only, without circles; the lower rooms touch neither network nor clock."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from pathlib import Path

import optimove_conditional_execution

PACKAGE = "optimove_conditional_execution"
SOURCE = Path(optimove_conditional_execution.__file__).parent

LEVELS = {
    "_version": 0,
    "_lazy": 0,
    "defaults": 0,
    "errors": 0,
    "credentials": 0,
    "tracebacks": 0,
    "messages": 0,
    "deadline": 0,
    "observers": 0,
    "urls": 0,
    "validation": 0,
    "models": 0,
    "signature": 1,
    "listener_token": 1,
    "signature_diagnosis": 1,
    "handlers": 1,
    "operations": 1,
    "settings": 1,
    "flows": 2,
    "transport": 3,
    "stores": 3,
    "worker_pool": 3,
    "fork": 3,
    "installation": 3,
    "drivers": 4,
    "client": 4,
    "switch": 4,
    "shadow": 4,
    "receivers": 5,
    "replay": 5,
    "review": 5,
    "policy": 5,
    "reconciliation": 5,
    "adapters": 6,
    "integrations": 6,
    "telemetry": 6,
    "testing": 6,
    "rehearsal": 7,
    "cli": 8,
    "": 7,
}

OUTSIDE = {"httpx", "tenacity", "socket", "ssl", "asyncio", "subprocess", "sqlite3", "http", "os", "select", "requests"}
SOLE_IMPORTERS = {
    "httpx": {"transport.http"},
    "aiohttp": {"transport.aiohttp_engine"},
    "opentelemetry": {"telemetry"},
    "celery": {"integrations.celery"},
    "tenacity": {"transport.retry"},
    "sqlite3": {"stores.sqlite_file"},
    "redis": {"stores.redis"},
    "cryptography": {"stores.payloads"},
    "psycopg": {"stores.postgres_connection"},
    "psycopg_pool": {"stores.postgres_connection"},
}


def module_names() -> dict[str, Path]:
    names = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if parts[0] == "examples":  # in a wheel: the files that `optimove-ce init` writes
            continue
        names[".".join(part for part in parts if part != "__init__")] = path
    return names


MODULES = module_names()


def absolute(name: str, node: ast.ImportFrom) -> str:
    """Return the absolute name of the module that `node` in the module `name` imports from."""
    if not node.level:
        assert node.module is not None
        assert node.module.split(".")[0] != PACKAGE, f"{name}: imports of the package itself are relative"
        return node.module
    is_package = MODULES[name].name == "__init__.py"
    return importlib.util.resolve_name(
        "." * node.level + (node.module or ""),
        ".".join(filter(None, (PACKAGE, name if is_package else name.rpartition(".")[0]))),
    )


@functools.cache
def imports(name: str) -> set[str]:
    """Return what a module imports, absolute; ours as the module's name below the package."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = absolute(name, node)
            for alias in node.names:
                below = f"{source}.{alias.name}"
                is_module = below.removeprefix(f"{PACKAGE}.") in MODULES and below.startswith(PACKAGE)
                found.add(below if is_module else source)
    return found


def own_imports(name: str) -> set[str]:
    return {
        module.removeprefix(PACKAGE).removeprefix(".")
        for module in imports(name)
        if module == PACKAGE or module.startswith(f"{PACKAGE}.")
    }


def level(name: str) -> int:
    return LEVELS[name.split(".")[0]]


def test_every_module_has_a_level() -> None:
    assert {name.split(".")[0] for name in MODULES} == set(LEVELS)
    assert len(MODULES) > 30


def test_imports_go_down_only() -> None:
    upward = [
        f"{name} (L{level(name)}) imports {other} (L{level(other)})"
        for name in MODULES
        for other in own_imports(name)
        if level(other) > level(name)
    ]
    assert not upward


def test_no_circles() -> None:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name in done:
            return
        for other in own_imports(name):
            # A package's __init__ names its modules; what they import of each other is checked module by module.
            if other in MODULES:
                visit(other, (*trail, name))
        done.add(name)

    for name in MODULES:
        visit(name, ())


def test_the_lower_rooms_do_no_io() -> None:
    for name in MODULES:
        if level(name) <= 2:
            outside = {module.split(".")[0] for module in imports(name)} & OUTSIDE
            assert not outside, f"{name} imports {outside}"


def test_the_lower_rooms_read_no_clock_of_their_own() -> None:
    for name, path in MODULES.items():
        if level(name) > 2:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                assert not called.startswith("time."), f"{name}: {called}"
                assert called not in {"datetime.now", "datetime.utcnow", "threading.Thread"}, f"{name}: {called}"


def test_one_module_knows_each_engine() -> None:
    for library, importers in SOLE_IMPORTERS.items():
        users = {name for name in MODULES if library in {module.split(".")[0] for module in imports(name)}}
        outside = {name for name in users if not any(name == own or name.startswith(f"{own}.") for own in importers)}
        assert users
        assert not outside, library


def test_contributing_says_where_to_change_what() -> None:
    guide = (Path(__file__).parent.parent.parent / "CONTRIBUTING.md").read_text()
    table = guide.partition("## Where to change what")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (?!to change|---)(.*) \| (.*) \| `(.*)` \|$", table, re.MULTILINE)
    assert len(rows) == table.count("\n|") - 2
    assert len(rows) >= 10
    for what, files, name in rows:
        (first, *others) = re.findall(r"`([\w/]+\.py)`", files)
        assert re.search(rf"\b{name}\b", (SOURCE / first).read_text()), what
        assert all((SOURCE / other).is_file() for other in others), what


def test_modules_are_rooms_not_halls() -> None:
    long = {name: lines for name, path in MODULES.items() if (lines := len(path.read_text().splitlines())) > 500}
    assert not long
