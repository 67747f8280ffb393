"""Why a signature does not fit: the usual mistakes, tried one by one. Pure, and silent about the secret."""

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

from optimove_conditional_execution.cli.given_files import UTF_16, utf_16
from optimove_conditional_execution.credentials import copied_wrong

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

_BOM: Final = b"\xef\xbb\xbf"
_HEX_DIGITS: Final = frozenset("0123456789abcdef")
_DIGEST_BYTES: Final = 32
_SHORTEST_PREFIX: Final = 8
"""Hexadecimal digits; fewer could fit by chance."""


@final
@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is probably wrong.

    Attributes:
        mistake: A name for programs.
        explanation: A sentence for people. It holds neither the secret nor the signature nor the body.
        secret_index: Which secret it was found with; None when it does not depend on one.
    """

    mistake: Mistake
    explanation: str
    secret_index: int | None = None


def diagnose(body: bytes, *, signature: str, secrets: Sequence[bytes]) -> Diagnosis:
    """Return the common mistake that explains why a signature does not fit.

    Each mistake is tried alone. The order matters only where a body shows two of them at once.

    Args:
        body: The bytes that were to be verified.
        signature: As it was given, for a body that `verify` has refused.
        secrets: The secrets that were tried.
    """
    text = _bare(signature)
    if not text:
        return Diagnosis("missing-signature", "The signature is empty.")
    for index, secret in enumerate(secrets):
        found = _of_signature(body, text, secret) or _of_body(body, text, secret) or _of_secret(body, text, secret)
        if found is not None:
            return Diagnosis(*found, index)
    if len(text) != 2 * _DIGEST_BYTES or not _HEX_DIGITS.issuperset(text.lower()):
        return Diagnosis(
            "malformed-signature",
            f"The signature has {len(text)} characters; it must be 64 hexadecimal digits, as they stand in the header "
            "optimove-signature-content.",
        )
    if utf_16(body) is not None:
        return Diagnosis("utf-16", f"The file is in UTF-16, which Optimove never sends. {UTF_16}")
    return Diagnosis(
        "wrong-secret-or-changed-body",
        "Wrong secret or changed body: no common mistake fits. Compare the secret with the one that "
        "UpdateWebhookSettings was given last, and take the raw bytes of the request's body, before any parsing.",
    )


def remarks(signature: str) -> list[str]:
    """Return what is unusual about a signature that fits all the same.

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


_Found = tuple[Mistake, str]


def _bare(signature: str) -> str:
    text = signature.strip().strip("\"'").strip()
    return text[7:] if text[:7].lower() == "sha256=" else text


def _fits(body: bytes, text: str, secret: bytes) -> bool:
    return hmac.compare_digest(hmac.digest(secret, body, "sha256").hex().encode(), text.lower().encode())


# ---- the signature


def _of_signature(body: bytes, text: str, secret: bytes) -> _Found | None:
    right = hmac.digest(secret, body, "sha256")
    if _fits(body, text, secret):
        return "malformed-signature", "The signature is right but for quotation marks or blanks around it."
    if any(_decoded_as(text, wanted) for wanted in (right, right.hex().encode())):
        return (
            "base64-signature",
            "The signature is the right digest in base64; Optimove writes it as 64 hexadecimal digits.",
        )
    lowered = text.lower()
    if _SHORTEST_PREFIX <= len(text) < 2 * _DIGEST_BYTES and right.hex().startswith(lowered):
        return (
            "truncated-signature",
            f"The signature is the beginning of the right one: {len(text)} of 64 digits. It must be compared in whole.",
        )
    for name, digest in _other_digests(body, secret):
        if digest.hex() == lowered:
            return "other-algorithm", f"The signature was made with {name}; Optimove signs with HMAC-SHA256."
    return None


def _decoded_as(text: str, wanted: bytes) -> bool:
    unpadded = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True) == wanted
    except (binascii.Error, ValueError):
        return False


def _other_digests(body: bytes, secret: bytes) -> Iterator[tuple[str, bytes]]:
    for name, label in (
        ("sha1", "HMAC-SHA1"),
        ("md5", "HMAC-MD5"),
        ("sha384", "HMAC-SHA384"),
        ("sha512", "HMAC-SHA512"),
    ):
        yield label, hmac.new(secret, body, name).digest()
    yield "plain SHA-256 of the body, without the secret", hashlib.sha256(body).digest()
    yield "plain SHA-256 of secret and body", hashlib.sha256(secret + body).digest()
    yield "plain SHA-256 of body and secret", hashlib.sha256(body + secret).digest()
    yield "HMAC-SHA256 with body and secret exchanged", hmac.digest(body, secret, "sha256")


