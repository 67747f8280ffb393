"""What a client is told once: key, URL, time zone. From arguments, else from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from optimove_conditional_execution.credentials import revealed
from optimove_conditional_execution.deadline import unknown_zone
from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.observers import SafeLogger

API_KEY_VARIABLE: Final = "OPTIMOVE_API_KEY"
BASE_URL_VARIABLE: Final = "OPTIMOVE_BASE_URL"
TIMEZONE_VARIABLE: Final = "OPTIMOVE_TIMEZONE"
SECRET_VARIABLE: Final = "OPTIMOVE_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
TOKEN_VARIABLE: Final = "OPTIMOVE_LISTENER_TOKEN"  # noqa: S105 - the name of a variable

_LOGGER: Final = SafeLogger("client")


@final
@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Checked settings.

    Attributes:
        api_key: Printable ASCII without blanks, so that it fits into a header as it is.
        base_url: Scheme, host and an optional path, without a trailing slash.
        timezone: The zone of Optimove's time stamps that have none; None when it was not given.
    """

    api_key: SecretStr = field(repr=False)
    base_url: str
    timezone: ZoneInfo | None

    @classmethod
    def of(
        cls,
        *,
        api_key: str | SecretStr | None,
        base_url: str | None,
        timezone: str | ZoneInfo | None,
        environment: Mapping[str, str],
    ) -> ClientSettings:
        """Check what was given, and fill in from the environment what was not.

        Raises:
            ConfigurationError: Something is missing or makes no sense.
        """
        return cls(
            _api_key(api_key if api_key is not None else environment.get(API_KEY_VARIABLE)),
            _base_url(base_url if base_url is not None else environment.get(BASE_URL_VARIABLE)),
            _timezone(timezone if timezone is not None else environment.get(TIMEZONE_VARIABLE) or None),
        )


def whole_number(name: str, value: object) -> int:
    """Return a whole number of 1 or more.

    Raises:
        ConfigurationError: It is none; the message names the setting.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name} must be a whole number, 1 or more.")
    return value


def seconds(name: str, value: object, *, above_zero: bool = False) -> float:
    """Return a number of seconds: 0 or more, or above 0; infinity is one.

    Raises:
        ConfigurationError: It is none; the message names the setting.
    """
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    if not usable or not (value > 0 if above_zero else value >= 0):  # type: ignore[operator]  # a number, see above
        raise ConfigurationError(f"{name} must be a number of seconds, {'above 0' if above_zero else '0 or more'}.")
    return value  # type: ignore[return-value]  # a number, see above


def _api_key(value: object) -> SecretStr:
    value = revealed(value)
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(
            f"The API key is missing: set the environment variable {API_KEY_VARIABLE}, or pass api_key=. "
            "An admin makes one in Optimove under Settings > General > API Key Management."
        )
    key = value.strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigurationError(
            f"The API key has characters that cannot stand in an HTTP header: check {API_KEY_VARIABLE}, or api_key=, "
            "for blanks, line breaks and letters outside ASCII."
        )
    return SecretStr(key)


def _base_url(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(
            f"The base URL is missing: set the environment variable {BASE_URL_VARIABLE}, or pass base_url=. "
            "It is your tenant's API server, such as https://api5.optimove.net; Optimove support tells which."
        )
    url = value.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not {"?", "#"} & set(url)
        (parts.hostname or "").encode("idna")
        credentials = parts.username is not None
        _ = parts.port
    except ValueError:
        parts, usable, credentials = urlsplit(""), False, False
    if not usable or credentials or not (url.isascii() and url.isprintable()) or " " in url:
        raise ConfigurationError(
            f"The base URL must be http(s)://host, with an optional port and path and nothing else: check "
            f"{BASE_URL_VARIABLE}, or base_url=. An example is https://api5.optimove.net."
        )
    if parts.hostname == "apix.optimove.net":
        raise ConfigurationError(
            f"The X in {url} stands for your tenant's digit: set {BASE_URL_VARIABLE}, or base_url=, to an address such "
            "as https://api5.optimove.net; Optimove support tells which."
        )
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        _LOGGER.warning("The base URL is not https: the API key travels in clear to %s.", parts.hostname)
    return url


def _timezone(value: object) -> ZoneInfo | None:
    if value is None or isinstance(value, ZoneInfo):
        return value
    try:
        return ZoneInfo(str(value))
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise unknown_zone(f"check {TIMEZONE_VARIABLE}, or timezone=, for an IANA name like Europe/London.") from None
