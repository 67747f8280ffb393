"""What a service answered over HTTP, and the checks of a webhook: a result for each post, with cause and remedy."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal, final
from urllib.parse import urlsplit

from pydantic import Secret

from ..deadline import Deadline
from ..errors import DeadlineExceeded, TransportError
from ..testing import Delivery
from ..transport.engine import OutgoingRequest
from ..transport.http import AsyncHttpEngine
from ..urls import origin
from .plan import FaultKind, PlannedNotification

Failure = Literal["refused", "timeout", "unknown-host", "tls", "broken"]
"""Nothing listens; no answer in time; unknown host name; no TLS; the connection ended before the answer."""

_GRACE_SECONDS: Final = 5.0
"""How long after a notification's deadline its webhook may still answer over HTTP."""

_FAILURES: Final[dict[str, tuple[Failure, str]]] = {
    "refused": ("refused", "nothing listens at {origin}: start the service there, or correct the URL"),
    "dns": ("unknown-host", "no machine is called {host}: correct the URL"),
    "tls": ("tls", "{origin} does not speak TLS as it should: check whether the URL begins with http or https"),
    "timeout": (
        "timeout",
        "the handler hangs or blocks its event loop: give what it waits for a timeout before the deadline",
    ),
    "": ("broken", "the connection ended: what listens at {origin} crashed, or does not speak HTTP"),
}
"""Failure and remedy, by the cause of a `TransportError` or a `DeadlineExceeded`; "" stands for all others."""

_REMEDIES: Final[dict[int, str]] = {
    400: "it cannot read the notification: let it parse the raw body, as a receiver of the SDK does",
    401: "the signature does not fit: OPTIMOVE_WEBHOOK_SECRET of the service is another one, it signs something else "
    "than the raw body, or something in between changes the body",
    403: "something in front of the handler refuses it, such as protection against CSRF or a login: exempt the route",
    404: "there is no such route: compare the path of the URL with the routes of the service",
    405: "the route does not take POST: add it with methods=['POST']",
    413: "it takes no body of this size: raise the limit",
    415: "the framework refuses the body: take the raw body instead of a parsed one",
    422: "the framework parses the body before the handler: take the raw body instead, as ASGIApp does",
    500: "the handler or what is around it raised: its traceback is in the log of the service",
    502: "a proxy stands in front of the service and cannot reach it",
    503: "it is overloaded, its claim store is away, or its answer did not get through: check OPTIMOVE_BASE_URL and "
    "OPTIMOVE_API_KEY of the service",
    504: "a proxy stands in front of the service, and has given it up",
}


@final
@dataclass(frozen=True, slots=True)
class Reply:
    """The result of one POST.

    Attributes:
        url: The URL; its query can hold a token.
        seconds: How long the answer took, or the wait for it.
        status: The HTTP status; None when no answer came.
        failure: Why no answer came; None when one did.
        location: The target of a redirect, without query.
        is_html: Whether the body is a page for people.
    """

    url: str = field(repr=False)
    seconds: float
    status: int | None = None
    failure: Failure | None = None
    location: str = ""
    is_html: bool = False

    @property
    def is_success(self) -> bool:
        """Whether the status is a 2xx."""
        return self.status is not None and self.status // 100 == 2

    @property
    def is_redirect(self) -> bool:
        """Whether the status is a redirect."""
        return self.status is not None and self.status // 100 == 3

    @property
    def remedy(self) -> str:
        """The probable cause and what to do, as half a sentence; empty for a good answer and for a rare one.

        It holds for the answer to a notification with a right signature.
        """
        if self.status is None:
            remedy = dict(_FAILURES.values())[self.failure or "broken"]
            return remedy.format(origin=origin(self.url), host=urlsplit(self.url).hostname)
        if self.is_redirect:
            to = f" to {self.location}" if self.location else ""
            return (
                f"it redirects{to}, and Optimove is not known to follow: a mounted app does that; add it as a route, "
                "such as Route('/optimove', ASGIApp(receiver), methods=['POST']), or use the URL that it redirects to"
            )
        if self.status == HTTPStatus.OK:
            return "that is a web page, not a webhook: correct the URL" if self.is_html else ""
        return _REMEDIES.get(self.status, "the handler failed" if self.status > 500 else "")

    def __str__(self) -> str:
        """Return the status, or the failure."""
        return str(self.status or self.failure)


