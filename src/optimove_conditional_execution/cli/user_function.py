"""A function of the user's, by its name on the command line."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError


def user_function(given: str, what: str) -> Callable[..., Any]:
    """Import a function; its module is looked for in the current folder first.

    Args:
        given: `MODULE:FUNCTION`; the function may be an attribute of something, as in `gate:rules.handler`.
        what: What it is, for errors.

    Raises:
        ConfigurationError: There is no such function.
    """
    module, _, name = given.partition(":")
    if not module or not name:
        raise ConfigurationError(f"The {what} is given as MODULE:FUNCTION, such as gate:{what}.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"There is no module {error.name}, here or among what is installed.") from None
    except Exception as error:
        # It is the user's own code: show the message and the location.
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{where.filename}:{where.lineno}"
        raise ConfigurationError(
            f"The module {module} cannot be imported: {type(error).__name__}: {error} ({place})."
        ) from error
    try:
        found: object = attrgetter(name)(imported)
    except AttributeError:
        found = None
    if not callable(found):
        raise ConfigurationError(f"The module {module} has no function {name}.")
    return found
