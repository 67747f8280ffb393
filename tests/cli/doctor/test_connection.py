"""The way to a server, over real sockets: certificates, refusals, silence, proxies; and its clock."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from optimove_conditional_execution import Request, Response
from optimove_conditional_execution.cli.doctor.connection import Answer
from optimove_conditional_execution.cli.doctor.tenant import budget_check, clock_check
from tests.cli.doctor.outside import Check, examined
from tests.cli.doctor.servers import answering, closed_port, hanging_up, silent

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
PATIENCE = 20.0


def nothing(_: Request) -> Response:
    return Response(200, {}, b"[]")


def checked(url: str, *, seconds: float = PATIENCE, proxy: str = "") -> dict[str, Check]:
    checks = examined(url, seconds=seconds, variables={"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy} if proxy else {})
    return {name: checks[name] for name in ("name", "connection", "tls")}


def states(checks: dict[str, Check]) -> dict[str, str]:
    return {name: check.state for name, check in checks.items()}


# ---- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


@pytest.mark.usefixtures("trusted")
def test_a_good_certificate(authority: trustme.CA) -> None:
    with answering(nothing, certificate=authority.issue_cert("127.0.0.1")) as server:
        assert states(checked(server.url)) == {"name": "ok", "connection": "ok", "tls": "ok"}


def test_an_unknown_authority_is_told_how_to_add_it(authority: trustme.CA) -> None:
    with answering(nothing, certificate=authority.issue_cert("127.0.0.1")) as server:
        checks = checked(server.url)
    assert states(checks) == {"name": "ok", "connection": "ok", "tls": "problem"}
    assert "authority that this machine does not know" in checks["tls"].finding
    assert "SSL_CERT_FILE" in checks["tls"].remedy


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("names", "dates", "said"),
    [
        (["other.test"], {}, "another host"),
        (["127.0.0.1"], {"not_before": NOW - 3 * DAY, "not_after": NOW - DAY}, "has expired"),
        (["127.0.0.1"], {"not_before": NOW + DAY, "not_after": NOW + 3 * DAY}, "not valid yet"),
    ],
)
def test_a_bad_certificate_is_named(authority: trustme.CA, names: list[str], dates: dict[str, Any], said: str) -> None:
    with answering(nothing, certificate=authority.issue_cert(*names, **dates)) as server:
        checks = checked(server.url)
    assert states(checks) == {"name": "ok", "connection": "ok", "tls": "problem"}
    assert said in checks["tls"].finding
    assert checks["tls"].remedy


def test_plain_http_on_a_port_that_was_meant_for_tls() -> None:
    with answering(nothing) as server:
        checks = checked(server.url.replace("http:", "https:"))
    assert checks["tls"].state == "problem"
    assert "does not speak TLS" in checks["tls"].finding


# ---- connections


def test_plain_http_on_loopback_needs_no_tls() -> None:
    with answering(nothing) as server:
        assert states(checked(server.url)) == {"name": "ok", "connection": "ok", "tls": "ok"}


def test_a_refused_connection() -> None:
    checks = checked(f"https://127.0.0.1:{closed_port()}")
    assert states(checks) == {"name": "ok", "connection": "problem", "tls": "not checked"}
    assert "refuses connections" in checks["connection"].finding


@contextlib.contextmanager
def silent_http() -> Iterator[str]:
    with silent() as port:
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def silent_https() -> Iterator[str]:
    with silent() as port:
        yield f"https://127.0.0.1:{port}"


@contextlib.contextmanager
def ending() -> Iterator[str]:
    with hanging_up() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("server", "seconds", "said"),
    [
        (silent_http, 0.3, "did not answer within 0.3 s"),
        (silent_https, 0.3, "takes no connection within 0.3 s"),
        (ending, PATIENCE, "without an answer"),
    ],
)
def test_silence(server: Callable[[], contextlib.AbstractContextManager[str]], seconds: float, said: str) -> None:
    with server() as url:
        checks = checked(url, seconds=seconds)
    assert (checks["name"].state, checks["connection"].state) == ("ok", "problem")
    assert said in checks["connection"].finding
    assert checks["connection"].remedy


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (socket.EAI_NONAME, "could not be looked up (the system's words)"),
        (socket.EAI_AGAIN, "could not be looked up (the system's words)"),
    ],
)
def test_a_name_without_an_address(number: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: object) -> None:
        raise socket.gaierror(number, "the system's words")

    # The resolver of the machine that runs this may be somebody's that answers everything.
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    checks = checked("https://api5.optimove.invalid")
    assert states(checks) == {"name": "problem", "connection": "not checked", "tls": "not checked"}
    assert said in checks["name"].finding


# ---- proxies


def test_a_proxy_that_refuses_connections() -> None:
    port = closed_port()
    checks = checked("https://api5.optimove.net", proxy=f"http://me:private@127.0.0.1:{port}")
    assert states(checks) == {"name": "not checked", "connection": "problem", "tls": "not checked"}
    assert f"the proxy 127.0.0.1:{port} does not reach" in checks["connection"].finding
    assert "HTTPS_PROXY" in checks["connection"].remedy
    assert "private" not in repr(checks)


def test_a_proxy_that_says_no() -> None:
    with answering(lambda _: Response(407)) as server:
        checks = checked("https://api5.optimove.net", proxy=server.url)
    assert checks["connection"].state == "problem"
    assert "407" in checks["connection"].finding


def test_a_proxy_that_works_is_named() -> None:
    with answering(nothing) as server:
        checks = checked("http://optimove.test", proxy=server.url)
    assert checks["connection"].state == "ok"
    assert f"through the proxy {server.url.partition('//')[2]}" in checks["connection"].finding
    assert all(request.path.startswith("http://optimove.test/") for request in server.requests)


# ---- the clock


def clock(*, off: float | None, headers: dict[str, str] | None = None) -> Check:
    """Return the check against a server whose clock is ahead by so many seconds."""
    with answering(lambda _: Response(200, headers or {}, b"[]"), clock_off=off) as server:
        return examined(server.url)["clock"]


@pytest.mark.parametrize(
    ("off", "said"), [(-5.0, "fast by about"), (5.0, "slow by about"), (3650.0, "slow by about 36")]
)
def test_a_wrong_clock(off: float, said: str) -> None:
    check = clock(off=off)
    assert check.state == "warning"
    assert said in check.finding
    assert "NTP" in check.remedy
    assert "ClearanceRequiredBy" in check.remedy


def test_a_right_clock() -> None:
    assert clock(off=0.0).state == "ok"


@pytest.mark.parametrize(("off", "headers"), [(None, {}), (None, {"date": "yesterday"}), (9.0, {"age": "9"})])
def test_a_server_that_does_not_tell_the_time(off: float | None, headers: dict[str, str]) -> None:
    assert clock(off=off, headers=headers).state == "not checked"


@pytest.mark.parametrize(
    ("ahead", "seconds", "state"),
    [
        (0.0, 0.0, "ok"),
        (1.0, 0.1, "ok"),
        (-1.0, 0.1, "ok"),
        (3.1, 0.1, "warning"),
        (-3.1, 0.1, "warning"),
        # An answer that took ten seconds may have been stamped in any of them.
        (-4.0, 10.0, "ok"),
    ],
)
def test_the_round_trip_is_taken_into_account(ahead: float, seconds: float, state: str) -> None:
    stamped = 1_800_000_000
    answer = Answer(
        Response(200, {"Date": dt.datetime.fromtimestamp(stamped, dt.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")}),
        sent_at=stamped + 0.5 + ahead,
        seconds=seconds,
    )
    assert clock_check([answer]).state == state


# ---- the budget


@pytest.mark.parametrize(
    ("seconds", "timeout_ms", "state", "said"),
    [
        ([], 5_000, "not checked", "No round trip"),
        ([0.010, 0.020], 5_000, "ok", "keeps 50 ms to deliver its answer; 4950 ms are left"),
        ([0.400, 0.400], 5_000, "ok", "keeps 600 ms to deliver its answer; 4400 ms are left"),
        ([2.000] + [0.010] * 4, 5_000, "ok", "keeps 500 ms to deliver its answer"),
        ([0.400, 0.400], 1_800, "ok", "1200 ms are left"),
        ([0.400, 0.400], 1_000, "warning", "keeps 333 ms to deliver its answer; 667 ms are left"),
        ([2.0, 2.0], 1_000, "warning", "Delivery would need 3000 ms"),
    ],
)
def test_the_budget(seconds: list[float], timeout_ms: int, state: str, said: str) -> None:
    check = budget_check(seconds, timeout_ms=timeout_ms)
    assert check.state == state
    assert said in check.finding


def test_the_budget_says_when_another_replica_can_take_over() -> None:
    finding = budget_check([0.02], timeout_ms=5_000).finding
    assert "If it takes at most 2058 ms, another replica can take over" in finding
    assert "2 x handler + lease + reserve fit." in finding


def test_the_budget_says_which_timeout_would_do() -> None:
    assert "settings set --timeout-ms 1800" in budget_check([0.4, 0.4], timeout_ms=1_000).remedy
    assert budget_check([0.4, 0.4], timeout_ms=1_800).state == "ok"