async def post(engine: AsyncHttpEngine, delivery: Delivery, *, timeout_ms: int) -> Reply:
    """Post a notification or an event.

    Args:
        engine: Sends the request; of the event loop that also serves the simulator.
        delivery: The request and its URL.
        timeout_ms: Milliseconds until its deadline; the answer may come five seconds later.
    """
    start = time.monotonic()
    seconds = max(0, timeout_ms) / 1000 + _GRACE_SECONDS
    request = delivery.request
    outgoing = OutgoingRequest(
        request.method, delivery.url, Secret(dict(request.headers)), request.body, Deadline.after(seconds), seconds
    )
    try:
        response = await engine.send(outgoing)
    except (TransportError, DeadlineExceeded) as error:
        failure, _ = _FAILURES.get(error.cause, _FAILURES[""])
        return Reply(delivery.url, time.monotonic() - start, failure=failure)
    location = response.headers.get("location", "").partition("?")[0]
    taken = time.monotonic() - start
    return Reply(delivery.url, taken, status=response.status, location=location, is_html=response.is_html)


# ---- checks

CheckKind = Literal["approved", "denied", "abstained", "refused", "left alone", "unchanged", "wrong"]
"""The first three: a good one was decided. `refused`: a forged or oversized one. `left alone`: a late one.
`unchanged`: a repeat. `wrong`: not the right result."""

EXPECTED: Final[dict[FaultKind, CheckKind]] = {
    "duplicate": "unchanged",
    "late": "left alone",
    "forged": "refused",
    "oversize": "refused",
}
"""The right result of a fault."""

WRONGLY_APPROVED: Final = "a condition of the rule is true where it must not be, such as a coroutine without its await"
WRONGLY_DENIED: Final = "compare what was sent about the customer with what the rule reads"
UNDECIDED_REMEDY: Final = "the handler abstained, raised or was too slow, which the log of the service shows"


@final
@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one post.

    Attributes:
        kind: The result.
        finding: The error, as half a sentence about the notification; empty for none.
        remedy: The cause and what to do, as the other half; empty when nothing more is known.
    """

    kind: CheckKind
    finding: str = ""
    remedy: str = ""

    @property
    def sentence(self) -> str:
        """Both halves; empty when nothing is wrong."""
        return f"{self.finding}: {self.remedy}" if self.remedy else self.finding


@final
@dataclass(frozen=True, slots=True)
class Observation:
    """What was observed of one notification.

    Attributes:
        planned: The planned notification.
        request_uid: Its `request_uid`.
        replies: What the webhook answered over HTTP, a repeat's answer last.
        answer: Whether the answer to Optimove was "approved"; None when no answer came in time.
        ignored: What later and late answers said.
        latency_ms: Milliseconds from notification to answer; None without one in time.
        deadline_ms: Milliseconds that the answer might take.
        over: Whether nothing more is expected.
    """

    planned: PlannedNotification
    request_uid: str
    replies: tuple[Reply, ...]
    answer: bool | None = None
    ignored: tuple[bool, ...] = ()
    latency_ms: int | None = None
    deadline_ms: int = 5_000
    over: bool = True

    @property
    def said(self) -> str:
        """The answer to Optimove, in time or not, as a word; empty without one."""
        told = self.answer if self.answer is not None or not self.ignored else self.ignored[0]
        return "" if told is None else _word(told)

    @property
    def is_late(self) -> bool:
        """Whether a good notification was only answered after its deadline."""
        return self.planned.must_be_decided and self.answer is None and bool(self.ignored)

    @property
    def answered(self) -> Literal["approved", "denied", "late", "unanswered"]:
        """How it was answered, right or wrong; `late` for after the deadline only."""
        if self.answer is None:
            return "late" if self.ignored else "unanswered"
        return "approved" if self.answer else "denied"

    def checks(self) -> list[CheckResult]:
        """Return a result for each post: two for a duplicate, one for every other. It must be `over`."""
        first, *repeats = self.replies
        match self.planned.fault:
            case "forged":
                forgery = self.planned.forgery or "a wrong signature"
                return [_refused(self, first, HTTPStatus.UNAUTHORIZED, f"had {forgery}")]
            case "oversize":
                return [_refused(self, first, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "had more than 262,144 bytes")]
            case "late":
                return [_late(self, first)]
            case _:
                return [_good(self, first), *(_repeat(self, first, reply) for reply in repeats)]

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of `trigger --json`."""
        checks = self.checks()
        return {
            **self.as_plain_json(),
            "fault": self.planned.fault,
            "expected": self.planned.expected,
            "result": checks[0].kind,
            "repeat": checks[1].kind if checks[1:] else None,
            "findings": [check.sentence for check in checks if check.finding],
        }

    def as_plain_json(self) -> dict[str, Any]:
        """Return the JSON object of `simulate --json`, without a check."""
        return {
            "event": "result",
            "request_uid": self.request_uid,
            "user_id": self.planned.user_id,
            "result": self.answered,
            "statuses": [reply.status for reply in self.replies],
            "failures": [reply.failure for reply in self.replies],
            "latency_ms": self.latency_ms,
            "deadline_ms": self.deadline_ms,
        }


