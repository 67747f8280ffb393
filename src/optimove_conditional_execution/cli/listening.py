"""Whether anything listens where a URL points."""

from __future__ import annotations

import asyncio
import socket
from typing import Final
from urllib.parse import urlsplit

from optimove_conditional_execution.errors import ConfigurationError

_LOOK_AGAIN: Final = 0.1
_CONNECT_SECONDS: Final = 2.0


async def is_reachable(url: str) -> bool:
    """Whether something takes connections where a URL points.

    Args:
        url: An absolute URL.

    Raises:
        ConfigurationError: No machine has that name.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (socket.gaierror, UnicodeError):  # the latter for what cannot be a name, such as a..b
        raise ConfigurationError(f"No machine is called {parts.hostname}: check the URL.") from None
    except OSError:
        return False
    writer.close()
    return True


async def until_reachable(url: str) -> None:
    """Wait until something takes connections where a URL points.

    Args:
        url: An absolute URL.

    Raises:
        ConfigurationError: No machine has that name.
    """
    while not await is_reachable(url):
        await asyncio.sleep(_LOOK_AGAIN)
