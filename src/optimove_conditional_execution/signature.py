"""Webhook signatures: HMAC-SHA256 of the raw body, in the header `optimove-signature-content`.

The key is the secret's UTF-8 bytes, the digest is written as lowercase hex. Source: the example of Optimove's
Conditional Execution article, the first of the vectors in `tests/payloads/signature-vectors.json`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from hmac import compare_digest, digest
from traceback import clear_frames
from typing import Final, Literal

from pydantic import SecretBytes

from .credentials import HIDDEN, Secret
from .errors import ConfigurationError, SignatureError
from .messages import Request
from .tracebacks import sensitive_variables

SIGNATURE_HEADER: Final = "optimove-signature-content"
SIGNATURE_HEADERS: Final = (SIGNATURE_HEADER, "x-optimove-signature-content")
"""The documented header, and the name that Optimove's realtime API uses for the same thing."""

_HEX_LENGTH: Final = 64
_WHITE_SPACE: Final = " \t\r\n"


class Unsigned(enum.Enum):
    """The type of `UNSIGNED`."""

    UNSIGNED = "unsigned"

    def __repr__(self) -> str:
        return "UNSIGNED"


UNSIGNED: Final = Unsigned.UNSIGNED
"""Pass it as `secrets=` when no secret is set in Optimove: then anybody who knows your URL can call your handler."""

Secrets = Secret | Sequence[Secret]

_SINGLE: Final = (str, bytes, *HIDDEN)


@sensitive_variables
def sign(body: bytes, *, secret: Secret) -> str:
    """Return the signature that Optimove would send with a body.

    Args:
        body: The raw bytes of the request's body.
        secret: The tenant's secret. Text is used as UTF-8; it is not decoded from hex or base64. A `SecretStr` or
            `SecretBytes` of pydantic will do.

    Returns:
        64 lowercase hexadecimal digits.

    Raises:
        ConfigurationError: The secret is empty or blank, or is not text or bytes.
    """
    return digest(_key(secret).get_secret_value(), body, "sha256").hex()


def verify(body: bytes, *, signature: str | bytes | None, secrets: Secrets) -> int:
    """Check that a body was signed with one of the secrets, in constant time.

    Give several secrets while you rotate: Optimove documents no overlap, so notifications signed with the old secret
    can arrive after the change.

    Args:
        body: The raw bytes of the request's body, before any JSON parsing.
        signature: The value of the header `optimove-signature-content`; None when there was none. White space around
            it, upper-case digits and a leading `sha256=` are accepted.
        secrets: The secret, or several; text, bytes, or pydantic's `SecretStr` and `SecretBytes`.

    Returns:
        The index of the secret that matched; 0 when there is one.

    Raises:
        SignatureError: The signature is missing, malformed, or of another body or secret.
        ConfigurationError: There is no secret, or one of them is empty or blank.
    """
    try:
        # A single secret, the usual case, goes the short way.
        return match(body, signature, (_key(secrets),) if isinstance(secrets, str) else signing_keys(secrets))
    except BaseException as error:
        # As `sensitive_variables` does, without its overhead: this is called for every notification.
        del body, signature, secrets
        clear_frames(error.__traceback__)
        raise


def match(body: bytes, signature: str | bytes | None, keys: tuple[SecretBytes, ...]) -> int:
    """Check a signature as `verify` does, with keys from `signing_keys`; return the index of the one that matched.

    A receiver keeps it as `Outcome.secret_index`; `receivers.webhook` writes the log line of each outcome.
    """
    # Optimove's own form first: a signature that equals the digest exactly need not be normalised.
    if isinstance(signature, str) and len(signature) == _HEX_LENGTH and signature.isascii():
        given = signature
    else:
        given = _normal_form(signature)
    index = 0
    try:
        for key in keys:
            if compare_digest(digest(key.get_secret_value(), body, "sha256").hex(), given):
                return index
            index += 1
    except (TypeError, BufferError):  # its frames hold the secret, so it must not be chained
        index = -1
    if index < 0:
        raise SignatureError("The body must be the raw bytes that were received, before any decoding.")
    if given != given.lower():
        return match(body, given.lower(), keys)
    raise SignatureError(
        "The signature does not match this body and secret: the secret is a different one, or the body was changed in "
        "transit. `optimove-ce verify` finds out which."
    )


def _normal_form(signature: object) -> str:
    """Return a signature as 64 lower-case ASCII characters; that they are hex digits is left to the comparison."""
    if isinstance(signature, bytes):
        signature = signature.decode("latin-1")
    if isinstance(signature, str):
        text = signature.strip(_WHITE_SPACE).lower().removeprefix("sha256=")
        if len(text) == _HEX_LENGTH and text.isascii():
            return text
        raise SignatureError("The signature is malformed: 64 hexadecimal digits are expected.")
    if signature is None:
        raise SignatureError(f"The request has no signature: the header {SIGNATURE_HEADER} is missing.")
    raise SignatureError("A signature is text.")


def signing_keys(secrets: Secrets) -> tuple[SecretBytes, ...]:
    """Return the keys of one or several secrets.

    Raises:
        ConfigurationError: There is none, or one of them is empty or blank, or is not text or bytes.
    """
    if isinstance(secrets, _SINGLE):
        return (_key(secrets),)
    try:
        keys = tuple([_key(secret) for secret in secrets])
    except TypeError:
        raise ConfigurationError(
            "secrets must be a secret, a sequence of secrets, or UNSIGNED when Optimove has none."
        ) from None
    if not keys:
        raise ConfigurationError("secrets is empty: give the webhook secret, or UNSIGNED when Optimove has none.")
    return keys


def _key(secret: object) -> SecretBytes:
    if not isinstance(secret, str) and isinstance(secret, HIDDEN):
        secret = secret.get_secret_value()
    wrong = "A secret must be text or bytes; None, numbers and lists are not."
    if isinstance(secret, (str, bytes)):
        wrong = "A secret must not be empty or blank: anybody could sign with it."
        if secret.strip():
            try:
                return SecretBytes(secret.encode() if isinstance(secret, str) else secret)
            except UnicodeEncodeError:  # it quotes the secret, so it must not be chained
                wrong = "A secret must be valid Unicode text, or bytes."
    raise ConfigurationError(wrong)


def received_signature(request: Request) -> str | None:
    """Return the signature of a request, or None when it has none.

    Raises:
        SignatureError: A header came more than once, or the two accepted names disagree.
    """
    found = [value for name, value in request.headers if name in SIGNATURE_HEADERS]
    if len(found) < 2:
        return found[0] if found else None
    names = {name for name in SIGNATURE_HEADERS if request.header_values(name)}
    if len(names) != len(found) or len({value.strip(_WHITE_SPACE) for value in found}) != 1:
        raise SignatureError("The request has several signatures.")
    return found[0]


Keys = tuple[SecretBytes, ...] | Literal[Unsigned.UNSIGNED]


def receiver_keys(secrets: Secrets | Literal[Unsigned.UNSIGNED]) -> Keys:
    """Return the keys that a receiver checks signatures with; `UNSIGNED` is returned as it is."""
    return secrets if isinstance(secrets, Unsigned) else signing_keys(secrets)
