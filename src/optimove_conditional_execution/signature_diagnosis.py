"""Diagnosis of signatures that do not match: common mistakes, tried one by one. Pure; never quotes the secret."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, final

from .credentials import copied_wrong

Mistake = Literal[
    "missing-signature",
    "base64-signature",
    "truncated-signature",
    "other-algorithm",
    "malformed-signature",
    "reserialized-json",
    "trailing-newline",
    "line-endings",
    "byte-order-mark",
    "utf-16",
    "secret-white-space",
    "secret-byte-order-mark",
    "secret-invisible-character",
    "secret-quotation-marks",
    "secret-variable-name",
    "several-secrets",
    "secret-hex-encoded",
    "secret-base64-encoded",
    "wrong-secret-or-changed-body",
]

UTF_16: Final = (
    "The > of Windows PowerShell writes UTF-16: save the bytes unchanged, with curl.exe -o FILE or "
    "Invoke-WebRequest -OutFile FILE, or use PowerShell 7."
)
"""Advice for a file in UTF-16."""

_BOM: Final = b"\xef\xbb\xbf"
_DIGITS: Final = 64
_MIN_PREFIX: Final = 8
"""Hexadecimal digits; fewer could match by chance."""


@final
@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The probable cause of a signature mismatch.

    Attributes:
        mistake: A name for programs.
        explanation: A sentence for people. It holds neither the secret nor the signature nor the body.
        secret_index: Which secret it was found with; None when it does not depend on one.
    """

    mistake: Mistake
    explanation: str
    secret_index: int | None = None


def diagnose(body: bytes, *, signature: str, secrets: Sequence[bytes]) -> Diagnosis:
    """Return the common mistake that explains why a signature does not match.

    Each mistake is tried alone. The order matters only where a body shows two of them at once.

    Args:
        body: The bytes that were to be verified.
        signature: As it was given, for a body that `verify` has refused.
        secrets: The secrets that were tried.
    """
    text = signature.strip().strip("\"'").strip()
    text = text[7:] if text[:7].lower() == "sha256=" else text
    if not text:
        return Diagnosis("missing-signature", "The signature is empty.")
    for index, secret in enumerate(secrets):
        found = _of_signature(body, text, secret)
        if found is not None:
            return Diagnosis(*found, index)
        for mistake, explanation, other_body, other_secret in _variants(body, secret):
            is_other = (other_body, other_secret) != (body, secret)
            if is_other and other_secret and _is_same(hmac.digest(other_secret, other_body, "sha256"), text):
                return Diagnosis(mistake, explanation, index)
    if len(text) != _DIGITS or not set("0123456789abcdef").issuperset(text.lower()):
        expected = "it must be 64 hexadecimal digits, as they stand in the header optimove-signature-content."
        return Diagnosis("malformed-signature", f"The signature has {len(text)} characters; {expected}")
    if utf_16(body) is not None:
        return Diagnosis("utf-16", f"The file is in UTF-16, which Optimove never sends. {UTF_16}")
    return Diagnosis(
        "wrong-secret-or-changed-body",
        "Wrong secret or changed body: no common mistake fits. Compare the secret with the one that "
        "UpdateWebhookSettings was given last, and take the raw bytes of the request's body, before any parsing.",
    )


def remarks(signature: str) -> list[str]:
    """Return what is unusual about a signature that matches all the same.

    Args:
        signature: As it was given.
    """
    found = []
    text = signature.strip()
    if text != signature:
        found.append("There is white space around the signature; the SDK ignores it.")
    if text[:7].lower() == "sha256=":
        found.append('The signature begins with "sha256="; the SDK ignores it, Optimove does not send it.')
        text = text[7:]
    if text != text.lower():
        found.append("The signature is in upper case; the SDK accepts it, Optimove sends lower case.")
    return found


def utf_16(content: bytes) -> str | None:
    """Return the text of a file that is JSON in UTF-16, or has its byte order mark; None for any other.

    Args:
        content: What is in the file.
    """
    for starts, encoding in (
        ((b"\xff\xfe", b"\xfe\xff"), "utf-16"),
        ((b"{\x00", b"[\x00", b'"\x00'), "utf-16-le"),
        ((b"\x00{", b"\x00[", b'\x00"'), "utf-16-be"),
    ):
        if content.startswith(starts):
            return content.decode(encoding, "replace")
    return None


def _is_same(digest: bytes, text: str) -> bool:
    return hmac.compare_digest(digest.hex().encode(), text.lower().encode("utf-8", "replace"))


