"""Proxy settings from the environment, the same for every engine.

The libraries differ in how they read these variables: one accepts `host:port` without a scheme and the other does not,
none supports networks in NO_PROXY, and `[::1]` there is an error for some.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import urllib.request
from typing import Final
from urllib.parse import SplitResult, urlsplit

from ..errors import ConfigurationError

_SCHEMES: Final = ("http", "https", "socks5", "socks5h")
_PORTS: Final = {"http": 80, "https": 443}


def proxy_for(url: str, *, takes_socks: bool = True) -> str | None:
    """Return the URL of the proxy for a server, or None for none; it can hold a password.

    HTTPS_PROXY or HTTP_PROXY applies by the scheme of the server's URL, then ALL_PROXY, and NO_PROXY excludes: names
    with their subdomains, addresses, networks such as `10.0.0.0/8`, each with or without a port, and `*`. A network
    excludes addresses only, since names are resolved by the proxy. Without any of these variables the settings of macOS
    and Windows apply.

    Args:
        url: The server's base URL.
        takes_socks: Whether the engine can use a SOCKS proxy.

    Raises:
        ConfigurationError: A variable is invalid, or needs a package that is not installed; it is named, and its value
            is not shown.
    """
    server = urlsplit(url)
    settings = urllib.request.getproxies()
    proxies = {kind: _proxy(kind, settings[kind]) for kind in ("http", "https", "all") if settings.get(kind)}
    kind = server.scheme if server.scheme in proxies else "all"
    proxy = proxies.get(kind)
    if proxy is None or _is_excepted(server, settings.get("no", "")):
        return None
    if proxy.startswith("socks"):
        if not takes_socks:
            raise ConfigurationError(
                f"{_variable(kind)} names a SOCKS proxy, which engine='aiohttp' cannot use: take another engine, or "
                "list the host in NO_PROXY."
            )
        if importlib.util.find_spec("socksio") is None:
            raise ConfigurationError(
                f"{_variable(kind)} names a SOCKS proxy, which needs a package that is not installed: "
                "pip install 'httpx[socks]'."
            )
    return proxy


def has_proxy(url: str) -> bool:
    """Whether the environment names a proxy for a server; an invalid variable names none."""
    try:
        return proxy_for(url) is not None
    except ConfigurationError:
        return False


def _proxy(kind: str, value: str) -> str:
    proxy = value.strip()
    if "://" not in proxy:
        proxy = f"http://{proxy}"  # as curl reads it
    try:
        parts = urlsplit(proxy)
        usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
        usable = usable and proxy.isprintable() and " " not in proxy
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(
            f"{_variable(kind)} is not a valid proxy URL: it must be http://host:port, or begin with https://, "
            "socks5:// or socks5h://. Special characters of a user name or password are percent-encoded."
        ) from None
    return proxy


def _variable(kind: str) -> str:
    """Return the name of the variable that applies, as it is spelled in the environment."""
    name = f"{kind}_proxy"
    found = [variable for variable in os.environ if variable.lower() == name and os.environ[variable]]
    # urllib prefers the lower case.
    return name if name in found else next(iter(found), f"The system's setting for {name.upper()}")


def _is_excepted(server: SplitResult, exceptions: str) -> bool:
    host = (server.hostname or "").rstrip(".")
    port = server.port or _PORTS.get(server.scheme)
    entries = [entry.strip().lower() for entry in exceptions.split(",")]
    if any(_excepts(entry, host, port) for entry in entries if entry):
        return True
    # macOS and Windows have exclusions of their own, when no variable is set.
    return not urllib.request.getproxies_environment() and bool(urllib.request.proxy_bypass(server.netloc))


def _excepts(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    entry = entry.rpartition("://")[2]
    name, _, number = entry.rpartition(":")
    if number.isdecimal() and (":" not in name or name.endswith("]")):
        if int(number) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = entry.lstrip("*").strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return address in ipaddress.ip_network(entry.replace("]", ""), strict=False)
    except ValueError:
        return False
