"""Diagnosis of request bodies that were lost or changed in transit.

"The signature is wrong" alone sends people looking for another secret. The headers often show that the body was
changed.
"""

from __future__ import annotations

from typing import Final

from ..messages import Request

LOST_IN_CHUNKS: Final = (
    "The body is empty: it was sent in chunks (Transfer-Encoding), and what is in front of the receiver did not pass "
    "them on. Django under a WSGI server does that, and so do WSGI servers without wsgi.input_terminated. "
    "WSGIApp(receiver) for this route under gunicorn takes chunks, and so does ASGIApp under any server."
)

_LOST: Final = (
    "a middleware or the view has read it before, or it was lost in transit. Pass the raw bytes on before "
    "anything else reads them."
)
_CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress"})
_LONGEST_NUMBER: Final = 18


def is_lost_in_chunks(request: Request) -> bool:
    """Whether a body with chunked transfer encoding was announced, and the body is empty."""
    return not request.body and any(value.strip() for value in request.header_values("transfer-encoding"))


def body_fault(request: Request) -> str | None:
    """Return why, according to the headers, a body does not match its signature or cannot be parsed.

    Returns:
        One or two sentences, which quote nothing; None when the headers match the body.
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
            f"The request has a Content-Encoding ({coding}). The signature covers the bytes that Optimove signed: "
            "exclude this route from whatever compresses or decompresses bodies."
        )
    if announced is not None and came > announced:
        return (
            f"The body has {came} bytes, but {announced} were announced (Content-Length): it was changed in transit, "
            "by something that decompresses or rewrites bodies."
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
