"""What the doctor says of settings alone; nothing is sent."""

from __future__ import annotations

import re
import sys
import zoneinfo

import pytest

from optimove_conditional_execution.cli.doctor.environment import versions_check
from tests.cli.doctor.outside import Check, examined

KEY = "0123456789abcdef-key"
NOWHERE = "http://127.0.0.1:9"
PROXIES = {"HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE}
LONG = "a-long-and-private-text"


def test_the_gravest_finding_gives_the_state_and_stands_first() -> None:
    check = examined(variables={"OPTIMOVE_WEBHOOK_SECRET": "short", "OPTIMOVE_WEBHOOK_SECRET_2": ""})["secret"]
    assert check.state == "problem"
    assert check.finding.index("_SECRET_2 is empty") < check.finding.index("less than 16")


# ---- the key


@pytest.mark.parametrize(
    ("key", "state", "said"),
    [
        (KEY, "ok", "is set"),
        (None, "problem", "is missing"),
        ("", "problem", "is missing"),
        (" \n", "problem", "is missing"),
        (f"{KEY}\n", "warning", "line break"),
        (f" {KEY}\r", "warning", "white space"),
        (f'"{KEY}"', "problem", "quotation mark"),
        (f"\u201c{KEY}\u201d", "problem", "quotation mark"),
        (f"OPTIMOVE_API_KEY={KEY}", "problem", "name of a variable"),
        (f"\ufeff{KEY}", "problem", "byte order mark"),
        (f"X-API-KEY: {KEY}", "problem", "name of a header"),
        (f"Bearer {KEY}", "problem", "name of a header"),
        (f"{KEY} {KEY}", "problem", "are not allowed in an HTTP header"),
        (f"{KEY}\n{KEY}", "problem", "are not allowed"),
        (f"{KEY}\u00e9", "problem", "are not allowed"),
    ],
)
def test_the_key(key: str | None, state: str, said: str) -> None:
    check = examined(key=key)["key"]
    assert check.state == state
    assert said in check.finding
    assert bool(check.remedy) == (state != "ok")
    assert KEY not in check.finding + check.remedy


# ---- the URL


@pytest.mark.parametrize(
    ("url", "state", "said"),
    [
        ("https://api5.optimove.net", "ok", "is https://api5.optimove.net."),
        ("https://api12.optimove.net/", "ok", "is https://api12.optimove.net."),
        ("https://sandbox-api.optimove.net", "ok", "is https"),
        ("http://127.0.0.1:8000", "ok", "is http"),
        ("http://localhost:8000", "ok", "is http"),
        ("http://[::1]:8000", "ok", "is http"),
        (None, "problem", "is missing"),
        (" ", "problem", "is missing"),
        ("https://api5.optimove.net\n", "warning", "line break"),
        ('"https://api5.optimove.net"', "problem", "quotation mark"),
        ("api5.optimove.net", "problem", "must be http(s)://host"),
        ("ftp://api5.optimove.net", "problem", "must be http(s)://host"),
        ("https://api5.optimove.net?key=1", "problem", "must be http(s)://host"),
        ("https://api5.optimove.net:x", "problem", "must be http(s)://host"),
        ("http://api5.optimove.net", "problem", "in clear"),
        ("https://apiX.optimove.net", "problem", "stands for your tenant's digit"),
        ("https://api.optimove.com", "problem", "illustration"),
        ("https://gateway.example.com", "warning", "apiX.optimove.net"),
        ("https://api5.optimove.net/current", "warning", "/current"),
        ("https://api5.optimove.net/General", "problem", "/General"),
        ("https://api5.optimove.net/conditional-execution/v2", "problem", "/v2"),
        ("https://api5.optimove.net/eu", "warning", "/eu"),
    ],
)
def test_the_url(url: str | None, state: str, said: str) -> None:
    check = examined(url, seconds=0.1, variables=PROXIES)["url"]
    assert check.state == state
    assert said in check.finding
    assert bool(check.remedy) == (state != "ok")


def test_a_url_with_a_password_is_not_shown() -> None:
    check = examined(f"https://me:{LONG}@api5.optimove.net")["url"]
    assert check.state == "problem"
    assert LONG not in check.finding + check.remedy


def test_the_older_prefix_belongs_into_endpoints() -> None:
    check = examined("https://api5.optimove.net/current", variables=PROXIES)["url"]
    assert 'Endpoints(path_prefix="/current")' in check.remedy


# ---- secrets


@pytest.mark.parametrize(
    ("secrets", "state", "said"),
    [
        ({"": LONG}, "ok", "OPTIMOVE_WEBHOOK_SECRET is set."),
        ({"": LONG, "_2": "another-long-private-text"}, "ok", "2 secrets are set"),
        ({}, "warning", "is not set"),
        ({"": ""}, "problem", "anybody could sign"),
        ({"": LONG, "_2": " \t"}, "problem", "OPTIMOVE_WEBHOOK_SECRET_2 is empty or blank"),
        ({"": f"{LONG}\n"}, "problem", "line break"),
        ({"": f"'{LONG}'"}, "problem", "quotation mark"),
        ({"": f"\ufeff{LONG}"}, "problem", "byte order mark"),
        ({"": f"{LONG}\u200b"}, "problem", "invisible character"),
        ({"": f"OPTIMOVE_WEBHOOK_SECRET={LONG}"}, "problem", "name of a variable"),
        ({"": f"{LONG},{LONG}-2"}, "warning", "comma"),
        ({"": "fifteen-letters"}, "warning", "less than 16"),
        ({"": LONG, "_2": LONG}, "warning", "the same as"),
        ({"": LONG, "_OLD": LONG}, "warning", "OPTIMOVE_WEBHOOK_SECRET_OLD is not read"),
        ({"": LONG, "_1": LONG}, "warning", "OPTIMOVE_WEBHOOK_SECRET_1 is not read"),
    ],
)
def test_secrets(secrets: dict[str, str], state: str, said: str) -> None:
    check = examined(variables={f"OPTIMOVE_WEBHOOK_SECRET{suffix}": secret for suffix, secret in secrets.items()})[
        "secret"
    ]
    assert check.state == state
    assert said in check.finding
    assert bool(check.remedy) == (state != "ok")
    assert not any(secret.strip() and secret.strip() in check.finding + check.remedy for secret in secrets.values())


# ---- the time zone


def zone(name: str | None, *options: str) -> Check:
    return examined(None, *options, variables={} if name is None else {"OPTIMOVE_TIMEZONE": name})["timezone"]


def test_a_known_zone_tells_its_time() -> None:
    check = zone("Europe/London")
    assert check.state == "ok"
    assert re.fullmatch(r"OPTIMOVE_TIMEZONE is Europe/London, where it is \d\d:\d\d now\.", check.finding)


@pytest.mark.parametrize("name", [None, ""])
def test_no_zone_is_a_problem_only_with_scheduled_campaigns(name: str | None) -> None:
    assert zone(name).state == "warning"
    assert zone(name, "--listener", f"{NOWHERE}/campaigns").state == "problem"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Europe/Londn", "Europe/London"),
        ("london", "Europe/London"),
        ("America/New York", "America/New_York"),
        ("asia/jerusalem", "Asia/Jerusalem"),
        (" Europe/Berlin", "Europe/Berlin"),
    ],
)
def test_a_misspelt_zone_gets_suggestions(name: str, meant: str) -> None:
    check = zone(name)
    assert check.state == "problem"
    assert meant in check.remedy


@pytest.mark.parametrize("name", ["+02:00", "../etc/passwd", "Europe", "x" * 300, "\u00e9"])
def test_what_is_no_zone_at_all(name: str) -> None:
    check = zone(name)
    assert (check.state, bool(check.remedy)) == ("problem", True)


def test_a_machine_without_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("tzdata.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "tzdata", None)
    zoneinfo.reset_tzpath([])
    zoneinfo.ZoneInfo.clear_cache()
    try:
        check = zone("Europe/London")
    finally:
        zoneinfo.reset_tzpath()
    assert check.state == "problem"
    assert "pip install tzdata" in check.remedy.lower()


# ---- versions


def test_versions_name_what_counts() -> None:
    check = versions_check((3, 51, 3))
    assert check.state == "ok"
    for name in ("Python 3.", "SDK ", "httpx ", "pydantic ", "aiohttp ", "SQLite 3.51.3,"):
        assert name in check.finding


def test_an_sqlite_with_a_fault_is_told_of() -> None:
    assert versions_check((3, 45, 1)).state == "ok"
    assert "rare fault" in versions_check((3, 45, 1)).finding
    check = versions_check((3, 7, 17))
    assert check.state == "warning"
    assert "3.24.0" in check.finding
