"""The projects that `optimove-ce init` writes: which files they have, and how they are served."""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from optimove_conditional_execution.errors import ConfigurationError

# Its hyphen says to type checkers that no package is meant: each folder in it is a root, as where it is written.
_FILES: Final = "project-files"
_COMMON: Final = "common"
_THREADS: Final = "threads"

# Under its own name git and ruff would obey the one, and pytest collect the other.
_PREFIXES: Final = {"dot_": ".", "check_": "test_"}


@final
@dataclass(frozen=True, slots=True)
class Project:
    """One kind of project.

    Attributes:
        serve: The command that serves it on loopback, port 8000.
        sources: The path of each file below the folder of files.
    """

    serve: str
    sources: tuple[str, ...]

    def files(self) -> dict[str, bytes]:
        """Return what each file holds, by its name in the project."""
        folder = importlib.resources.files("optimove_conditional_execution.cli").joinpath(_FILES)
        return {_name(source): folder.joinpath(*source.split("/")).read_bytes() for source in self.sources}

    def commands(self) -> list[str]:
        """Return what to type next, in the project's folder: set up, test, rehearse."""
        return [
            "python -m pip install -r requirements.txt",
            "python -m pytest",
            f"optimove-ce trigger http://127.0.0.1:8000/optimove --count 20 -- {self.serve}",
        ]


def _name(source: str) -> str:
    stored = source.rpartition("/")[2]
    for prefix, meant in _PREFIXES.items():
        if stored.startswith(prefix):
            return meant + stored.removeprefix(prefix)
    return stored


def _project(folder: str, *own: str, serve: str, gate: str = _THREADS, ignored: str = _COMMON) -> Project:
    sources = (
        f"{gate}/gate.py",
        *(f"{folder}/{name}" for name in own),
        f"{gate}/check_gate.py",
        f"{folder}/requirements.txt",
        f"{folder}/README.md",
        f"{_COMMON}/dot_env.example",
        f"{ignored}/dot_gitignore",
    )
    return Project(serve, sources)


_GUNICORN: Final = "gunicorn --threads 16 --bind 127.0.0.1:8000"

PROJECTS: Final[Mapping[str, Project]] = {
    "fastapi": _project(
        "fastapi", "main.py", "check_main.py", serve="uvicorn --factory main:create_app --port 8000", gate="fastapi"
    ),
    "flask": _project("flask", "app.py", "check_app.py", serve=f'{_GUNICORN} "app:create_app()"'),
    "django": _project(
        "django",
        "views.py",
        "urls.py",
        "settings.py",
        "wsgi.py",
        "check_views.py",
        serve=f"{_GUNICORN} wsgi:application",
    ),
    "lambda": _project(
        "lambda",
        "lambda_function.py",
        "local.py",
        "check_lambda_function.py",
        serve="python local.py",
        ignored="lambda",
    ),
    "script": _project("script", "serve.py", "check_serve.py", serve="python serve.py"),
}
"""By the name that is typed."""


def write(files: Mapping[str, bytes], directory: Path, *, replace: bool) -> None:
    """Write files into a folder, which is made if need be.

    Args:
        files: What each holds, by its name.
        directory: Where to.
        replace: Whether files of these names may be there already.

    Raises:
        ConfigurationError: Some are there and may not be replaced, in which case nothing was written; or one could not
            be written, in which case the message names those that were.
    """
    # Also a link that leads nowhere is there.
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
            _write(directory / name, content, replace=replace)
            written.append(name)
    except OSError as error:
        before = f"Written before that: {', '.join(written)}." if written else "Nothing was written."
        raise ConfigurationError(f"Cannot write {name}: {error.strerror or type(error).__name__}. {before}") from None


def _write(path: Path, content: bytes, *, replace: bool) -> None:
    # What is replaced stays whole until the new file is, and is left alone where a link leads.
    target = path.with_name(f".{path.name}.{os.getpid()}.part") if replace else path
    try:
        with target.open("xb") as file:
            file.write(content)
        if replace:
            target.replace(path)
    except FileExistsError:  # it has come meanwhile, and is not ours
        raise
    except BaseException:
        target.unlink(missing_ok=True)
        raise
