"""Settings of a client: API key, base URL, time zone. From arguments, else from the environment.

Defaults that are numbers, such as the page size and the reserve, are in `defaults.py`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from zoneinfo import ZoneInfo

from pydantic import SecretBytes, SecretStr

from .credentials import revealed
from .deadline import zone_of
from .errors import ConfigurationError
from .observers import SafeLogger
from .urls import is_loopback, split_absolute

API_KEY_VARIABLE: Final = "OPTIMOVE_API_KEY"
BASE_URL_VARIABLE: Final = "OPTIMOVE_BASE_URL"
TIMEZONE_VARIABLE: Final = "OPTIMOVE_TIMEZONE"
SECRET_VARIABLE: Final = "OPTIMOVE_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
TOKEN_VARIABLE: Final = "OPTIMOVE_LISTENER_TOKEN"  # noqa: S105 - the name of a variable
LOG_SECRET_VARIABLE: Final = "OPTIMOVE_DECISION_LOG_SECRET"  # noqa: S105 - the name of a variable

_SECRET_NAME: Final = re.compile(rf"{SECRET_VARIABLE}(?:_([2-9]|[1-9][0-9]))?")

_LOGGER: Final = SafeLogger("client")


@dataclass(eq=False, frozen=True, slots=True)
class ClientSettings:
    """Checked settings.

    Attributes:
        api_key: Printable ASCII without blanks, so that it is a valid header value.
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
        """Check the arguments, and read missing ones from the environment.

        Raises:
            ConfigurationError: A setting is missing or invalid.
        """
        zone = timezone if timezone is not None else environment.get(TIMEZONE_VARIABLE) or None
        return cls(
            _api_key(api_key if api_key is not None else environment.get(API_KEY_VARIABLE)),
            _base_url(base_url if base_url is not None else environment.get(BASE_URL_VARIABLE)),
            None if zone is None else zone_of(zone, setting=f"{TIMEZONE_VARIABLE}, or timezone=,"),
        )


def webhook_secrets(environment: Mapping[str, str]) -> list[SecretBytes]:
    """Return the webhook secrets of an environment, for `secrets=` of a receiver or of `verify`.

    `OPTIMOVE_WEBHOOK_SECRET` comes first; while you rotate, `OPTIMOVE_WEBHOOK_SECRET_2`, `_3` and so on follow.

        receiver = WebhookReceiver(handler, client=client, secrets=webhook_secrets(os.environ))

    Args:
        environment: Such as `os.environ`.

    Returns:
        The secrets, byte for byte as they are set; their repr is silent.

    Raises:
        ConfigurationError: There is none, or one of them is empty or blank. The message names the variable.
    """
    named = secret_variables(environment)
    if not named:
        raise ConfigurationError(
            f"The webhook secret is missing: set the environment variable {SECRET_VARIABLE}. "
            "It is the one that UpdateWebhookSettings was given."
        )
    for name, secret in named.items():
        if not secret.strip():
            raise ConfigurationError(f"{name} is empty or blank: anybody could sign with it.")
    return [SecretBytes(secret) for secret in named.values()]


def secret_variables(environment: Mapping[str, str]) -> dict[str, bytes]:
    """Return all webhook secrets of an environment by variable name, in order, blank ones too.

    Args:
        environment: Such as `os.environ`.
    """
    found = [(int(match[1] or 1), name) for name in environment if (match := _SECRET_NAME.fullmatch(name))]
    # The bytes that were set, as `os.fsencode` returns them.
    encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
    return {name: environment[name].encode(encoding, errors) for _, name in sorted(found)}


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
            f"The API key has characters that are not allowed in an HTTP header: check {API_KEY_VARIABLE}, or "
            "api_key=, for blanks, line breaks and letters outside ASCII."
        )
    return SecretStr(key)


def _base_url(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(
            f"The base URL is missing: set the environment variable {BASE_URL_VARIABLE}, or pass base_url=. "
            "It is your tenant's API server, such as https://api5.optimove.net; Optimove support knows which one."
        )
    url = value.strip().rstrip("/")
    parts = split_absolute(url)
    try:
        host = "" if parts is None else (parts.hostname or "").encode("idna").decode()
    except ValueError:
        host = ""
    is_plain = url.isascii() and url.isprintable() and not {"?", "#", " "} & set(url)
    if parts is None or not host or parts.username is not None or not is_plain:
        raise ConfigurationError(
            f"The base URL must be http(s)://host, with an optional port and path and nothing else: check "
            f"{BASE_URL_VARIABLE}, or base_url=. An example is https://api5.optimove.net."
        )
    if host == "apix.optimove.net":
        raise ConfigurationError(
            f"The X in {url} stands for your tenant's digit: set {BASE_URL_VARIABLE}, or base_url=, to an address such "
            "as https://api5.optimove.net; Optimove support knows which one."
        )
    if parts.scheme == "http" and not is_loopback(host):
        _LOGGER.warning("The base URL is not https: the API key is sent in clear text to %s.", host)
    return url
