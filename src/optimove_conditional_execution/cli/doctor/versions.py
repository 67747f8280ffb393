"""What is installed."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator
from typing import Final

from optimove_conditional_execution import __version__
from optimove_conditional_execution.cli.doctor.check import Check, Issue, judged
from optimove_conditional_execution.stores.sqlite_file import SQLITE_VERSION

_NEEDED: Final = ("httpx", "pydantic", "tenacity")
_OPTIONAL: Final = ("httpx2", "aiohttp", "opentelemetry-api")
_OLDEST_SQLITE: Final = (3, 24, 0)
"""`ON CONFLICT ... DO`, which the journal uses. WAL has been there since 3.7. Source: sqlite.org/changes.html."""

_SOUND_SQLITE: Final = (3, 51, 3)
"""Source: sqlite.org/wal.html#walresetbug."""

Version = tuple[int, ...]


def versions_check(sqlite: Version = SQLITE_VERSION) -> Check:
    """Name the versions that count.

    Args:
        sqlite: The version of SQLite.
    """
    named = [f"Python {platform.python_version()}", f"SDK {__version__}"]
    named += [f"{name} {_version(name) or 'missing'}" for name in _NEEDED]
    extras = [f"{name} {version}" for name in _OPTIONAL if (version := _version(name))]
    found = f"{', '.join(named)}; extras: {', '.join(extras) or 'none'}; SQLite {_dotted(sqlite)}"
    rare = (
        f", whose WAL mode has a rare fault that {_dotted(_SOUND_SQLITE)} mends; it concerns SqliteClaims and "
        "SqliteJournal in several processes"
        if sqlite < _SOUND_SQLITE
        else ""
    )
    return judged("versions", f"{found}{rare}.", _issues(sqlite))


def _issues(sqlite: Version) -> Iterator[Issue]:
    for name in _NEEDED:
        if _version(name) is None:
            yield Issue(
                "warning", f"{name} has no metadata here.", "Install the SDK with pip, not by copying its files."
            )
    if sqlite < _OLDEST_SQLITE:
        yield Issue(
            "warning",
            f"SQLite {_dotted(sqlite)} is too old for SqliteClaims and SqliteJournal.",
            f"Use a Python with SQLite {_dotted(_OLDEST_SQLITE)} or later, if you use those.",
        )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
