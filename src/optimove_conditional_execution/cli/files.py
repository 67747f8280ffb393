"""Files that commands write: pages (`--report`) and lists of customers, complete or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TextIO, cast

import click

from ..errors import ConfigurationError, OptimoveError
from .charts import Section, page

_SUFFIXES: Final = (".html", ".htm")


def write_page(path: Path, *, title: str, sections: Sequence[Section], made: datetime | None = None) -> None:
    """Write a report as one HTML page. A reader sees the old file or the new one, never a part.

        section = Section(title="Triggered campaign", ok=True, verdict="Nothing lost.", facts=[("sent", "40")],
                          charts=[Histogram(latencies_ms, deadline_ms=5_000)])
        write_page(report, title="A rehearsal", sections=[section])

    Args:
        path: From `report_option`.
        title: The page's heading.
        sections: Its contents; all text is escaped.
        made: When; unset, now.

    Raises:
        ConfigurationError: It cannot be written (any more).
    """
    text = page(title, sections, made=datetime.now(UTC) if made is None else made)
    try:
        # It names customers: the permissions of an older page are kept.
        with click.open_file(path, "w", encoding="utf-8", atomic=True) as file:
            file.write(text)
    except OSError as error:
        raise ConfigurationError(f"The report {path} could not be written: {error.strerror}.") from None


def _checked(_: click.Context, __: click.Parameter, path: Path | None) -> Path | None:
    """Return a path with its links followed, if a page can be written there.

    Raises:
        BadParameter: It does not name an HTML file, or nothing can be written there.
    """
    if path is None:
        return None
    try:
        real = path.resolve()
        if path.is_dir():
            complaint = f"{path} is a folder: name a file in it, such as {path / 'report.html'}."
        elif path.suffix.lower() not in _SUFFIXES:
            complaint = f"{path} must end in .html: so that no other file is overwritten by mistake."
        elif real.exists() and not real.is_file():
            complaint = f"{path} is not a regular file."
        elif not real.parent.is_dir():
            complaint = f"There is no folder {path.parent}: make it first."
        else:
            # Permissions are known only by trying. A write-protected page is kept.
            if real.exists():
                real.open("r+b").close()
            tempfile.TemporaryFile(dir=real.parent).close()
            return real
    except OSError as error:
        complaint = f"{path} cannot be written: {error.strerror or type(error).__name__}."
    raise click.BadParameter(complaint)


@contextmanager
def private_file(path: Path) -> Iterator[TextIO]:
    """Write a file that its owner alone can read; it replaces an older one when it is complete.

    Args:
        path: The file.

    Raises:
        ConfigurationError: It cannot be written.
    """
    real = path.resolve()
    made: Path | None = None
    try:
        # An id may have a lone surrogate.
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="backslashreplace", newline="", dir=real.parent, delete=False
        ) as file:
            made = Path(file.name)
            yield cast("TextIO", file)
        made.replace(real)
    except OptimoveError:  # some of them are OSErrors, too
        raise
    except OSError as error:
        raise ConfigurationError(f"The file {path} cannot be written: {error.strerror}.") from None
    finally:
        if made is not None:
            made.unlink(missing_ok=True)


report_option: Final = click.option(
    "--report",
    type=click.Path(path_type=Path),
    callback=_checked,
    metavar="FILE.html",
    help="Write a page with the numbers and charts, too.",
)
"""`--report FILE.html`: the command gets `report: Path | None`; an unusable path is status 2."""
