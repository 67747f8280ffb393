"""Checks of a webhook: one result for each post, with the cause and the remedy of an error."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal, final

from .plan import FaultKind, PlannedNotification
from .reply import Reply

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
        waited = f" in {reply.seconds:.1f} s" if reply.failure == "timeout" else ""
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