def _of_signature(body: bytes, text: str, secret: bytes) -> tuple[Mistake, str] | None:
    right = hmac.digest(secret, body, "sha256")
    if _is_same(right, text):
        return "malformed-signature", "The signature is right but for quotation marks or blanks around it."
    if _from_base64(text.encode("utf-8", "replace")) in (right, right.hex().encode()):
        explanation = "The signature is the right digest in base64; Optimove writes it as 64 hexadecimal digits."
        return "base64-signature", explanation
    if _MIN_PREFIX <= len(text) < _DIGITS and right.hex().startswith(text.lower()):
        explanation = f"The signature is the beginning of the right one: {len(text)} of 64 digits."
        return "truncated-signature", f"{explanation} It must be compared in whole."
    others = {
        f"HMAC-{name.upper()}": hmac.new(secret, body, name).digest() for name in ("sha1", "md5", "sha384", "sha512")
    }
    others |= {
        "plain SHA-256 of the body, without the secret": hashlib.sha256(body).digest(),
        "plain SHA-256 of secret and body": hashlib.sha256(secret + body).digest(),
        "plain SHA-256 of body and secret": hashlib.sha256(body + secret).digest(),
        "HMAC-SHA256 with body and secret exchanged": hmac.digest(body, secret, "sha256"),
    }
    for name, digest in others.items():
        if _is_same(digest, text):
            return "other-algorithm", f"The signature was made with {name}; Optimove signs with HMAC-SHA256."
    return None


def _from_base64(text: bytes) -> bytes | None:
    bare = text.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")  # also in its form for URLs
    try:
        return base64.b64decode(bare + b"=" * (-len(bare) % 4), validate=True)
    except binascii.Error:
        return None


def _variants(body: bytes, secret: bytes) -> Iterator[tuple[Mistake, str, bytes, bytes]]:
    """Yield mistakes, with the body and the secret that would have been signed with."""
    for mistake, explanation, other in _other_bodies(body):
        yield mistake, explanation, other, secret
    for mistake, explanation, other in _other_secrets(secret):
        yield mistake, explanation, body, other


def _other_bodies(body: bytes) -> Iterator[tuple[Mistake, str, bytes]]:
    surplus = "The body has a line break at its end that was not signed: an editor or `echo` adds it."
    lacking = "The body lacks the line break at its end that was signed: a shell or `strip()` takes it away."
    for ending in (b"\r\n", b"\n"):
        yield "trailing-newline", surplus, body.removesuffix(ending)
        yield "trailing-newline", lacking, body + ending
    if body.startswith(_BOM):
        yield "byte-order-mark", "The body begins with a UTF-8 byte order mark that was not signed.", body[len(_BOM) :]
    else:
        yield "byte-order-mark", "The body lacks the UTF-8 byte order mark that was signed.", _BOM + body
    if (text := utf_16(body)) is not None:
        explanation = f"The file is in UTF-16, and what was signed is the same text in UTF-8. {UTF_16}"
        for line_break in ("", "\r\n", "\n"):
            yield "utf-16", explanation, text.removesuffix(line_break).encode("utf-8", "replace")
    unix = body.replace(b"\r\n", b"\n")
    for other in (unix, unix.replace(b"\n", b"\r\n")):
        yield "line-endings", "The line endings of the body were converted between LF and CRLF.", other
    for form, other in _json_forms(body):
        explanation = f"The body is JSON that was parsed and written again; what was signed is the same JSON, {form}."
        yield "reserialized-json", f"{explanation} Verify the raw bytes of the request, before any parsing.", other


def _json_forms(body: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        value: Any = json.loads(body.removeprefix(_BOM))
    except (ValueError, RecursionError):
        return
    for spacing, separators, indent in (
        ("compact", (",", ":"), None),
        ("with blanks", (", ", ": "), None),
        ("indented by two", (",", ": "), 2),
        ("indented by four", (",", ": "), 4),
    ):
        for sort, form in ((False, spacing), (True, f"{spacing} and with sorted keys")):
            for ascii_only in (False, True):
                with contextlib.suppress(ValueError, TypeError, RecursionError):  # such as half of a surrogate pair
                    encoded = json.dumps(
                        value, separators=separators, indent=indent, sort_keys=sort, ensure_ascii=ascii_only
                    ).encode()
                    yield form, encoded
                    yield form, encoded.replace(b"/", b"\\/")  # PHP's way


def _other_secrets(secret: bytes) -> Iterator[tuple[Mistake, str, bytes]]:
    bare = secret.strip()
    surplus = "The secret has white space or quotation marks around it that do not belong to it, such as a line break."
    for other in (bare, bare.strip(b"\"'")):
        yield "secret-white-space", surplus, other
    lacking = "The secret that was signed with has white space at its end, such as a line break, which this one lacks."
    for ending in (b"\n", b"\r\n", b" "):
        yield "secret-white-space", lacking, secret + ending
    for found in copied_wrong(secret):
        for other in found.meant:
            yield found.mistake, f"The secret {found.what}, and what was signed with is without: {found.remedy}.", other
    encoded = "The secret is given in {}; it must be decoded first."
    decoded = "The secret was decoded from {}; Optimove signs with its text as it is."
    with contextlib.suppress(ValueError):
        yield "secret-hex-encoded", encoded.format("hex"), bytes.fromhex(bare.decode())
    yield "secret-base64-encoded", encoded.format("base64"), _from_base64(bare) or b""
    yield "secret-hex-encoded", decoded.format("hex"), secret.hex().encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield "secret-base64-encoded", decoded.format("base64"), encode(secret)
