"""How the stand-in for Optimove reads requests and writes answers."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Any, Final, TypeGuard
from urllib.parse import parse_qsl, unquote

from optimove_conditional_execution.messages import Request, Response

TIMESTAMP: Final = "%Y-%m-%d %H:%M:%S"

_MAX_DIGITS: Final = 18


def parameter(pattern: str, path: str, *, any_case: bool = False) -> str | None:
    """Return the parameter of a path, "" for a pattern that has none, None when the path does not fit."""
    expression = re.sub(r"\\\{\w+\\\}", "([^/]+)", re.escape(pattern))
    found = re.fullmatch(expression, path, re.IGNORECASE if any_case else 0)
    if found is None:
        return None
    return unquote(found.group(1)) if found.groups() else ""


def decoded(request: Request) -> dict[str, Any]:
    """Return the JSON object of a body; an empty one for anything else."""
    try:
        decoded: object = json.loads(request.body)
    except (ValueError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}


def query_parameters(request: Request) -> dict[str, str]:
    """Return the parameters of a query, their names in lower case; of one that comes twice the last."""
    return {name.lower(): value for name, value in parse_qsl(request.query, keep_blank_values=True)}


def number(text: str | None) -> int | None:
    """Return a whole number of 0 or more; None where nothing is given.

    Raises:
        ValueError: It is no number.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > _MAX_DIGITS:
        raise ValueError
    return int(text)


def is_number(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, and no boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_timestamp(value: object) -> TypeGuard[str]:
    """Whether a value is a time stamp as Optimove writes them."""
    try:
        return isinstance(value, str) and bool(dt.datetime.strptime(value, TIMESTAMP))
    except ValueError:
        return False


def json_response(status: int, value: object) -> Response:
    """Return an answer with a JSON body."""
    body = json.dumps(value).encode()
    return Response(status, {"content-type": "application/json", "content-length": str(len(body))}, body)


def error_response(status: int, error: str, message: str) -> Response:
    """Return an error in the shape of Optimove's documented 429."""
    return json_response(status, {"status": status, "error": error, "message": message})
