"""Models whose keys Optimove writes in more than one way: `CampaignID`, `campaignID`, `campaign_id`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AliasChoices, BeforeValidator, Strict, model_validator

from optimove_conditional_execution.models.base import Otherwise, WireModel


class CaselessModel(WireModel):
    """Reads its keys whatever their case; a key that it does not know is kept as it came."""

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        return known_keys(cls, given)


def known_keys(model: type[WireModel], given: Any) -> Any:
    """Return what a model is made of under the documented keys; the documented spelling wins, then the first."""
    if not isinstance(given, Mapping):
        return given
    names = field_names(model)
    found: dict[str, str] = {}  # field -> its key
    for key in given:
        field = names.get(key.lower()) if isinstance(key, str) else None
        if field is not None and (field not in found or key == model.model_fields[field].alias):
            found[field] = key
    wire = {key: model.model_fields[field].alias or field for field, key in found.items()}
    return {wire.get(key, key): value for key, value in given.items()}


@functools.lru_cache(maxsize=16)
def field_names(model: type[WireModel]) -> dict[str, str]:
    """Return the field that each name means; names in small letters."""
    names: dict[str, str] = {}
    for field, info in model.model_fields.items():
        choices = info.validation_alias
        known = choices.choices if isinstance(choices, AliasChoices) else [info.alias or field]
        names |= {name.lower(): field for name in (field, *known) if isinstance(name, str)}
    return names


_MOST_DIGITS: Final = 18
_LARGEST_FLOAT: Final = 2.0**53
"""From here on floats leave whole numbers out."""


def number(value: object) -> object:
    """Return a whole number for digits in a string and for a float such as 5.0, and anything else as it came."""
    if isinstance(value, float) and abs(value) < _LARGEST_FLOAT and value.is_integer():
        return int(value)
    if isinstance(value, str):
        digits = value.strip()
        if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS:
            return int(digits)
    return value


Number = Annotated[int, Strict(), BeforeValidator(number)]
"""A whole number: as one, as a float such as 5.0, or as digits in a string; no boolean."""

LenientNumber = Annotated[int | str | None, Otherwise(number, first=Annotated[int, Strict()])]
"""The same, but null and whatever else comes is kept."""
