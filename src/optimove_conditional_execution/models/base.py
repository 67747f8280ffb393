"""Base classes of payload models: frozen, unknown fields kept, no personal data in a repr, one kind of error.

Optimove's payloads are only partly documented. So a model is strict about the few fields that a decision needs and
lenient about the rest: a field marked `Lenient` keeps a value of an undocumented type unchanged, instead of failing the
whole message.

The modules of models do without `from __future__ import annotations`: pydantic would compile the text of each field's
annotation, which is a fifth of the import of a model.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    Strict,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticSerializationError, core_schema

from ..errors import PayloadError
from .json_text import decoded, is_ambiguous

T = TypeVar("T")


class WireModel(BaseModel):
    """Base class of every payload.

    Instances are frozen; unknown fields are kept (`model_extra`) and serialised again. A repr shows only the fields
    named in `_repr_fields`, because the others can hold personal data or secrets.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        populate_by_name=True,
        # pydantic's messages quote the input, which is personal data here.
        hide_input_in_errors=True,
        # Built at first use, so that importing the SDK stays fast.
        defer_build=True,
        # Values differ from customer to customer; only the names of fields are repeated.
        cache_strings="keys",
    )

    _repr_fields: ClassVar[tuple[str, ...]] = ()

    _refuses_repeated_keys: ClassVar[bool] = False
    """Whether `from_json` rejects a payload with a duplicate key; that needs a slower parser."""

    @classmethod
    def from_json(cls, body: bytes | str) -> Self:
        """Parse a payload from JSON text.

        A UTF-8 byte order mark is skipped. A lone surrogate, as in text that was cut inside an emoji, is kept where
        nothing depends on it; NaN and the infinities are not JSON.

        Args:
            body: The bytes as received.

        Raises:
            PayloadError: It is not JSON, not an object, or a field that is needed is missing or has the wrong type;
                `path` names the field. The error never quotes the payload.
        """
        if cls._refuses_repeated_keys:
            return cls._from_decoded(body)
        try:
            read = cls.model_validate_json(body)
        except ValidationError as error:
            if error.errors(include_url=False, include_context=False, include_input=False)[0]["type"] != "json_invalid":
                raise payload_error(cls.__name__, error) from None
            return cls._from_decoded(body)
        if holds_constant(body):
            return cls._from_decoded(body)
        return read

    @classmethod
    def _from_decoded(cls, body: bytes | str) -> Self:
        """Parse a payload with the slower parser, which accepts more and checks more."""
        try:
            value = decoded(body)
        except (ValueError, RecursionError):
            raise not_json(cls.__name__) from None
        cls._check_keys(value)
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise payload_error(cls.__name__, error) from None

    @classmethod
    def _check_keys(cls, value: object) -> None:
        """Reject a decoded payload with a duplicate key, where that matters.

        Raises:
            PayloadError: There is a duplicate key.
        """
        if cls._refuses_repeated_keys and is_ambiguous(value):
            raise PayloadError(f"{cls.__name__}: a key stands twice in the body.", path="")

    def model_dump_json(self, **options: Any) -> str:  # the options are pydantic's, and differ between its versions
        """Return the JSON text; a lone surrogate, which cannot be encoded, is written as an escape.

        Args:
            options: As in `pydantic.BaseModel.model_dump_json`.
        """
        try:
            return super().model_dump_json(**options)
        except PydanticSerializationError:
            indent = options.pop("indent", None)
            options.pop("ensure_ascii", None)
            return json.dumps(self.model_dump(mode="json", **options), indent=indent)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [(name, getattr(self, name)) for name in self._repr_fields]


class CaselessModel(WireModel):
    """A model with case-insensitive keys; an unknown key is kept unchanged."""

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        return known_keys(cls, given)


def known_keys(model: type[WireModel], given: Any) -> Any:
    """Return the values under the documented keys; the documented spelling takes precedence, then the first."""
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
    """Return the fields of a model by their names and aliases in lower case."""
    names: dict[str, str] = {}
    for field, info in model.model_fields.items():
        choices = info.validation_alias
        known = choices.choices if isinstance(choices, AliasChoices) else [info.alias or field]
        names |= {name.lower(): field for name in (field, *known) if isinstance(name, str)}
    return names


def payload_error(subject: str, error: ValidationError) -> PayloadError:
    """Translate pydantic's error into ours, which names the first invalid field and quotes no input."""
    # Context and input can hold the payload, so neither is requested.
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "json_invalid":
        return not_json(subject)
    reason = _REASONS.get(first["type"], "has a wrong type or value")
    return PayloadError(f"{subject}: {path or 'the body'} {reason}.", path=path)


def not_json(subject: str) -> PayloadError:
    """Return the error of a body that is not JSON."""
    return PayloadError(f"{subject}: the body is not JSON.", path="")


def holds_constant(body: bytes | str) -> bool:
    """Return whether a text may hold NaN or an infinity, which pydantic's parser accepts as numbers."""
    if isinstance(body, str):
        return "NaN" in body or "Infinity" in body
    # Searching for one letter takes a tenth of the time of searching for a word, and few texts have these two.
    return (body.find(b"N") >= 0 and b"NaN" in body) or (body.find(b"I") >= 0 and b"Infinity" in body)