def _refused(seen: Observation, reply: Reply, wanted: HTTPStatus, what: str) -> CheckResult:
    if seen.said:
        advice = (
            "verify the signature over the raw body before anything else"
            if seen.planned.fault == "forged"
            else "limit the body before it is read"
        )
        return _wrong(f"{what}, and was {seen.said} nevertheless", advice)
    # A server may end the connection before it has read the body; then its answer can get lost.
    if reply.status == wanted or (seen.planned.fault == "oversize" and reply.failure == "broken"):
        return CheckResult("refused")
    remedy = reply.remedy if reply.status is None or reply.is_redirect else ""
    return _wrong(f"{what}, and {_answered(reply)} instead of {wanted.value}", remedy)


def _late(seen: Observation, reply: Reply) -> CheckResult:
    if seen.said:
        return _wrong(
            f"came after its deadline, and was {seen.said}, too late to count",
            "do not answer when the notification's own two time stamps show that its deadline has passed",
        )
    if reply.status is None or reply.is_redirect or reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _wrong(f"came after its deadline, and {_answered(reply)}", reply.remedy)
    return CheckResult("left alone")


def _good(seen: Observation, reply: Reply) -> CheckResult:
    expected = seen.planned.expected
    although = f", although it was {seen.said}" if seen.said else ""
    if seen.answer and expected in ("denied", "abstained", "not approved"):
        return _wrong("was approved, which must never happen", WRONGLY_APPROVED)
    if reply.status is None:
        # What it was given, which is the same for all posts; what the wait took differs by some milliseconds.
        given = seen.deadline_ms / 1000 + _GRACE_SECONDS
        waited = f" in {given:.1f} s" if reply.failure == "timeout" else ""
        return _wrong(f"got no HTTP answer{waited} ({reply}){although}", reply.remedy)
    if reply.status != HTTPStatus.OK:
        return _wrong(f"{_answered(reply)} instead of 200{although}", reply.remedy)
    if seen.is_late:
        return _wrong(
            f"was {seen.said} after its deadline, too late to count", "decide sooner, or abstain when time is up"
        )
    if seen.planned.fault != "duplicate" and (not seen.answer) in seen.ignored:
        return _wrong(f"was {seen.said} first and {_word(not seen.answer)} then; Optimove keeps the first answer")
    if reply.seconds * 1000 > seen.deadline_ms:
        return _wrong(f"got its HTTP answer after {reply.seconds:.1f} s, past its deadline{although}")
    if reply.is_html and seen.answer is None:
        return _wrong("was answered with HTML", reply.remedy)
    if expected in ("approved", "denied") and seen.said != expected:
        if not seen.said:
            return _wrong(f"should have been {expected}, and no answer came", UNDECIDED_REMEDY)
        return _wrong(f"should have been {expected}, and was {seen.said}", WRONGLY_DENIED)
    if expected == "abstained" and seen.said:
        return _wrong(f"should have been left undecided, and was {seen.said}", WRONGLY_DENIED)
    if seen.answer is None:
        return CheckResult("abstained")
    return CheckResult("approved" if seen.answer else "denied")


def _repeat(seen: Observation, first: Reply, reply: Reply) -> CheckResult:
    keep = "store the answer by its request_uid"
    if seen.answer is not None and (not seen.answer) in seen.ignored:
        return _wrong(f"was {seen.said} first, and {_word(not seen.answer)} when it came again", keep)
    if seen.answer is not None and seen.ignored:
        return _wrong(f"was {seen.said} once more when it came again", keep)
    if str(reply) != str(first):
        return _wrong(f"got {first} over HTTP first, and {reply} when it came again", keep)
    return CheckResult("unchanged")


def _wrong(finding: str, remedy: str = "") -> CheckResult:
    return CheckResult("wrong", finding, remedy)


def _word(approved: bool) -> str:
    return "approved" if approved else "denied"


def _answered(reply: Reply) -> str:
    return f"got no HTTP answer ({reply})" if reply.status is None else f"got {reply.status} over HTTP"