# ---- the body


def _of_body(body: bytes, text: str, secret: bytes) -> _Found | None:
    for mistake, explanation, other in _other_bodies(body):
        if other != body and _fits(other, text, secret):
            return mistake, explanation
    return None


def _other_bodies(body: bytes) -> Iterator[tuple[Mistake, str, bytes]]:
    for name, ending in (("CRLF", b"\r\n"), ("LF", b"\n")):
        if body.endswith(ending):
            yield (
                "trailing-newline",
                f"The body has a line break ({name}) at its end that was not signed: an editor or `echo` adds it.",
                body.removesuffix(ending),
            )
        yield (
            "trailing-newline",
            f"The body lacks the line break ({name}) at its end that was signed: a shell or `strip()` takes it away.",
            body + ending,
        )
    if body.startswith(_BOM):
        yield "byte-order-mark", "The body begins with a UTF-8 byte order mark that was not signed.", body[len(_BOM) :]
    else:
        yield "byte-order-mark", "The body lacks the UTF-8 byte order mark that was signed.", _BOM + body
    if (text := utf_16(body)) is not None:
        for line_break in ("", "\r\n", "\n"):
            yield (
                "utf-16",
                f"The file is in UTF-16, and what was signed is the same text in UTF-8. {UTF_16}",
                text.removesuffix(line_break).encode("utf-8", "replace"),
            )
    unix = body.replace(b"\r\n", b"\n")
    for other in (unix, unix.replace(b"\n", b"\r\n")):
        yield "line-endings", "The line endings of the body were converted between LF and CRLF.", other
    for form, other in _json_forms(body):
        yield (
            "reserialized-json",
            f"The body is JSON that was parsed and written again; what was signed is the same JSON, {form}. "
            "Verify the raw bytes of the request, before any parsing.",
            other,
        )


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
        for sort in (False, True):
            for ascii_only in (False, True):
                try:
                    text = json.dumps(
                        value, separators=separators, indent=indent, sort_keys=sort, ensure_ascii=ascii_only
                    )
                    encoded = text.encode()
                except (ValueError, TypeError, RecursionError):
                    continue  # such as half of a surrogate pair
                form = spacing + (" and with sorted keys" if sort else "")
                yield form, encoded
                # PHP's way.
                yield form, encoded.replace(b"/", b"\\/")


# ---- the secret


def _of_secret(body: bytes, text: str, secret: bytes) -> _Found | None:
    for mistake, explanation, other in _other_secrets(secret):
        if other != secret and other and _fits(body, text, other):
            return mistake, explanation
    return None


def _other_secrets(secret: bytes) -> Iterator[tuple[Mistake, str, bytes]]:
    surplus = "The secret has white space or quotation marks around it that do not belong to it, such as a line break."
    for other in (secret.strip(), secret.strip().strip(b"\"'")):
        yield "secret-white-space", surplus, other
    for ending in (b"\n", b"\r\n", b" "):
        yield (
            "secret-white-space",
            "The secret that was signed with has white space at its end, such as a line break, which this one lacks.",
            secret + ending,
        )
    for found in copied_wrong(secret):
        for other in found.meant:
            yield found.mistake, f"The secret {found.what}, and what was signed with is without: {found.remedy}.", other
    bare = secret.strip()
    with contextlib.suppress(ValueError):
        unhexed = bytes.fromhex(bare.decode())
        yield "secret-hex-encoded", "The secret is given in hex; it must be decoded first.", unhexed
    for alternative in (None, b"-_"):
        try:
            padded = bare.rstrip(b"=") + b"=" * (-len(bare.rstrip(b"=")) % 4)
            decoded = base64.b64decode(padded, altchars=alternative, validate=True)
        except (binascii.Error, ValueError):
            continue
        yield "secret-base64-encoded", "The secret is given in base64; it must be decoded first.", decoded
    yield (
        "secret-hex-encoded",
        "The secret was decoded from hex; Optimove signs with its text as it is.",
        secret.hex().encode(),
    )
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield (
            "secret-base64-encoded",
            "The secret was decoded from base64; Optimove signs with its text as it is.",
            encode(secret),
        )
