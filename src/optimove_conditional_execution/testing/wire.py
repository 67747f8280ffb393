"""How the stand-in for Optimove reads requests and writes answers."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote

from optimove_conditional_execution.messages import Request, Response


def parameter(pattern: str, path: str) -> str | None:
    """Return the parameter of a path, "" for a pattern that has none, None when the path does not fit."""
    expression = re.sub(r"\\\{\w+\\\}", "([^/]+)", re.escape(pattern))
    found = re.fullmatch(expression, path)
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


def json_response(status: int, value: object) -> Response:
    """Return an answer with a JSON body."""
    body = json.dumps(value).encode()
    return Response(status, {"content-type": "application/json", "content-length": str(len(body))}, body)


def error_response(status: int, error: str, message: str) -> Response:
    """Return an error in the shape of Optimove's documented 429."""
    return json_response(status, {"status": status, "error": error, "message": message})
