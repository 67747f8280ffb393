"""What became of a body that did not reach us as it was sent.

Who sees only "the signature is wrong" looks for another secret. The headers often tell that the body is at fault.
"""

from __future__ import annotations

from typing import Final

from ..messages import Request

LOST_IN_CHUNKS: Final = (
    "The body is empty: it was sent in chunks (Transfer-Encoding), and what stands before the receiver did not hand "
    "them on. Django under a WSGI server does that, and so do WSGI servers without wsgi.input_terminated. "
    "WSGIApp(receiver) for this route under gunicorn takes chunks, and so does ASGIApp under any server."
)

_LOST: Final = (
    "a middleware or the view has read it before, or it was lost on its way. Hand the raw bytes over before "
    "anything else reads them."
)
_CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress"})
_LONGEST_NUMBER: Final = 18


def is_lost_in_chunks(request: Request) -> bool:
    """Whether a body was announced in chunks, and nothing of it has come."""
    return not request.body and any(value.strip() for value in request.header_values("transfer-encoding"))


def body_fault(request: Request) -> str | None:
    """Return what the headers say is wrong with a body that does not fit its signature, or cannot be read.

    Returns:
        A sentence or two that quote nothing; None when the headers fit the body.
    """
    announced, came = _announced(request), len(request.body)
    if not came:
        if announced:
            return f"The body is empty, though {announced} bytes were announced (Content-Length): {_LOST}"
        return "The body is empty."
    if announced is not None and came < announced:
        return f"The body has only {came} of the {announced} bytes that were announced (Content-Length): {_LOST}"
    coding = _coding(request)
    if coding is not None:
        return (
            f"The request has a Content-Encoding ({coding}). The signature covers the bytes that Optimove signed: what "
            "packs or unpacks bodies on their way must leave this route alone."
        )
    if announced is not None and came > announced:
        return (
            f"The body has {came} bytes, but {announced} were announced (Content-Length): it was changed on its way, "
            "by something that unpacks or rewrites bodies."
        )
    return None


def _announced(request: Request) -> int | None:
    values = request.header_values("content-length")
    value = values[0].strip() if len(values) == 1 else ""
    return int(value) if value.isascii() and value.isdigit() and len(value) <= _LONGEST_NUMBER else None


def _coding(request: Request) -> str | None:
    value = ",".join(request.header_values("content-encoding")).strip().lower()
    if value in ("", "identity"):
        return None
    return value if value in _CODINGS else "an unusual one"