_REASONS: Final = {
    "missing": "is missing",
    "model_type": "is not a JSON object",
    "model_attributes_type": "is not a JSON object",
    "string_type": "is not a string",
    "string_pattern_mismatch": "is empty",
    "string_too_long": "is too long for a name",
    "string_unicode": "holds a lone surrogate, so it is not valid text",
    "identifier": (
        "is not an id: text that is not blank, of at most 1,024 characters and without a lone surrogate, or a "
        "whole number"
    ),
    "milliseconds": "is not a whole number of milliseconds since 1970",
    "wall_time": "is not a date and time such as 2026-11-23 09:30:00",
    "zoned": "has a zone that is neither UTC nor an offset such as +02:00",
    "offset": "is not a UTC offset of less than a day, in seconds",
    "campaign": "is not the number of a campaign",
    "event_type": "is not 5, the type of a campaign that waits for clearance",
}


class Otherwise:
    """Validate the documented type first, and convert any other value; by default it is kept unchanged."""

    def __init__(self, convert: Callable[[object], object] | None = None, *, first: object = None) -> None:
        """Set the conversion of other values.

        Args:
            convert: Converts a value that is not of the documented type; None keeps it.
            first: A type to try instead of the documented one.
        """
        self._convert = convert
        self._first = first

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        documented = handler(source) if self._first is None else handler.generate_schema(self._first)
        if documented["type"] == "nullable":  # null is kept unchanged, too; this saves a check of other values
            documented = documented["schema"]
        kept = core_schema.any_schema()
        rest = kept if self._convert is None else core_schema.no_info_before_validator_function(self._convert, kept)
        return core_schema.union_schema([documented, rest], mode="left_to_right")


class _Unchecked:
    """Keep the value unchanged: for types that JSON distinguishes, so that there is nothing to convert."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.any_schema()


_MOST_DIGITS: Final = 18
_LARGEST_FLOAT: Final = 2.0**53
"""From here on floats cannot represent every whole number."""


def number(value: object) -> object:
    """Return an int for digits in a string and for a float such as 5.0, and anything else unchanged."""
    if isinstance(value, float) and abs(value) < _LARGEST_FLOAT and value.is_integer():
        return int(value)
    if isinstance(value, str):
        digits = value.strip()
        if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS:
            return int(digits)
    return value


class _Milliseconds:
    """A whole number from 1970 to 9999, as a number, as a float such as `1767225600123.0` or as digits; no boolean."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        number = core_schema.int_schema(strict=True, ge=0, le=LAST_MILLISECOND)
        digits = core_schema.chain_schema(
            [
                core_schema.str_schema(strict=True, pattern=r"^[0-9]{1,20}$"),
                core_schema.int_schema(ge=0, le=LAST_MILLISECOND),
            ]
        )
        integral = core_schema.chain_schema(
            [
                core_schema.float_schema(strict=True, ge=0, le=LAST_MILLISECOND, allow_inf_nan=False),
                core_schema.int_schema(),
            ]
        )
        return core_schema.union_schema(
            [number, digits, integral],
            mode="left_to_right",
            custom_error_type="milliseconds",
            custom_error_message="not a whole number of milliseconds since 1970",
        )


class NumberAsText(str):
    """A whole number as decimal text, which is serialised as a number again."""

    __slots__ = ()


def _decimal(number: int) -> str:
    try:
        text = str(number)
    except ValueError:  # thousands of digits
        text = ""
    if not 0 < len(text) <= MAX_NAME:
        raise ValueError("too long for an id")
    return text


class _Id:
    """An id: text, or a whole number, which becomes its decimal text."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _id_schema(_decimal)


class _EchoedId:
    """An id that is sent back in the type in which it was received."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        def as_text(number: int) -> NumberAsText:
            return NumberAsText(_decimal(number))

        kept = core_schema.is_instance_schema(NumberAsText)
        return core_schema.json_or_python_schema(
            _id_schema(as_text),
            _id_schema(as_text, kept),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value: int(value) if isinstance(value, NumberAsText) else value, when_used="json"
            ),
        )


def _id_schema(as_text: Callable[[int], str], *first: CoreSchema) -> core_schema.UnionSchema:
    name = core_schema.str_schema(strict=True, pattern=r"\S", max_length=MAX_NAME)
    number = core_schema.no_info_after_validator_function(as_text, core_schema.int_schema(strict=True))
    return core_schema.union_schema(
        [*first, name, number],
        mode="left_to_right",
        custom_error_type="identifier",
        custom_error_message="is not an id",
    )


LAST_MILLISECOND: Final = 253_402_300_799_999
MAX_NAME: Final = 1_024
"""Maximum number of characters of an identifier."""

Lenient = Annotated[T, Otherwise()]
Unchecked = Annotated[T, _Unchecked()]
EmptyIfNull = Annotated[tuple[T, ...], Otherwise(lambda value: () if value is None else value)]
"""A collection that is empty instead of null, so that it can be iterated over."""

Attributes = Annotated[dict[str, Any], Otherwise(lambda value: {} if value is None else value, first=dict[Any, Any])]
Number = Annotated[int, Strict(), BeforeValidator(number)]
"""A whole number: as an int, as a float such as 5.0, or as digits in a string; not a boolean."""

LenientNumber = Annotated[int | str | None, Otherwise(number, first=Annotated[int, Strict()])]
"""The same, but null and any other value is kept."""

Milliseconds = Annotated[int, _Milliseconds()]
Name = Annotated[str, Field(strict=True, pattern=r"\S", max_length=MAX_NAME)]
Id = Annotated[str, _Id()]
EchoedId = Annotated[str, _EchoedId()]
Identifier = int | str
"""Optimove's ids are numbers in one place and strings in another; they are kept unchanged."""
