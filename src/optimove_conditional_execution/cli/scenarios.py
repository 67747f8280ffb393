"""What the demo plays: kinds of customers and deliveries, and what must become of each."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, final


@final
@dataclass(frozen=True, slots=True)
class Scenario:
    """A kind of notification.

    Attributes:
        name: For the table.
        customer: How the customer's id begins; the sample service answers by it.
        expected: What Optimove must hear; None when it must hear nothing.
        copies: How often the same notification is posted.
        forged: Whether it is signed with a wrong secret.
    """

    name: str
    customer: str
    expected: Literal["approved", "denied"] | None
    copies: int = 1
    forged: bool = False


ELIGIBLE: Final = Scenario("eligible", "eligible", "approved")
SELF_EXCLUDED: Final = Scenario("self-excluded", "excluded", "denied")
SLOW: Final = Scenario("slow backend", "slow", None)
FAILING: Final = Scenario("failing backend", "failing", None)
UNDECIDED: Final = Scenario("undecided", "undecided", None)
# The customer is one who would be approved: if the forgery is not noticed, that shows.
FORGED: Final = Scenario("forged", "eligible", None, forged=True)
DUPLICATE: Final = Scenario("duplicate", "eligible", "approved", copies=2)

_ONE_OF_EACH: Final = (ELIGIBLE, SELF_EXCLUDED, FORGED, DUPLICATE, FAILING, SLOW, UNDECIDED)
_FURTHER: Final = (ELIGIBLE, SELF_EXCLUDED, FORGED, FAILING, SLOW, UNDECIDED)
_WEIGHTS: Final = (60, 20, 3, 5, 5, 7)

ALL_SCENARIOS_COUNT: Final = sum(scenario.copies for scenario in _ONE_OF_EACH)
"""Posts from which on every scenario is played."""

_FIRST_NAMES: Final = ("Dana", "Noa", "Luca", "Maya", "Omar", "Ines", "Tom", "Lena")
_COUNTRIES: Final = ("MT", "SE", "ES", "GB", "DK", "CA")


@final
@dataclass(frozen=True, slots=True)
class Part:
    """One customer of the demo.

    Attributes:
        scenario: What kind.
        user_id: The customer's id.
        personalization: The attributes that the notification carries.
    """

    scenario: Scenario
    user_id: str
    personalization: dict[str, str]


def cast(count: int, *, seed: int) -> list[Part]:
    """Return the customers of a demo, in the order in which their campaigns fire.

    Args:
        count: Notifications to post; a duplicate takes two of them. With 8 or more each scenario is played.
        seed: The same one gives the same demo.
    """
    chance = random.Random(seed)  # noqa: S311 - picks an order, protects nothing
    scenarios = list(_scenarios(count, chance))
    chance.shuffle(scenarios)
    numbers = chance.sample(range(1_000, 1_000 + 10 * len(scenarios)), len(scenarios))
    return [
        Part(
            scenario,
            f"{scenario.customer}-{number}",
            attributes(chance),
        )
        for scenario, number in zip(scenarios, numbers, strict=True)
    ]


def attributes(chance: random.Random) -> dict[str, str]:
    """Return attributes that a customer could have.

    Args:
        chance: Where they come from.
    """
    return {"first_name": chance.choice(_FIRST_NAMES), "country": chance.choice(_COUNTRIES)}


def _scenarios(count: int, chance: random.Random) -> Iterator[Scenario]:
    left = count
    for scenario in _ONE_OF_EACH:
        if scenario.copies <= left:
            left -= scenario.copies
            yield scenario
    yield from chance.choices(_FURTHER, _WEIGHTS, k=left)
