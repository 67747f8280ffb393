"""What an alternative costs to have: packages, bytes, import time; and what it brings along."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Final, NamedTuple

from packaging.requirements import Requirement

from benchmarks.comparison.words import Table, word

ROUNDS: Final = 5


class Package(NamedTuple):
    """A distribution, what its users import, and its top-level package."""

    distribution: str
    imported: str
    package: str


PACKAGES: Final[Mapping[str, Package]] = {
    "this SDK": Package(
        "optimove-conditional-execution", "optimove_conditional_execution", "optimove_conditional_execution"
    ),
    "httpx alone": Package("httpx", "httpx", "httpx"),
    "optimove 2.0.0": Package("optimove", "optimove.client", "optimove"),
    "standardwebhooks": Package("standardwebhooks", "standardwebhooks", "standardwebhooks"),
    "svix": Package("svix", "svix.webhooks", "svix"),
    "dlt": Package("dlt", "dlt.sources.helpers.rest_client", "dlt"),
}


def closure(name: str) -> set[str]:
    """Return a distribution and all that it needs, without extras, as they are installed here."""
    needed: set[str] = set()
    left = [name]
    while left:
        now = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if now in needed:
            continue
        needed.add(now)
        for text in distribution(now).requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                left.append(requirement.name)
    return needed


def count(package: Package) -> str:
    return str(len(closure(package.distribution)))


def typed(package: Package) -> bool:
    found = importlib.util.find_spec(package.package)
    return found is not None and any(
        (Path(place) / "py.typed").exists() for place in found.submodule_search_locations or ()
    )


def stand_in(package: Package) -> bool:
    return importlib.util.find_spec(f"{package.package}.testing") is not None


def importing(statements: list[str]) -> list[float]:
    """Return the seconds of each statement in a fresh interpreter, at its fastest; rounds alternate."""
    best = [float("inf")] * len(statements)
    for turn in range(ROUNDS + 1):  # the first one compiles
        for index, statement in enumerate(statements):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True)
            if turn:
                best[index] = min(best[index], time.perf_counter() - began)
    return best


PROBES: Final[Mapping[str, Callable[[Package], bool | str]]] = {
    "packages that are installed, itself included": count,
    "has types (`py.typed`)": typed,
    "brings a simulator for tests (a module `testing`)": stand_in,
}

IMPORT: Final = "import time, in times that of httpx"


def compare() -> Table:
    """Look at every package; all of them must be installed."""
    cells = {feature: [word(probe(package)) for package in PACKAGES.values()] for feature, probe in PROBES.items()}
    bare, *seconds = importing(["pass", *(f"import {package.imported}" for package in PACKAGES.values())])
    floor = seconds[list(PACKAGES).index("httpx alone")] - bare
    cells[IMPORT] = [f"{(each - bare) / floor:.1f}" for each in seconds]
    return Table("A package", list(PACKAGES), cells)
