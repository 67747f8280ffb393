"""What the doctor says of settings alone; nothing is sent."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime

import pytest

from optimove_conditional_execution import EventListener
from optimove_conditional_execution.cli.doctor.check import Check, Issue, judged
from optimove_conditional_execution.cli.doctor.key_and_url import key_check, url_check, usable_key, usable_url
from optimove_conditional_execution.cli.doctor.listener_token import closed_url, token_check
from optimove_conditional_execution.cli.doctor.secrets_and_zone import secret_check, timezone_check
from optimove_conditional_execution.cli.doctor.versions import versions_check

KEY = "0123456789abcdef-key"
LONG = "a-long-and-private-text"


def test_the_gravest_issue_gives_the_state_and_stands_first() -> None:
    check = judged("x", "fine", [Issue("warning", "B.", "Do b."), Issue("problem", "A.", "Do a."),
                                 Issue("warning", "C.", "Do b.")])  # fmt: skip
    assert check == Check("x", "problem", "A. B. C.", "Do a. Do b.")
    assert judged("x", "fine", []) == Check("x", "ok", "fine")


# ---- the key


@pytest.mark.parametrize(
    ("key", "state", "said"),
    [
        (KEY, "ok", "is set"),
        (None, "problem", "is not set"),
        ("", "problem", "empty or blank"),
        (" \n", "problem", "empty or blank"),
        (f"{KEY}\n", "warning", "line break"),
        (f" {KEY}\r", "warning", "white space"),
        (f'"{KEY}"', "problem", "quotation mark"),
        (f"\u201c{KEY}\u201d", "problem", "quotation mark"),
        (f"OPTIMOVE_API_KEY={KEY}", "problem", "name of a variable"),
        (f"\ufeff{KEY}", "problem", "byte order mark"),
        (f"X-API-KEY: {KEY}", "problem", "name of a header"),
        (f"Bearer {KEY}", "problem", "name of a header"),
        (f"{KEY} {KEY}", "problem", "blanks"),
        (f"{KEY}\n{KEY}", "problem", "line breaks"),
        (f"{KEY}\u00e9", "problem", "outside ASCII"),
    ],
)
def test_the_key(key: str | None, state: str, said: str) -> None:
    check = key_check({} if key is None else {"OPTIMOVE_API_KEY": key})
    assert check.state == state
    assert said in check.finding
    assert bool(check.remedy) == (state != "ok")
    assert KEY not in check.finding + check.remedy


def test_a_key_is_usable_when_the_client_would_take_it() -> None:
    assert usable_key({"OPTIMOVE_API_KEY": f" {KEY}\n"}) == KEY
    assert usable_key({"OPTIMOVE_API_KEY": "a b"}) is None
    assert usable_key({}) is None


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
        (None, "problem", "is not set"),
        (" ", "problem", "empty or blank"),
        ("https://api5.optimove.net\n", "warning", "line break"),
        ('"https://api5.optimove.net"', "problem", "quotation mark"),
        ("api5.optimove.net", "problem", "no absolute URL"),
        ("ftp://api5.optimove.net", "problem", "not a URL that the SDK takes"),
        ("https://api5.optimove.net?key=1", "problem", "not a URL that the SDK takes"),
        ("https://api5.optimove.net:x", "problem", "not a URL that the SDK takes"),
        ("http://api5.optimove.net", "problem", "in clear"),
        ("https://apiX.optimove.net", "problem", "not a URL that the SDK takes"),
        ("https://api.optimove.com", "problem", "illustration"),
        ("https://gateway.example.com", "warning", "apiX.optimove.net"),
        ("https://api5.optimove.net/current", "warning", "/current"),
        ("https://api5.optimove.net/General", "problem", "twice"),
        ("https://api5.optimove.net/conditional-execution/v2", "problem", "twice"),
        ("https://api5.optimove.net/eu", "warning", "/eu"),
    ],
)
def test_the_url(url: str | None, state: str, said: str) -> None:
    check = url_check({} if url is None else {"OPTIMOVE_BASE_URL": url})
    assert check.state == state
    assert said in check.finding
    assert bool(check.remedy) == (state != "ok")


def test_a_url_with_a_password_is_not_shown() -> None:
    environment = {"OPTIMOVE_BASE_URL": f"https://me:{LONG}@api5.optimove.net"}
    check = url_check(environment)
    assert check.state == "problem"
    assert LONG not in check.finding + check.remedy
    assert usable_url(environment) is None


def test_the_older_prefix_belongs_into_endpoints() -> None:
    check = url_check({"OPTIMOVE_BASE_URL": "https://api5.optimove.net/current"})
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
        ({"": f"{LONG}\u200b"}, "problem", "nobody sees"),
        ({"": f"OPTIMOVE_WEBHOOK_SECRET={LONG}"}, "problem", "name of a variable"),
        ({"": f"{LONG},{LONG}-2"}, "warning", "comma"),
        ({"": "fifteen-letters"}, "warning", "less than 16"),
        ({"": LONG, "_2": LONG}, "warning", "the same as"),
        ({"": LONG, "_OLD": LONG}, "warning", "OPTIMOVE_WEBHOOK_SECRET_OLD is not read"),
        ({"": LONG, "_1": LONG}, "warning", "OPTIMOVE_WEBHOOK_SECRET_1 is not read"),
    ],
)
def test_secrets(secrets: dict[str, str], state: str, said: str) -> None:
    check = secret_check({f"OPTIMOVE_WEBHOOK_SECRET{suffix}": secret for suffix, secret in secrets.items()})
    assert check.state == state
    assert said in check.finding
    assert bool(check.remedy) == (state != "ok")
    assert not any(secret.strip() and secret.strip() in check.finding + check.remedy for secret in secrets.values())


# ---- the time zone

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


def zone(name: str | None, *, is_needed: bool = False) -> Check:
    return timezone_check({} if name is None else {"OPTIMOVE_TIMEZONE": name}, now=NOON, is_needed=is_needed)


def test_a_known_zone_tells_its_time() -> None:
    assert zone("Europe/London") == Check(
        "timezone", "ok", "OPTIMOVE_TIMEZONE is Europe/London, where it is 13:00 now."
    )


@pytest.mark.parametrize("name", [None, ""])
def test_no_zone_is_a_problem_only_with_scheduled_campaigns(name: str | None) -> None:
    assert zone(name).state == "warning"
    assert zone(name, is_needed=True).state == "problem"


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
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    check = zone("Europe/London")
    assert check.state == "problem"
    assert "pip install tzdata" in check.remedy


# ---- the token


def listeners(*urls: str, event_type: int = 5) -> list[EventListener]:
    return [EventListener(event_type_id=event_type, listener_url=url) for url in urls]


@pytest.mark.parametrize(
    ("token", "urls", "state", "said"),
    [
        (None, (), "not checked", "is not set"),
        (None, ("https://a.test/x?token=t",), "warning", "cannot be compared"),
        (None, ("https://a.test/x",), "warning", "has no ?token="),
        (LONG, (), "ok", "is set."),
        (LONG, (f"https://a.test/x?token={LONG}",), "ok", "the registered URL has it"),
        (LONG, (f"https://a.test/x/{LONG}",), "ok", "the registered URL has it"),
        (LONG, (f"https%3A%2F%2Fa.test%2Fx%3Ftoken%3D{LONG}",), "ok", "the registered URL has it"),
        (LONG, ("https://a.test/x?token=another",), "problem", "401"),
        (LONG, ("https://a.test/x",), "problem", "401"),
        (LONG, (f"https://a.test/x?token={LONG}", "https://a.test/y"), "problem", "401"),
        ("", (), "problem", "empty, blank"),
        (f"{LONG}\n", (), "problem", "line break"),
        (f'"{LONG}"', (), "problem", "quotation mark"),
        ("short", ("https://a.test/x?token=short",), "warning", "less than 16"),
    ],
)
def test_the_token(token: str | None, urls: tuple[str, ...], state: str, said: str) -> None:
    environment = {} if token is None else {"OPTIMOVE_LISTENER_TOKEN": token}
    check = token_check(environment, listeners(*urls))
    assert check.state == state
    assert said in check.finding
    assert bool(check.remedy) == (state != "ok")
    assert LONG not in check.finding + check.remedy


def test_listeners_of_other_events_have_tokens_of_their_own() -> None:
    others = listeners("https://a.test/sent", event_type=13)
    assert token_check({"OPTIMOVE_LISTENER_TOKEN": LONG}, others).state == "ok"


@pytest.mark.parametrize(
    ("url", "closed"),
    [
        ("https://a.test/x", "https://a.test/x"),
        (f"https://a.test/x?token={LONG}", "https://a.test/x"),
        (f"https://a.test/x?brand=b&token={LONG}", "https://a.test/x?brand=b"),
        (f"https://a.test/x/{LONG}", "https://a.test/x/no-token"),
        (f"https://a.test/x/{LONG}/", "https://a.test/x/no-token"),
    ],
)
def test_a_url_without_its_token(url: str, closed: str) -> None:
    assert closed_url(url, {"OPTIMOVE_LISTENER_TOKEN": LONG}) == closed


# ---- versions


def test_versions_name_what_counts() -> None:
    check = versions_check((3, 51, 3))
    assert check.state == "ok"
    for name in ("Python 3.", "SDK ", "httpx ", "pydantic ", "aiohttp ", "SQLite 3.51.3."):
        assert name in check.finding


def test_an_sqlite_with_a_fault_is_told_of() -> None:
    assert versions_check((3, 45, 1)).state == "ok"
    assert "rare fault" in versions_check((3, 45, 1)).finding
    check = versions_check((3, 7, 17))
    assert check.state == "warning"
    assert "3.24.0" in check.remedy
