"""What a rehearsal sends: notifications, planned or recorded, of which some have a fault, and recorded rows."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, final, get_args

from ..errors import ConfigurationError, PayloadError
from ..models import WebhookNotification
from ..models.notification import read_notification
from ..validation import number_of

FaultKind = Literal["duplicate", "late", "forged", "oversize"]
"""Posted again; arrives after its deadline; not signed by Optimove; longer than a body may be."""

Forgery = Literal["a wrong signature", "no signature", "a body changed after it was signed"]

Expectation = Literal["approved", "denied", "abstained", "not approved"]
"""`abstained`: no answer is sent to Optimove; `not approved`: denied or abstained."""

FAULT_KINDS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)

_FORGERIES: Final[tuple[Forgery, ...]] = get_args(Forgery)
# Most forgers sign; the rest is rarer.
_FORGERY_WEIGHTS: Final = (2, 1, 1)
_FIRST_NAMES: Final = ("Dana", "Noa", "Luca", "Maya", "Omar", "Ines", "Tom", "Lena")
_COUNTRIES: Final = ("MT", "SE", "ES", "GB", "DK", "CA")


@final
@dataclass(frozen=True, slots=True)
class PlannedNotification:
    """A notification that a rehearsal posts.

    Attributes:
        user_id: The customer.
        personalization: The attributes that it carries.
        fault: What is wrong with it; None for nothing.
        forgery: How a forged one is made; None for a wrong signature.
        at_once: Whether a duplicate is posted concurrently with the first, instead of after its answer.
        expected: The right decision if it has no fault, or is a duplicate; None accepts every decision.
        scenario: A name for tables and findings, instead of the fault's.
        payload: What is posted, apart from its time stamps and `request_uid`; None for a usual notification.
        as_is: Whether these stay as they are in the payload, too.
    """

    user_id: str = field(repr=False)
    personalization: Mapping[str, str] = field(default_factory=dict, repr=False)
    fault: FaultKind | None = None
    forgery: Forgery | None = None
    at_once: bool = False
    expected: Expectation | None = None
    scenario: str = ""
    payload: Mapping[str, Any] | None = field(default=None, repr=False)
    as_is: bool = False

    @property
    def name(self) -> str:
        """The customer, and the scenario or fault."""
        kind = self.scenario or self.fault
        return f"{self.user_id} ({kind})" if kind else self.user_id

    @property
    def must_be_decided(self) -> bool:
        """Whether a gate must accept it: it has no fault, or comes twice."""
        return self.fault in (None, "duplicate")


def plan(
    count: int, *, faults: Mapping[FaultKind, float], users: Sequence[str], seed: int
) -> list[PlannedNotification]:
    """Return the notifications of a rehearsal, in the order in which they go out.

    Args:
        count: How many customers are asked about.
        faults: How many of a hundred have which fault; at least one of each kind that is named.
        users: Ids of customers, taken in turn; none makes up new ones.
        seed: The same one gives the same customers and faults.

    Raises:
        ConfigurationError: There are more faults than notifications, or a late one has no other to be compared with.
    """
    chance = random.Random(seed)  # noqa: S311 - picks an order, protects nothing
    numbers: dict[FaultKind, int] = {
        kind: max(1, round(count * faults[kind] / 100)) for kind in FAULT_KINDS if kind in faults
    }
    faulty = sum(numbers.values())
    if faulty > count:
        of = number_of(count, "notification")
        raise ConfigurationError(f"{faulty} of {of} would have a fault: raise --count, or lower some.")
    order: list[FaultKind | None] = [None] * (count - faulty)
    for kind, number in numbers.items():
        order.extend(kind for _ in range(number))
    chance.shuffle(order)
    if "late" in order:
        # A late one is recognised by comparison with others that are not.
        first = next((index for index, kind in enumerate(order) if kind in (None, "duplicate")), None)
        if first is None:
            raise ConfigurationError("A late notification needs one that is in time before it: lower some --fault.")
        order[0], order[first] = order[first], order[0]
    ids = itertools.cycle(users) if users else _new_ids(count, chance)
    return [_planned(user_id, fault, chance) for user_id, fault in zip(ids, order, strict=False)]


def _new_ids(count: int, chance: random.Random) -> Iterator[str]:
    return (f"C{number}" for number in chance.sample(range(100_000, 100_000 + 10 * count), count))


def _planned(user_id: str, fault: FaultKind | None, chance: random.Random) -> PlannedNotification:
    # Drawn for each, so that the customers stay the same when the faults change.
    personalization = _attributes(chance)
    (forgery,) = chance.choices(_FORGERIES, _FORGERY_WEIGHTS)
    at_once = chance.random() < 0.5
    return PlannedNotification(
        user_id, personalization, fault, forgery if fault == "forged" else None, at_once and fault == "duplicate"
    )


def _attributes(chance: random.Random) -> dict[str, str]:
    return {"first_name": chance.choice(_FIRST_NAMES), "country": chance.choice(_COUNTRIES)}


# The scenarios of the demo: the sample service answers by how the ids of its customers begin.
_SCENARIOS: Final = (
    PlannedNotification("eligible", expected="approved", scenario="eligible"),
    PlannedNotification("excluded", expected="denied", scenario="self-excluded"),
    # The customer is one who would be approved: if the forgery is not noticed, that shows.
    PlannedNotification("eligible", fault="forged", scenario="forged"),
    PlannedNotification("eligible", fault="duplicate", expected="approved", scenario="duplicate"),
    PlannedNotification("failing", expected="not approved", scenario="failing backend"),
    PlannedNotification("slow", expected="not approved", scenario="slow backend"),
    PlannedNotification("undecided", expected="not approved", scenario="undecided"),
)
_WEIGHTS: Final = (60, 20, 3, 0, 5, 5, 7)
"""How often each is played once all have been."""

ALL_SCENARIOS_COUNT: Final = len(_SCENARIOS) + 1
"""Posts from which on every scenario of the demo is played: a duplicate takes two."""


def demo_plan(posts: int, *, seed: int) -> list[PlannedNotification]:
    """Return the notifications of the demo, for customers of the sample service, in the order in which they go out.

    Args:
        posts: How many are posted; a duplicate takes two. With `ALL_SCENARIOS_COUNT` or more each scenario is played.
        seed: The same one gives the same demo.
    """
    chance = random.Random(seed)  # noqa: S311 - picks an order, protects nothing
    scenarios, left = [], posts
    for scenario in _SCENARIOS:
        needed = 2 if scenario.fault == "duplicate" else 1
        if needed <= left:
            left -= needed
            scenarios.append(scenario)
    scenarios += chance.choices(_SCENARIOS, _WEIGHTS, k=left)
    chance.shuffle(scenarios)
    numbers = chance.sample(range(1_000, 1_000 + 10 * len(scenarios)), len(scenarios))
    return [
        replace(scenario, user_id=f"{scenario.user_id}-{number}", personalization=_attributes(chance))
        for scenario, number in zip(scenarios, numbers, strict=True)
    ]


# ---- recorded or hand-made payloads and rows: JSON, JSON lines or CSV

Recorded = Path | Sequence[Mapping[str, Any]]
"""JSON objects, or a file of them: JSON (an object or an array), JSON lines, or CSV if it is called so."""

_ATTRIBUTES: Final = "CustomerAttributes"
_COLUMNS: Final = ("CustomerID", "ActionID", "ChannelID", "TemplateID", "PromoCode", _ATTRIBUTES)
_NUMBERS: Final = ("ActionID", "ChannelID", "TemplateID")


def read_payloads(given: Recorded, *, stamps: Mapping[str, Any]) -> list[tuple[WebhookNotification, Mapping[str, Any]]]:
    """Return notifications, parsed and as they were given.

    Args:
        given: The notifications.
        stamps: Fields that will replace those of each.

    Raises:
        ConfigurationError: The file cannot be read, or one of them cannot be understood. The message quotes none.
    """
    payloads = []
    for number, payload in enumerate(_objects(given, "notification"), start=1):
        try:
            payloads.append((read_notification(json.dumps({**payload, **stamps}).encode()), payload))
        except PayloadError as error:
            raise ConfigurationError(f"Notification {number}{_of(given)} cannot be understood: {error}") from None
    return payloads


def read_rows(given: Recorded) -> list[Mapping[str, Any]]:
    """Return rows of customers, in the shape of GetProcessedCampaignCustomers.

    Columns of a CSV file that such a row does not have are attributes: a service gets those that it asks for.

    Args:
        given: The rows.

    Raises:
        ConfigurationError: The file cannot be read, or a row has no CustomerID that is text or a whole number. The
            message quotes none.
    """
    rows = _objects(given, "row")
    for number, row in enumerate(rows, start=1):
        if not any(name.lower() == "customerid" and _is_id(value) for name, value in row.items()):
            raise ConfigurationError(f"Row {number}{_of(given)} has no CustomerID.")
    return rows


def _is_id(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""


def _objects(given: Recorded, what: str) -> list[Mapping[str, Any]]:
    objects: Iterable[Any] = _read(given) if isinstance(given, Path) else given
    checked = []
    for number, one in enumerate(objects, start=1):
        if not isinstance(one, Mapping):
            raise ConfigurationError(f"{what.capitalize()} {number}{_of(given)} is not a JSON object.")
        checked.append(one)
    if not checked:
        raise ConfigurationError(f"There is no {what}{_of(given) or ' given'}.")
    return checked


def _of(given: Recorded) -> str:
    return f" of {given}" if isinstance(given, Path) else ""


def _read(path: Path) -> Iterable[Any]:
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} cannot be read: it is not UTF-8 text.") from None
    if path.suffix.lower() == ".csv":
        return _csv(path, text)
    number = 0
    try:
        with contextlib.suppress(ValueError):
            whole = json.loads(text)
            return whole if isinstance(whole, list) else [whole]
        found = []
        # Not `splitlines`: a JSON string may hold U+2028 as it is.
        for number, line in enumerate(text.split("\n"), start=1):  # noqa: B007 - the error has the number
            if line.strip():
                found.append(json.loads(line))
    except RecursionError:
        raise ConfigurationError(f"{path} cannot be read: its JSON is nested too deeply.") from None
    except ValueError:
        raise ConfigurationError(f"{path} is neither JSON nor JSON lines: see line {number}.") from None
    return found


def _csv(path: Path, text: str) -> list[dict[str, Any]]:
    known = {name.lower(): name for name in _COLUMNS}
    rows = []
    try:
        reader = csv.DictReader(io.StringIO(text), strict=True)
        columns = [column.strip().lower() for column in reader.fieldnames or ()]
        if len(set(columns)) < len(columns):
            raise ConfigurationError(f"The first line of {path} names a column twice.")
        for number, cells in enumerate(reader, start=1):
            if None in cells:
                raise ConfigurationError(f"Row {number} of {path} has more cells than the first line has names.")
            row: dict[str, Any] = {}
            attributes: dict[str, str] = {}
            for column, value in cells.items():
                name = known.get(column.strip().lower())
                if name is None:
                    attributes[column.strip()] = value or ""
                elif value:
                    row[name] = int(value) if name in _NUMBERS and value.isdecimal() and len(value) < 19 else value
            rows.append({_ATTRIBUTES: attributes, **row} if attributes else row)
    except csv.Error as error:
        raise ConfigurationError(f"{path} is not CSV: {error}.") from None
    return rows
