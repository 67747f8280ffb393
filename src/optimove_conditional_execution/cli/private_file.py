"""Files that hold ids of customers: readable by their owner alone, and complete or not there; `reconcile`, `replay`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

from ..errors import ConfigurationError, OptimoveError


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
