"""`--report`: what cannot be written is refused before the work, and a page is written in one piece."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from optimove_conditional_execution import ConfigurationError
from optimove_conditional_execution.cli.charts import Section, write_page
from optimove_conditional_execution.cli.options import report_option

SECTION = Section(title="A campaign", ok=True, verdict="Done.")


@click.command()
@report_option
def command(report: Path | None) -> None:
    click.echo(f"worked {report}")


def run(path: Path | str) -> tuple[int, str]:
    result = CliRunner().invoke(command, ["--report", str(path)])
    return result.exit_code, result.output


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Give up root's right to write everywhere, if this process has it."""
    if os.geteuid():
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_without_it_nothing_is_written() -> None:
    result = CliRunner().invoke(command, [])
    assert (result.exit_code, result.output) == (0, "worked None\n")


@pytest.mark.parametrize("name", ["report.html", "REPORT.HTM"])
def test_a_file_that_can_be_written_is_left_alone_until_the_end(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert run(path) == (0, f"worked {path}\n")
    assert list(tmp_path.iterdir()) == []


def test_what_stands_there_stays_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    assert run(path)[0] == 0
    assert path.read_text() == "old"


def test_what_cannot_be_a_page_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "plain").write_text("")
    os.mkfifo(tmp_path / "pipe.html")
    for name, complaint in {
        "": "is a folder: name a file in it",
        "folder.html": "is a folder: name a file in it",
        "nowhere/report.html": "There is no folder",
        "plain/report.html": "There is no folder",
        "reviews.db": "must end in .html",
        "pipe.html": "is not a regular file",
        f"{'x' * 300}.html": "cannot be written",
    }.items():
        status, output = run(f"{tmp_path}/{name}")
        assert status == 2, name
        assert "worked" not in output
        assert complaint in " ".join(output.split()), name


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that users without privileges reach; pytest's own ones they do not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


def test_an_unwritable_folder_is_refused_before_the_work(shared: Path) -> None:
    with without_privileges():
        assert run(shared / "report.html")[0] == 0
    shared.chmod(0o555)
    with without_privileges():
        status, output = run(shared / "report.html")
    assert status == 2
    assert "report.html cannot be written: Permission denied." in " ".join(output.split())
    shared.chmod(0o777)


def test_a_write_protected_page_is_refused(shared: Path) -> None:
    path = shared / "report.html"
    path.write_text("old")
    path.chmod(0o444)
    with without_privileges():
        status, output = run(path)
    assert (status, path.read_text()) == (2, "old")
    assert "report.html cannot be written: Permission denied." in " ".join(output.split())


def test_a_page_replaces_the_old_one_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    with path.open() as reader:
        write_page(path, title="A rehearsal", sections=[SECTION], made=datetime(2026, 11, 24, tzinfo=UTC))
        assert reader.read() == "old", "who reads the old one is not disturbed"
    assert [item.name for item in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text("utf-8").startswith('<!doctype html>\n<html lang="en">')
    umask = os.umask(0o022)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_page_that_is_closed_to_others_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    path.write_text("old")
    path.chmod(0o600)
    write_page(path, title="A rehearsal", sections=[SECTION])
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_is_followed(tmp_path: Path) -> None:
    real = tmp_path / "real.html"
    real.write_text("old")
    link = tmp_path / "link.html"
    link.symlink_to(real)
    assert run(link) == (0, f"worked {real}\n")


def test_a_page_that_cannot_be_written_any_more_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "report.html"
    with pytest.raises(ConfigurationError, match=r"report\.html could not be written: No such file or directory"):
        write_page(path, title="A rehearsal", sections=[SECTION])
