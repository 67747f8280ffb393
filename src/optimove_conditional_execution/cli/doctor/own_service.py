"""The engineer's own service: reachable, and closed to whoever is not Optimove."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, final
from urllib.parse import urljoin, urlsplit

from optimove_conditional_execution._version import __version__
from optimove_conditional_execution.cli.doctor.check import Check, Issue, judged
from optimove_conditional_execution.cli.doctor.connection import trouble
from optimove_conditional_execution.cli.doctor.probe import Answer, Probe, Silence, proxy_for
from optimove_conditional_execution.cli.doctor.registered import address_issues
from optimove_conditional_execution.cli.tenant import shown_url

_BODY: Final = b"{}"
"""Neither a notification nor an event: what reads it cannot act on it."""

_HEADERS: Final = {
    "Content-Type": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": f"optimove-conditional-execution/{__version__} doctor",
}

_READ_BEFORE: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})


@final
@dataclass(frozen=True, slots=True)
class Door:
    """One of the service's two URLs.

    Attributes:
        name: The check's name.
        what: What Optimove posts there.
        proof: What a genuine one has.
        close: How to demand it.
    """

    name: str
    what: str
    proof: str
    close: str


WEBHOOK: Final = Door(
    "own-webhook",
    "notifications",
    "a signature",
    "Pass secrets= to the receiver, not UNSIGNED, and let it read the request before anything else does.",
)
LISTENER: Final = Door(
    "own-listener",
    "events",
    "the token",
    "Pass token= to the receiver, not UNSIGNED, and let it read the request before anything else does.",
)


def door_check(probe: Probe, door: Door, url: str, *, is_rehearsal: bool) -> Check:
    """Knock without proof, and look: a POST must get 401, a GET 405.

    Args:
        probe: Asks.
        door: Which of the two it is.
        url: The URL, without a token.
        is_rehearsal: Whether Optimove is a stand-in on this machine.
    """
    posted = probe.ask("POST", url, _HEADERS, _BODY)
    got = probe.ask("GET", url, _HEADERS) if isinstance(posted, Answer) else posted
    issues = [
        *_answer_issues(door, url, posted, got, probe.seconds),
        *address_issues(url, shown_url(url, full=False), is_rehearsal=is_rehearsal),
    ]
    return judged(
        door.name, f"It can be reached from here, and refuses {door.what} without {door.proof} (401).", issues
    )


def _answer_issues(
    door: Door, url: str, posted: Answer | Silence, got: Answer | Silence, seconds: float
) -> Iterator[Issue]:
    if isinstance(posted, Silence):
        finding, remedy = trouble(url, posted, proxy=proxy_for(url), seconds=seconds, is_own=True)
        yield Issue("problem", finding, remedy)
        return
    if posted.status != HTTPStatus.UNAUTHORIZED:
        yield _wrong_status(door, url, posted)
        return
    if not isinstance(got, Answer) or got.status != HTTPStatus.METHOD_NOT_ALLOWED:
        how = f"gets {got.status}" if isinstance(got, Answer) else "gets no answer"
        yield Issue(
            "warning",
            f"A GET {how} instead of 405: something before the receiver answers, or no receiver of this SDK.",
            "Give the path to the receiver alone; it answers 405 to whatever is no POST.",
        )


def _wrong_status(door: Door, url: str, answer: Answer) -> Issue:
    status = answer.status
    what = f"A POST without {door.proof} gets {status}"
    if 200 <= status < 300:
        return Issue("problem", f"{what}: forged {door.what} are accepted.", door.close)
    if 300 <= status < 400:
        return _redirect(url, answer)
    if status in _READ_BEFORE:
        return Issue(
            "problem", f"{what}: it is read although {door.proof} is missing, so forged {door.what} may be accepted.",
            door.close,
        )  # fmt: skip
    if status == HTTPStatus.FORBIDDEN:
        return Issue(
            "warning",
            f"{what}, which is not the receiver's 401: a firewall, a log-in or a CSRF check may refuse Optimove, too.",
            "Let POSTs through to the receiver. In Django use csrf_exempt.",
        )
    if status == HTTPStatus.NOT_FOUND:
        return Issue(
            "problem", f"{what}: nothing is mounted there.", "Check the path of the URL, and its slash at the end."
        )
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return Issue("problem", f"{what}: the path takes no POST.", 'Mount the receiver with methods=["POST"].')
    if status >= 500:
        return Issue("problem", f"{what}: the service, or a proxy in front of it, fails.", "See the service's log.")
    return Issue(
        "problem",
        f"{what}, which is not the receiver's 401.",
        "See what stands before the receiver: it must get the request as it came.",
    )


def _redirect(url: str, answer: Answer) -> Issue:
    what = f"A POST is redirected ({answer.status})"
    here = urlsplit(url)
    try:
        there = urlsplit(urljoin(url, answer.header("location") or ""))
    except ValueError:
        there = here
    if there.netloc == here.netloc and there.path != here.path and there.path.rstrip("/") == here.path.rstrip("/"):
        return Issue(
            "problem",
            f"{what} to the same path {'with' if there.path.endswith('/') else 'without'} a slash at the end.",
            "Register the URL that answers. With Starlette and FastAPI do not mount the receiver: "
            'app.add_route(path, ASGIApp(receiver), methods=["POST"]).',
        )
    if (here.scheme, there.scheme) == ("http", "https") and there.hostname == here.hostname:
        return Issue("problem", f"{what} to https.", "Register the https URL.")
    where = f" to {there.hostname}" if there.netloc != here.netloc and there.hostname else ""
    return Issue(
        "problem",
        f"{what}{where}, perhaps to a log-in. Optimove may not follow, or may turn it into a GET.",
        "Register the URL that answers, and let Optimove in without a log-in.",
    )
