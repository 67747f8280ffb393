"""What is in the wheel and the sdist. Run by `nox -s build`, which makes them."""

from __future__ import annotations

import email.message
import email.parser
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Final

import pytest

PACKAGE: Final = "optimove_conditional_execution"
LARGEST_WHEEL: Final = 562_000
"""Bytes. What users import is most of it, with its docstrings; no data, no tests."""


def the_one(ending: str) -> Path:
    folder = os.environ.get("DISTRIBUTIONS")
    assert folder, "Run it by `nox -s build`, which makes the distributions and says where they are."
    (found,) = Path(folder).glob(f"*{ending}")
    return found


@pytest.fixture(scope="module")
def wheel() -> zipfile.ZipFile:
    return zipfile.ZipFile(the_one(".whl"))


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.parser.Parser().parsestr(wheel.read(name).decode())


def test_the_wheel_has_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {PACKAGE}
    names = set(wheel.namelist())
    assert f"{PACKAGE}/py.typed" in names
    # The tests of examples are what `optimove-ce init` writes.
    ours = [name for name in names if not name.startswith(f"{PACKAGE}/examples/")]
    assert not [name for name in ours if "/test_" in name or "conftest" in name or name.endswith((".pyc", ".db"))]
    assert the_one(".whl").stat().st_size < LARGEST_WHEEL
    assert the_one(".whl").name.endswith("-py3-none-any.whl")


def test_the_sdist_has_what_the_wheel_is_made_of(wheel: zipfile.ZipFile) -> None:
    with tarfile.open(the_one(".tar.gz")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    examples = f"{PACKAGE}/examples/"
    modules = {
        name.removeprefix(f"{PACKAGE}/") if name.startswith(examples) else f"src/{name}"
        for name in wheel.namelist()
        if name.startswith(f"{PACKAGE}/")
    }
    assert modules <= names
    assert {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "noxfile.py", "tests/conftest.py"} <= names
    assert not [name for name in names if ".nox/" in name or ".venv" in name or "__pycache__" in name]


def test_the_metadata_says_who_may_install_it(metadata: email.message.Message) -> None:
    assert metadata["Name"] == "optimove-conditional-execution"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    classifiers = set(metadata.get_all("Classifier", []))
    for version in ("3.11", "3.12", "3.13"):
        assert f"Programming Language :: Python :: {version}" in classifiers
    assert "Typing :: Typed" in classifiers
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert {line.split("<")[0].split(">")[0] for line in required} == {
        "httpx",
        "pydantic",
        "tenacity",
        "typing-extensions",
        "tzdata; sys_platform == 'win32'",
    }
    extras = {"aiohttp", "celery", "cli", "encryption", "httpx2", "otel", "postgres", "redis"}
    assert set(metadata.get_all("Provides-Extra", [])) == extras
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_the_wheel_brings_the_command_and_the_pytest_plugin(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    text = wheel.read(name).decode()
    assert f"optimove-ce = {PACKAGE}.cli:main" in text
    assert f"{PACKAGE} = {PACKAGE}.testing.pytest_plugin" in text
