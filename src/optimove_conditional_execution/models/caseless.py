"""Models whose keys Optimove writes in more than one way: `CampaignID`, `campaignID`, `campaign_id`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import BeforeValidator, Strict, model_validator

from optimove_conditional_execution.models.base import Lenient, WireModel


class CaselessModel(WireModel):
    """Reads its keys whatever their case; a key that it does not know is kept as it came."""

    _also: ClassVar[Mapping[str, str]] = {}
    """Further names of fields, in small letters."""

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        return known_keys(cls, given)


def known_keys(model: type[CaselessModel], given: Any) -> Any:
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
def field_names(model: type[CaselessModel]) -> dict[str, str]:
    """Return the field that each name means; names in small letters."""
    names = dict(model._also)  # pyright: ignore[reportPrivateUsage]  # models of this room
    for field, info in model.model_fields.items():
        names[field] = field
        names[(info.alias or field).lower()] = field
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

LenientNumber = Annotated[Lenient[Annotated[int, Strict()] | None], BeforeValidator(number)]
"""The same, but null and whatever else comes is kept."""
