"""Validation of arguments, serialisation of request bodies, and parsing of response bodies."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from ..errors import ConfigurationError, PayloadError
from ..messages import Response
from ..models import json_text
from ..models.base import WireModel, number, payload_error
from ..models.json_text import BYTE_ORDER_MARK
from ..observers import SafeLogger

_LOGGER: Final = SafeLogger("client")

M = TypeVar("M", bound=WireModel)


def required(name: str, value: object) -> str:
    """Return `value` if it is text that is not blank; a `ConfigurationError` names the argument."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} must be a string that is not blank.")
    return value


def path_segment(name: str, value: object) -> str:
    """Return `value` if it is a valid path segment; a `ConfigurationError` names the argument."""
    # "" would address the whole collection, and "." or ".." another resource.
    text = required(name, value)
    if text in {".", ".."}:
        raise ConfigurationError(f"{name} must be an id, not a dot.")
    return text


def json_body(value: object) -> bytes:
    """Write a body."""
    return _written(value).encode()


_written: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class ReportedError(PayloadError):
    """A 2xx response whose body reports a failure.

    Attributes:
        status: The HTTP status in the body, from 300 to 599, or None.
    """

    def __init__(self, text: str, *, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


_CODES: Final = ("responsecode", "statuscode", "status")
_ERRORS: Final = ("error", "errors")
_NOES: Final = frozenset({"false", "0"})  # a bool, or a bool as text
_FAILURES: Final = frozenset({"error", "fail", "failed", "failure"})


def refuse_error(value: object) -> None:
    """Reject an object that reports a failure, whatever the case of its keys.

    Raises:
        ReportedError: It has a status outside of 2xx, an error, or a false success flag.
    """
    if not isinstance(value, dict):
        return
    said = {key.lower(): member for key, member in value.items()}
    codes = [number(said[key]) for key in _CODES if key in said]
    wrong = [code for code in codes if type(code) is int and not 200 <= code < 300]
    if wrong:
        status = next((code for code in wrong if 300 <= code < 600), None)
        raise ReportedError(f"its body says that the status is {wrong[0]}", status=status)
    failed = any(isinstance(code, str) and code.lower() in _FAILURES for code in codes)
    if failed or any(said.get(key) for key in _ERRORS) or str(said.get("success")).lower() in _NOES:
        raise ReportedError("its body says that the call has failed")


def nothing(response: Response) -> None:
    """Accept the forms of an empty result; an HTML page or a JSON string is not from the API.

    Raises:
        PayloadError: It is one of those, or an object that reports an error.
    """
    text = response.body.removeprefix(BYTE_ORDER_MARK).strip()
    if text in (b"", b"{}"):
        return
    if response.is_html or text.startswith(b'"'):
        raise PayloadError("the answer is a page or a message, not an acknowledgement")
    if text.startswith(b"{"):
        refuse_error(decoded(response))


def decoded(response: Response) -> object:
    """Return the parsed JSON of a response, None without a body, or raise `PayloadError`."""
    if not response.body.removeprefix(BYTE_ORDER_MARK).strip():
        return None
    try:
        return json_text.decoded(response.body)
    except (ValueError, RecursionError):
        raise PayloadError("the answer is not JSON") from None


def json_object(response: Response) -> dict[str, Any]:
    """Return the JSON object of a response, or raise `PayloadError`."""
    value = decoded(response)
    if not isinstance(value, dict):
        raise PayloadError("the answer is not a JSON object")
    return value


def model_of(model: type[M], value: Mapping[str, Any]) -> M:
    """Return the model of a JSON object, or raise `PayloadError`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise payload_error(model.__name__, error) from None


def one(model: type[M]) -> Callable[[Response], M]:
    """Return a parser of responses with one object."""

    def parse(response: Response) -> M:
        value = json_object(response)
        try:
            return model_of(model, value)
        except PayloadError:
            refuse_error(value)  # raises a better error, if the object reports one
            raise

    return parse


def many(model: type[M]) -> Callable[[Response], list[M]]:
    """Return a parser of responses with a list, an object that wraps one, `null` or no body.

    An invalid item is skipped with a warning. If all are invalid, it is a list of something else, and an error.
    """

    def parse(response: Response) -> list[M]:
        found = decoded(response)
        if isinstance(found, dict):
            refuse_error(found)
            lists = [value for value in found.values() if isinstance(value, list)]
            if len(lists) != 1:
                raise PayloadError("the answer is neither a list nor an object that wraps one")
            found = lists[0]
        if found is None:
            return []
        if not isinstance(found, list):
            raise PayloadError("the answer is not a list")
        read: list[M] = []
        unreadable: list[PayloadError] = []
        for value in found:
            try:
                read.append(model_of(model, value))
            except PayloadError as error:
                unreadable.append(error)
        if unreadable and not read:
            raise unreadable[0]
        if unreadable:
            _LOGGER.warning("%d of %d in a list are left out: %s", len(unreadable), len(found), unreadable[0])
        return read

    return parse
