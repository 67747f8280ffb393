"""What all payload models share: frozen, unknown fields kept, nothing personal in a repr, one kind of error.

Optimove's payloads are only partly documented. So a model is strict about the few fields that a decision needs and
lenient about the rest: a field marked `Lenient` keeps a value of an undocumented type as it came, instead of making the
whole message unreadable.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

from optimove_conditional_execution.errors import PayloadError

T = TypeVar("T")


class WireModel(BaseModel):
    """The base of every payload.

    Instances are frozen; fields that this SDK does not know are kept (`model_extra`) and written out again. A repr
    shows only the fields named in `_shown`, because the others can hold personal data or secrets.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        populate_by_name=True,
        # pydantic's messages quote the input, which is personal data here.
        hide_input_in_errors=True,
        # Built at first use: importing the SDK stays cheap for those who use a part of it.
        defer_build=True,
        # Values differ from customer to customer; only the names of fields come again and again.
        cache_strings="keys",
    )

    _shown: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_json(cls, body: bytes | str) -> Self:
        """Read a payload from its JSON text.

        Args:
            body: The bytes as received.

        Raises:
            PayloadError: It is not JSON, not an object, or a field that is needed is missing or has the wrong type;
                `path` names the field. The error never quotes the payload.
        """
        try:
            # What model_validate_json does, less the checks of its arguments.
            read: Self = cls.__pydantic_validator__.validate_json(body)
        except ValidationError as error:
            raise payload_error(cls.__name__, error) from None
        return read

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [(name, getattr(self, name)) for name in self._shown]


def payload_error(subject: str, error: ValidationError) -> PayloadError:
    """Turn pydantic's error into ours, which names the first field at fault and quotes no input."""
    # Context and input can hold the payload, so neither may be asked for.
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "json_invalid":
        return PayloadError(f"{subject}: the body is not JSON.", path="")
    reason = _REASONS.get(first["type"], "has a wrong type or value")
    return PayloadError(f"{subject}: {path or 'the body'} {reason}.", path=path)


_REASONS: Final = {
    "missing": "is missing",
    "model_type": "is not a JSON object",
    "model_attributes_type": "is not a JSON object",
    "string_type": "is not a string",
    "string_pattern_mismatch": "is empty",
    "string_too_long": "is too long for a name",
    "milliseconds": "is not a whole number of milliseconds since 1970",
    "wall_time": "is not a date and time such as 2026-11-23 09:30:00",
    "zoned": "has a zone, where Optimove writes none",
    "campaign": "is not the number of a campaign",
    "event_type": "is not 5, the type of a campaign that waits for clearance",
}


class _Lenient:
    """Read the documented type where it fits; keep anything else as it came."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        documented = handler(source)
        if documented["type"] == "nullable":  # null is kept as it came, too; one look less at what is not null
            documented = documented["schema"]
        return core_schema.union_schema([documented, core_schema.any_schema()], mode="left_to_right")


class _AsSent:
    """Keep the value as it came: for types that JSON already tells apart, so there is nothing to convert."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.any_schema()


class _Items:
    """A collection that is null reads as empty, so that it can be iterated over without asking first."""

    def __init__(self, empty: type[tuple[object, ...] | dict[str, object]]) -> None:
        self._empty = empty

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        empty = self._empty
        null = core_schema.no_info_after_validator_function(lambda _: empty(), core_schema.none_schema())
        return core_schema.union_schema([handler(source), null, core_schema.any_schema()], mode="left_to_right")


class _Milliseconds:
    """A whole number from 1970 to 9999, as a number or as digits; not a boolean."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        number = core_schema.int_schema(strict=True, ge=0, le=LAST_MILLISECOND)
        digits = core_schema.chain_schema(
            [
                core_schema.str_schema(strict=True, max_length=20),
                core_schema.int_schema(ge=0, le=LAST_MILLISECOND),
            ]
        )
        return core_schema.union_schema(
            [number, digits],
            mode="left_to_right",
            custom_error_type="milliseconds",
            custom_error_message="not a whole number of milliseconds since 1970",
        )


class _Name:
    """A string with something in it."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.str_schema(strict=True, pattern=r"\S", max_length=MAX_NAME)


class _Object:
    """A JSON object with whatever in it; JSON's own keys need no check."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.dict_schema()


LAST_MILLISECOND: Final = 253_402_300_799_999
MAX_NAME: Final = 1_024
"""Characters of an identifier; a longer one is no identifier."""

Lenient = Annotated[T, _Lenient()]
AsSent = Annotated[T, _AsSent()]
Items = Annotated[tuple[T, ...], _Items(tuple)]
Attributes = Annotated[dict[str, Any], _Object(), _Items(dict)]
Milliseconds = Annotated[int, _Milliseconds()]
Name = Annotated[str, _Name()]
Identifier = int | str
"""Optimove's ids are numbers in one place and strings in another; they are kept as they come."""
