"""Checks of your own service: reachable, and rejecting unauthenticated requests.

A separate module: all other checks are about the environment and Optimove's server.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Final, Literal
from urllib.parse import urljoin, urlsplit

from ..tenant import shown_url
from .connection import Answer, NoAnswer, Probe
from .finding import Check, Finding, check_of, ok, problem, warning
from .tenant import address_findings

_HEADERS: Final = {"Content-Type": "application/json"}
_BODY: Final = b"{}"
"""Neither a notification nor an event: what reads it cannot act on it."""

# What Optimove posts, what authenticates it, and how to require that.
_KINDS: Final = {
    "own-webhook": ("notifications", "a signature", "Pass secrets= to the receiver, not UNSIGNED"),
    "own-listener": ("events", "the token", "Pass token= to the receiver, not UNSIGNED"),
}


def own_service_check(
    probe: Probe, name: Literal["own-webhook", "own-listener"], url: str, *, is_rehearsal: bool
) -> Check:
    """Send unauthenticated requests, and check that they are rejected: a POST with 401, a GET with 405.

    Args:
        probe: Sends requests.
        name: Which of the two URLs it is.
        url: The URL, without a token.
        is_rehearsal: Whether Optimove is a simulator on this machine.
    """
    what, proof, _ = _KINDS[name]
    posted = probe.ask("POST", url, _HEADERS, _BODY)
    if isinstance(posted, NoAnswer):
        findings = [posted.finding]
    elif posted.status == HTTPStatus.UNAUTHORIZED:
        findings = list(_get_findings(probe.ask("GET", url, {})))
    else:
        findings = [_status_finding(name, url, posted)]
    findings += address_findings(url, shown_url(url, full=False), is_rehearsal=is_rehearsal)
    return check_of(name, ok(f"It can be reached from here, and refuses {what} without {proof} (401)."), *findings)


def _get_findings(got: Answer | NoAnswer) -> Iterator[Finding]:
    if isinstance(got, NoAnswer) or got.status != HTTPStatus.METHOD_NOT_ALLOWED:
        how = f"gets {got.status}" if isinstance(got, Answer) else "gets no answer"
        what = f"A GET {how} instead of 405: something before the receiver answers, or no receiver of this SDK."
        yield warning(what, "Give the path to the receiver alone; it answers 405 to every method but POST.")


def _status_finding(name: str, url: str, answer: Answer) -> Finding:
    what, proof, demand = _KINDS[name]
    found = f"A POST without {proof} gets {answer.status}"
    close = f"{demand}, and let it read the request before anything else does."
    match answer.status // 100, answer.status % 100:
        case 2, _:
            return problem(f"{found}: forged {what} are accepted.", close)
        case 3, _:
            return _redirect_finding(url, answer)
        case 4, 0 | 22:
            return problem(f"{found}: although {proof} is missing it is read, so forged {what} may be accepted.", close)
        case 4, 3:
            text = f"{found}, not the receiver's 401: a firewall, a log-in or a CSRF check may refuse Optimove, too."
            return warning(text, "Let POSTs through to the receiver. In Django use csrf_exempt.")
        case 4, 4:
            return problem(
                f"{found}: nothing is mounted there.", "Check the path of the URL, and the slash at its end."
            )
        case 4, 5:
            return problem(f"{found}: the path takes no POST.", 'Mount the receiver with methods=["POST"].')
        case 5, _:
            return problem(f"{found}: the service, or a proxy in front of it, fails.", "See the service's log.")
    remedy = "See what stands before the receiver: it must get the request as it came."
    return problem(f"{found}, which is not the receiver's 401.", remedy)


def _redirect_finding(url: str, answer: Answer) -> Finding:
    what = f"A POST is redirected ({answer.status})"
    here = urlsplit(url)
    try:
        there = urlsplit(urljoin(url, answer.response.header("location")))
    except ValueError:
        there = here
    if there.netloc == here.netloc and there.path != here.path and there.path.rstrip("/") == here.path.rstrip("/"):
        return problem(
            f"{what} to the same path {'with' if there.path.endswith('/') else 'without'} a slash at the end.",
            "Register the URL that answers. With Starlette and FastAPI do not mount the receiver: "
            'app.add_route(path, ASGIApp(receiver), methods=["POST"]).',
        )
    if (here.scheme, there.scheme) == ("http", "https") and there.hostname == here.hostname:
        return problem(f"{what} to https.", "Register the https URL.")
    where = f" to {there.hostname}" if there.netloc != here.netloc and there.hostname else ""
    text = f"{what}{where}, perhaps to a log-in. Optimove may not follow, or may turn it into a GET."
    return problem(text, "Register the URL that answers, and let Optimove in without a log-in.")
