"""The answer to a notification, as SendWebhookApproval sends it."""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, Strict
from pydantic_core import PydanticCustomError, PydanticSerializationError, to_json, to_jsonable_python

from ..errors import PayloadError
from .base import EchoedId, Milliseconds, WireModel
from .json_text import decoded, no_constant


def json_object(value: dict[str, Any], name: str = "additional_data") -> dict[str, Any]:
    """Return a copy with JSON types only: dates, decimals, UUIDs and models are converted.

    Args:
        value: The object.
        name: What it was passed as, for the error.

    Raises:
        PayloadError: A value has no JSON form (`NaN` and infinity have none), or contains itself.
    """
    if not value and type(value) is dict:
        return {}
    try:
        try:
            copy: object = json.loads(to_json(value, inf_nan_mode="constants"), parse_constant=no_constant)
        except (PydanticSerializationError, UnicodeEncodeError):
            # A lone surrogate, from a notification, is valid JSON as long as it is written as an escape.
            copy = decoded(json.dumps(value, default=to_jsonable_python, allow_nan=False))
    except (PydanticSerializationError, ValueError, RecursionError, TypeError) as error:
        raise PayloadError(
            f"{name} cannot be written as JSON ({type(error).__name__}): "
            "use dictionaries with string keys, lists, strings, finite numbers, booleans and None.",
            path=name,
        ) from None
    if not isinstance(copy, dict):
        raise PayloadError(f"{name} must be a dictionary.", path=name)
    return copy


def _checked(value: dict[str, Any]) -> dict[str, Any]:
    try:
        return json_object(value)
    except PayloadError as error:
        raise PydanticCustomError("no_json", "{reason}", {"reason": str(error)}) from None


class Approval(WireModel):
    """The answer to a notification: the body of SendWebhookApproval.

    Source: Optimove's Conditional Execution article's sample.

    Attributes:
        timestamp: When the answer was given, in milliseconds since 1970.
        request_uid: The `request_uid` of the notification; if it was a number, it is written as a number.
        approved: Whether the customer may get the campaign. Only a real `True` approves.
        additional_data: A JSON object for Optimove to keep; its use is not documented.
    """

    timestamp: Milliseconds
    request_uid: EchoedId
    approved: Annotated[bool, Strict()]
    additional_data: Annotated[dict[str, Any], AfterValidator(_checked)] = {}

    _repr_fields = ("request_uid", "approved")
