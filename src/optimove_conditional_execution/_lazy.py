"""Import a package's names when they are first asked for (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec


def attach(
    package: str, places: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]], dict[str, str]]:
    """Return the `__getattr__` and `__dir__` of a package, and the module of each name.

    Submodules are attributes too before they are imported. `dir` does not list those, since one can need an extra.

    Args:
        package: The package's `__name__`.
        places: The names, by the module that defines them, relative to the package, with a dot for its parent; the name
            of a module is the module.
    """
    modules = {name: module for module, names in places.items() for name in names}

    def getattr_(name: str) -> object:
        if name not in modules:
            if not name.startswith("_") and find_spec(f"{package}.{name}") is not None:
                return importlib.import_module(f".{name}", package)  # which sets the attribute
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f".{modules[name]}", package)
        value = module if name == modules[name] else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    def dir_() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return getattr_, dir_, modules
