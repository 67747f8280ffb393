"""What the variables of the environment say about proxies, to every engine alike."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from optimove_conditional_execution import AsyncOptimoveClient, ConfigurationError, OptimoveClient
from optimove_conditional_execution.testing import FaultServer
from optimove_conditional_execution.transport.proxies import proxy_for
from tests.transport.engines import Caller

MADE = ("sync httpx", "sync httpx2", "async httpx", "async httpx2", "sync aiohttp", "async aiohttp")
PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that names none."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def made(engine: str, **options: Any) -> OptimoveClient | AsyncOptimoveClient:
    kind = OptimoveClient if engine.startswith("sync") else AsyncOptimoveClient
    name: Any = engine.rpartition(" ")[2]
    return kind("key", engine=name, **{"base_url": "http://optimove.invalid", **options})


@pytest.mark.parametrize("engine", MADE)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_may_stand_without_a_scheme(engine: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault server plays the proxy: what comes to it is a whole URL."""
    with FaultServer() as server:
        monkeypatch.setenv(variable, server.url.removeprefix("http://"))
        Caller(engine).call(server, lambda client: client.get_webhooks(), base_url="http://optimove.invalid")
        assert server.met[0].path == "http://optimove.invalid/conditional-execution/v2/triggered/webhooks"


@pytest.mark.parametrize("engine", MADE)
@pytest.mark.parametrize("exceptions", ["127.0.0.0/8", "[::1], 10.0.0.0/8,127.0.0.1", "[::1]:80,*"])
def test_networks_and_brackets_except_addresses(engine: str, exceptions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", exceptions)
    with FaultServer() as server:
        assert Caller(engine).call(server, lambda client: client.get_webhooks()) == [[]]


@pytest.mark.parametrize("engine", MADE)
def test_a_socks_proxy_without_its_package_is_told(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("all_proxy", "socks5://user:pass-word@proxy.example:1080")
    with pytest.raises(ConfigurationError, match="all_proxy names a SOCKS proxy") as caught:
        made(engine)
    assert "aiohttp" in str(caught.value) if engine.endswith("aiohttp") else "httpx[socks]" in str(caught.value)
    assert "pass-word" not in str(caught.value)


@pytest.mark.parametrize("engine", MADE)
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HTTPS_PROXY", "foo://user:pass-word@proxy.example"),
        ("HTTP_PROXY", "http://[::1"),
        ("http_proxy", "http://user:pass-word@proxy.example:port"),
        ("ALL_PROXY", "http://user:pass word@proxy.example"),
        ("HTTP_PROXY", "user:pass/word@proxy.example:3128"),
    ],
)
def test_the_variable_at_fault_is_named_and_not_its_value(
    engine: str, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=f"^{variable} ") as caught:
        made(engine)
    assert "word" not in str(caught.value).replace("password", "")
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("server", "exceptions", "is_excepted"),
    [
        ("https://api5.optimove.net", "", False),
        ("https://api5.optimove.net", "10.0.0.0/8,192.168.0.0/16", False),
        ("https://api5.optimove.net", "optimove.net", True),
        ("https://api5.optimove.net", ".optimove.net", True),
        ("https://api5.optimove.net", "*.optimove.net", True),
        ("https://api5.optimove.net", "API5.Optimove.net", True),
        ("https://api5.optimove.net", "imove.net", False),
        ("https://api5.optimove.net", "api5.optimove.net:443", True),
        ("https://api5.optimove.net", "api5.optimove.net:8443", False),
        ("https://api5.optimove.net:8443", "api5.optimove.net:8443", True),
        ("https://api5.optimove.net", "localhost, *", True),
        ("https://api5.optimove.net", "https://api5.optimove.net", True),
        ("http://10.1.2.3", "10.0.0.0/8", True),
        ("http://10.1.2.3:8080", "10.1.2.3", True),
        ("http://10.1.2.3:8080", "10.1.2.3:8080", True),
        ("http://11.1.2.3", "10.0.0.0/8", False),
        ("http://10.1.2.3", "10.1.2.3/8", True),
        ("http://[::1]:8080", "::1", True),
        ("http://[::1]:8080", "[::1]", True),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("http://[::1]:8080", "[::1]:9", False),
        ("http://[fd00::1]", "fd00::/8", True),
        ("http://[fd00::1]", "10.0.0.0/8", False),
        ("http://localhost:80", "localhost", True),
    ],
)
def test_what_no_proxy_excepts(
    server: str, exceptions: str, is_excepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", exceptions)
    assert proxy_for(server) == (None if is_excepted else PROXY)


def test_the_proxy_of_the_scheme_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_for("https://optimove.test") is None
    monkeypatch.setenv("ALL_PROXY", "socks5://other.example")
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    assert proxy_for("https://optimove.test") == PROXY
