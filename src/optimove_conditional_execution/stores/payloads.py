"""Payloads beside the records of a decision log, encrypted when a key is given (extra `encryption`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from ..credentials import Secret, revealed
from ..errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

EncryptionKeys = Secret | Sequence[Secret]

_PLAIN: Final = "payload"
_ENCRYPTED: Final = "encrypted_payload"


class PayloadCodec:
    """Writes payloads into the personal part of an entry, and reads them. The repr shows no key."""

    def __init__(self, *, keep: bool, keys: EncryptionKeys | None, is_pseudonymous: bool) -> None:
        """Check the settings.

        Args:
            keep: Whether payloads are kept.
            keys: The keys: the first encrypts, all decrypt. None encrypts nothing.
            is_pseudonymous: Whether the log keeps no ids of customers.

        Raises:
            ConfigurationError: A key is invalid, or the extra `encryption` is missing; or ids would be kept after all.
        """
        self.keep: Final = keep
        self._fernet = None if keys is None else _fernet(keys)
        if keep and is_pseudonymous and self._fernet is None:
            raise ConfigurationError(
                "A log with identify= keeps no customer ids, but payloads hold them: give encryption_keys=, too."
            )

    def encode(self, payload: bytes | None) -> dict[str, str]:
        """Return the fields of an entry's personal part."""
        if payload is None or not self.keep:
            return {}
        if self._fernet is None:
            return {_PLAIN: payload.decode("utf-8", "surrogateescape")}
        return {_ENCRYPTED: self._fernet.encrypt(payload).decode("ascii")}

    def decode(self, personal: Mapping[str, Any]) -> tuple[bytes | None, bool]:
        """Return the payload of an entry's personal part, and whether there is one that these keys do not decrypt."""
        plain, encrypted = personal.get(_PLAIN), personal.get(_ENCRYPTED)
        if plain is not None:
            return str(plain).encode("utf-8", "surrogateescape"), False
        if encrypted is None:
            return None, False
        if self._fernet is None:
            return None, True
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(str(encrypted)), False
        except InvalidToken:
            return None, True


def _fernet(keys: EncryptionKeys) -> MultiFernet:
    try:
        from cryptography.fernet import Fernet, MultiFernet
    except ImportError:
        raise ConfigurationError(
            'encryption_keys= needs the extra "encryption": pip install "optimove-conditional-execution[encryption]".'
        ) from None
    given = list(keys) if isinstance(keys, list | tuple) else [keys]
    try:
        return MultiFernet([Fernet(cast("str | bytes", revealed(key))) for key in given])
    except (ValueError, TypeError):
        raise ConfigurationError(
            "Each of encryption_keys must be a key of Fernet, 32 bytes in URL-safe base64. This makes one: "
            'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
        ) from None
