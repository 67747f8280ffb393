"""The command `optimove-ce`.

This module imports nothing of the extra `cli`, so that it can report that the extra is missing.
"""

from __future__ import annotations

import io
import sys
from typing import Final

from ..installation import install_hint

_EXTRA: Final = frozenset({"click", "rich", "uvicorn"})


def main() -> None:
    """Run the command with the process's arguments, and end the process with its status.

    Raises:
        SystemExit: Always. Status 0: done; 1: a check failed; 2: a usage or configuration error.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # or an id that the encoding of a pipe lacks would be an error
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        from .app import program

        program(prog_name="optimove-ce")  # which imports the subcommand
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        print(f"optimove-ce needs {missing}: {install_hint('cli')}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:  # the imports take long enough to be interrupted
        raise SystemExit(130) from None
