"""How arguments are checked, bodies are written and answers are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from optimove_conditional_execution.errors import ConfigurationError, PayloadError
from optimove_conditional_execution.messages import Response
from optimove_conditional_execution.models.base import WireModel, payload_error

M = TypeVar("M", bound=WireModel)


def required(name: str, value: object) -> str:
    """Return text that is not blank, or raise `ConfigurationError` with the name."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} must be a string that is not blank.")
    return value


def path_segment(name: str, value: object) -> str:
    """Return an id that can stand in a path, or raise `ConfigurationError` with the name."""
    # "" would address the whole collection, and dots another one.
    text = required(name, value)
    if text in {".", ".."}:
        raise ConfigurationError(f"{name} must be an id, not a dot.")
    return text


def json_body(value: object) -> bytes:
    """Write a body."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def nothing(response: Response) -> None:
    """Accept what an API says when it has nothing to say; a page of HTML or a message in quotes is somebody else's."""
    if response.is_html or response.body.strip().startswith(b'"'):
        raise PayloadError("the answer is a page or a message, not an acknowledgement")


def decoded(response: Response) -> object:
    """Return the JSON of an answer, None when it has no body, or raise `PayloadError`."""
    if not response.body.strip():
        return None
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):
        raise PayloadError("the answer is not JSON") from None


def json_object(response: Response) -> dict[str, Any]:
    """Return the JSON object of an answer, or raise `PayloadError`."""
    value = decoded(response)
    if not isinstance(value, dict):
        raise PayloadError("the answer is not a JSON object")
    return value


def model_of(model: type[M], value: Mapping[str, Any]) -> M:
    """Return what was read as a model, or raise `PayloadError`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise payload_error(model.__name__, error) from None


def one(model: type[M]) -> Callable[[Response], M]:
    """Return a reader of answers that hold one object."""
    return lambda response: model_of(model, json_object(response))


def many(model: type[M]) -> Callable[[Response], list[M]]:
    """Return a reader of answers that hold a list, an object that wraps one, `null` or nothing."""

    def parse(response: Response) -> list[M]:
        found = decoded(response)
        if isinstance(found, dict):
            lists = [value for value in found.values() if isinstance(value, list)]
            if len(lists) != 1:
                raise PayloadError("the answer is neither a list nor an object that wraps one")
            found = lists[0]
        if found is None:
            return []
        if not isinstance(found, list):
            raise PayloadError("the answer is not a list")
        return [model_of(model, value) for value in found]

    return parse
