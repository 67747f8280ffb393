"""`optimove-ce init`: one of the examples as a separate project, which runs against the simulator and has a test."""

from __future__ import annotations

import ast
import importlib.resources
import re
import shlex
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import click

from ..errors import ConfigurationError
from ..installation import DISTRIBUTION, requirement
from .options import echo_result, json_option

REQUIREMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "fastapi": ("fastapi", "uvicorn"),
    "flask": ("flask", "gunicorn"),
    "django": ("django", "gunicorn"),
    "lambda": (),
    "script": (),
}
"""The requirements of a kind of project beside the SDK."""

_PACKAGE: Final = "optimove_conditional_execution"
_MORE: Final = {"lambda": ("lambda_local.py",)}

_PLACE: Final = """\
# The SDK, from where it was installed here. Elsewhere, name its wheel there, a file or a URL.
"""
_NO_PLACE: Final = """\
# If the SDK's wheel is on no index of yours, name the folder that holds it:
# --find-links wheels
"""
_INSTALLS: Final = re.compile(rf'pip install "{DISTRIBUTION}\[cli\]".*')
_TEMPLATES: Final = {
    "mypy.ini": "mypy.ini",
    "README.md": "README.md",
    ".env.example": "env.example",
    ".gitignore": "gitignore",
}
"""Files that each kind has, and what they are called in the package."""


@click.command(epilog="\b\nExamples:\n  optimove-ce init fastapi\n  optimove-ce init flask gate --json")
@click.argument("kind", type=click.Choice(list(REQUIREMENTS)))
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=".")
@click.option("--force", is_flag=True, help="Overwrite files that are there already; only those that it writes.")
@json_option
def init(kind: str, directory: Path, force: bool, as_json: bool) -> None:
    """Write a small project into DIRECTORY, the current one by default: a gate, its service, and its tests.

    It runs against the simulator as it is, and its tests pass. Put your register where it says "Replace this". A
    `script` needs no framework: Python's own web server serves it. Nothing is downloaded or installed.

    Exit status: 0 it is written, 2 files are there already, or could not be written.
    """
    files = project(kind)
    _write(files, directory, replace=force)
    commands = [
        "python -m pip install -r requirements.txt",
        "python -m pytest",
        _last_paragraph(files["gate.py"]),
    ]
    if directory.resolve() != Path.cwd():
        commands[0] = f"cd {shlex.quote(str(directory))} && {commands[0]}"
    wrote = [f"wrote {click.format_filename(directory / name)}" for name in files]
    lines = [*wrote, "\nNext: set up, test, rehearse.\n", *(f"  {click.format_filename(each)}" for each in commands)]
    value = {"kind": kind, "directory": str(directory), "files": list(files), "next": commands}
    echo_result(value, "\n".join(lines), as_json=as_json)


def project(kind: str) -> dict[str, str]:
    """Return the contents of a project's files, by name.

    Args:
        kind: One of `REQUIREMENTS`.
    """
    folder = _examples()
    example = f"{kind}_gate"
    sources = (f"{example}.py", f"test_{example}.py", *_MORE.get(kind, ()))
    files = {}
    for name in sources:
        # In its own folder it is the only gate.
        text = folder.joinpath(name).read_text("utf-8").replace(example, "gate")
        text = text.replace(f"package {DISTRIBUTION} ", f"package {shlex.quote(requirement())} ")
        files[name.replace(example, "gate")] = _INSTALLS.sub("pip install -r requirements.txt", text)
    needed = (requirement("cli"), *REQUIREMENTS[kind], "pytest")
    files["requirements.txt"] = (_PLACE if "@" in needed[0] else _NO_PLACE) + "".join(f"{name}\n" for name in needed)
    for name, template in _TEMPLATES.items():
        text = importlib.resources.files(_PACKAGE).joinpath("cli", "project", template).read_text("utf-8")
        files[name] = text.replace("{rehearsal}", _last_paragraph(files["gate.py"]))
    return files


def _examples() -> Traversable:
    """Return the folder of the examples: in the wheel below the package, in a clone beside it."""
    packaged = importlib.resources.files(_PACKAGE).joinpath("examples")
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "examples"


def _last_paragraph(source: str) -> str:
    """Return the command that an example's docstring ends with, in one line."""
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return " ".join(docstring.rpartition("\n\n")[2].replace("\\\n", "").split())


def _write(files: Mapping[str, str], directory: Path, *, replace: bool) -> None:
    # A broken link exists, too.
    there = [name for name in files if (directory / name).exists() or (directory / name).is_symlink()]
    if there and not replace:
        raise ConfigurationError(
            f"Nothing was written, since these files are there already: {', '.join(there)}. "
            "Name another directory, or pass --force to overwrite these."
        )
    written: list[str] = []
    name = str(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            if replace:  # replace a link, and keep its target
                (directory / name).unlink(missing_ok=True)
            with (directory / name).open("x", encoding="utf-8", newline="\n") as file:
                file.write(content)
            written.append(name)
    except OSError as error:
        before = f"Written before that: {', '.join(written)}." if written else "Nothing was written."
        raise ConfigurationError(f"Cannot write {name}: {error.strerror or type(error).__name__}. {before}") from None
