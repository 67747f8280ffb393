"""What a rehearsal of a triggered campaign posts: which customers, and which notifications have a fault."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, final, get_args

import click

from optimove_conditional_execution.cli.scenarios import attributes
from optimove_conditional_execution.errors import ConfigurationError

FaultKind = Literal["duplicate", "late", "forged", "oversize"]
"""Posted again; arrives after its deadline; not signed by Optimove; longer than a body may be."""

Forgery = Literal["a wrong signature", "no signature", "a body changed after it was signed"]

DEFAULT_PERCENT: Final = 10.0

_KINDS: Final[dict[str, FaultKind]] = {kind: kind for kind in get_args(FaultKind)}
_FORGERIES: Final[tuple[Forgery, ...]] = get_args(Forgery)
# Most forgers sign; the rest is rarer.
_FORGERY_WEIGHTS: Final = (2, 1, 1)


def fault_shares(_: click.Context, __: click.Parameter, given: Sequence[str]) -> dict[FaultKind, float]:
    """Return how many of a hundred notifications have which fault, from `KIND` or `KIND=PERCENT`.

    Raises:
        BadParameter: One is neither.
    """
    return dict(_share(one) for one in given)


def _share(given: str) -> tuple[FaultKind, float]:
    word, is_equal, number = given.partition("=")
    try:
        kind = _KINDS[word]
    except KeyError:
        raise click.BadParameter(f"{word!r} is none of {', '.join(_KINDS)}.") from None
    try:
        percent = float(number.removesuffix("%")) if is_equal else DEFAULT_PERCENT
    except ValueError:
        percent = 0.0
    if not 0 < percent <= 100:
        raise click.BadParameter(f"{number!r} is no percentage: {kind}=20 means 20 of 100.")
    return kind, percent


def complete_fault(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the kinds that a shell may offer."""
    return [kind for kind in _KINDS if kind.startswith(incomplete)]


@final
@dataclass(frozen=True, slots=True)
class Planned:
    """One notification that is to be posted.

    Attributes:
        user_id: The customer.
        personalization: The attributes that it carries.
        fault: What is wrong with it; None for nothing.
        forgery: How a forged one is made.
        at_once: Whether a duplicate is posted together with the first, instead of after its answer.
    """

    user_id: str
    personalization: Mapping[str, str]
    fault: FaultKind | None = None
    forgery: Forgery | None = None
    at_once: bool = False


def plan(count: int, *, faults: Mapping[FaultKind, float], users: Sequence[str], seed: int) -> list[Planned]:
    """Return the notifications of a rehearsal, in the order in which they go out.

    Args:
        count: How many customers are asked about.
        faults: How many of a hundred have which fault; at least one of each kind that is named.
        users: Ids of customers, taken in turn; none makes up new ones.
        seed: The same one gives the same customers and faults.

    Raises:
        ConfigurationError: There are more faults than notifications, or a late one would have no neighbour.
    """
    chance = random.Random(seed)  # noqa: S311 - picks an order, protects nothing
    numbers: dict[FaultKind, int] = {
        kind: max(1, round(count * faults[kind] / 100)) for kind in _KINDS.values() if kind in faults
    }
    faulty = sum(numbers.values())
    if faulty > count:
        raise ConfigurationError(f"{faulty} of {count} notifications would have a fault: raise --count, or lower some.")
    order: list[FaultKind | None] = [None] * (count - faulty)
    for kind, number in numbers.items():
        order.extend(kind for _ in range(number))
    chance.shuffle(order)
    if "late" in order:
        # Whether one is late shows beside others that were not.
        first = next((index for index, kind in enumerate(order) if kind in (None, "duplicate")), None)
        if first is None:
            raise ConfigurationError("A late notification needs one that is in time before it: lower some --fault.")
        order[0], order[first] = order[first], order[0]
    ids = itertools.cycle(users) if users else _made_up(count, chance)
    return [_planned(user_id, fault, chance) for user_id, fault in zip(ids, order, strict=False)]


def _made_up(count: int, chance: random.Random) -> Iterator[str]:
    return (f"C{number}" for number in chance.sample(range(100_000, 100_000 + 10 * count), count))


def _planned(user_id: str, fault: FaultKind | None, chance: random.Random) -> Planned:
    # Drawn for each, so that the customers stay the same when the faults change.
    personalization = attributes(chance)
    (forgery,) = chance.choices(_FORGERIES, _FORGERY_WEIGHTS)
    at_once = chance.random() < 0.5
    return Planned(
        user_id,
        personalization,
        fault,
        forgery if fault == "forged" else None,
        at_once and fault == "duplicate",
    )
