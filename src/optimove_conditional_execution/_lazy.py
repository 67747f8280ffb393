"""Import a package's names when they are first asked for (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Mapping, Sequence


def attach(
    package: str, places: Mapping[str, Sequence[str]], submodules: Collection[str] = ()
) -> tuple[Callable[[str], object], Callable[[], list[str]], dict[str, str]]:
    """Return the `__getattr__` and `__dir__` of a package, and the module of each name.

    Args:
        package: The package's `__name__`.
        places: The names, by the module that defines them, relative to the package, with a dot for its parent; the name
            of a module is the module.
        submodules: Modules below the package that are attributes of it before they are imported. `dir` does not list
            those, since to import one can need an extra.
    """
    modules = {name: module for module, names in places.items() for name in names}

    def getattr_(name: str) -> object:
        if name in submodules:
            return importlib.import_module(f".{name}", package)  # which sets the attribute
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f".{modules[name]}", package)
        value = module if name == modules[name] else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    def dir_() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return getattr_, dir_, modules
