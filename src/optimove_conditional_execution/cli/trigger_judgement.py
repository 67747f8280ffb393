"""Whether an unknown webhook did right: each post gets a verdict, and what is wrong becomes a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal, final

from optimove_conditional_execution.cli.replies import Reply, remedy
from optimove_conditional_execution.cli.trigger_plan import FaultKind, Planned

VerdictKind = Literal["approved", "denied", "abstained", "refused", "left alone", "unchanged", "wrong"]
"""The first three: a good one was decided. `refused`: a forged or oversized one. `left alone`: a late one.
`unchanged`: a repeat. `wrong`: something else than should be."""

EXPECTED: Final[dict[FaultKind, VerdictKind]] = {
    "duplicate": "unchanged",
    "late": "left alone",
    "forged": "refused",
    "oversize": "refused",
}
"""What a fault must come to."""


@final
@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one notification.

    Attributes:
        planned: What it was.
        request_uid: Its name.
        replies: What the webhook answered over HTTP, a repeat's answer last.
        answer: Whether Optimove was told "approved"; None when no answer came in time.
        ignored: What later and late answers said.
        latency_ms: Milliseconds from notification to answer; None without one in time.
        deadline_ms: Milliseconds that the answer might take.
        over: Whether nothing more is waited for.
    """

    planned: Planned
    request_uid: str
    replies: tuple[Reply, ...]
    answer: bool | None = None
    ignored: tuple[bool, ...] = ()
    latency_ms: int | None = None
    deadline_ms: int = 5_000
    over: bool = True

    @property
    def said(self) -> str:
        """What Optimove was told, in time or not, in a word; empty when it was told nothing."""
        told = self.answer if self.answer is not None or not self.ignored else self.ignored[0]
        return "" if told is None else _word(told)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of `--json`."""
        first, *repeat = judge(self)
        return {
            "event": "result",
            "request_uid": self.request_uid,
            "user_id": self.planned.user_id,
            "fault": self.planned.fault,
            "result": first.kind,
            "repeat": repeat[0].kind if repeat else None,
            "statuses": [reply.status for reply in self.replies],
            "failures": [reply.failure for reply in self.replies],
            "latency_ms": self.latency_ms,
            "deadline_ms": self.deadline_ms,
            "findings": [verdict.sentence for verdict in (first, *repeat) if verdict.sentence is not None],
        }

    def __str__(self) -> str:
        """Return it as a line."""
        statuses = ", ".join(str(reply) for reply in self.replies)
        kinds = ", ".join(verdict.kind for verdict in judge(self))
        against = "" if self.latency_ms is None else f"{self.latency_ms} of {self.deadline_ms} ms"
        fault = self.planned.fault or ""
        return f"{self.planned.user_id:<14} {fault:<10} HTTP {statuses:<9} {kinds:<20} {against}".rstrip()


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one post.

    Attributes:
        kind: What.
        finding: What is wrong with it, as half a sentence about the notification; None when nothing is.
        why: The cause and what to do, as the other half; empty when nothing more is known.
    """

    kind: VerdictKind
    finding: str | None = None
    why: str = ""

    @property
    def sentence(self) -> str | None:
        """Both halves; None when nothing is wrong."""
        return f"{self.finding}: {self.why}" if self.finding and self.why else self.finding


def judge(seen: Seen) -> list[Verdict]:
    """Return a verdict for each post of a notification: two for a duplicate, one for every other.

    Args:
        seen: What was seen of it, when it was over.
    """
    first = seen.replies[0]
    match seen.planned.fault:
        case "forged":
            return [_refused(seen, first, HTTPStatus.UNAUTHORIZED, f"had {seen.planned.forgery}")]
        case "oversize":
            return [_refused(seen, first, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "had more than 262,144 bytes")]
        case "late":
            return [_late(seen, first)]
        case "duplicate":
            return [_good(seen, first), *(_repeat(seen, first, reply) for reply in seen.replies[1:])]
        case _:
            return [_good(seen, first)]


def _refused(seen: Seen, reply: Reply, wanted: HTTPStatus, what: str) -> Verdict:
    if seen.said:
        advice = (
            "verify the signature over the raw body before anything else"
            if seen.planned.fault == "forged"
            else "bound the body before it is read"
        )
        return _wrong(f"{what}, and was {seen.said} all the same", advice)
    # A server may end the connection while the body is still on its way; then its answer can get lost.
    if reply.status == wanted or (seen.planned.fault == "oversize" and reply.failure == "broken"):
        return Verdict("refused")
    if reply.status is None or reply.is_redirect:
        return _wrong(f"{what}, and {_answered(reply)} instead of {wanted.value}", remedy(reply))
    return _wrong(f"{what}, and {_answered(reply)} instead of {wanted.value}")


def _late(seen: Seen, reply: Reply) -> Verdict:
    if seen.said:
        return _wrong(
            f"came after its deadline, and was {seen.said} in vain",
            "leave alone what its two time stamps, both of them Optimove's, show to be past its deadline",
        )
    if reply.status is None or reply.is_redirect or reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _wrong(f"came after its deadline, and {_answered(reply)}", remedy(reply))
    return Verdict("left alone")


def _good(seen: Seen, reply: Reply) -> Verdict:
    although = f", although it was {seen.said}" if seen.said else ""
    if reply.status is None:
        waited = f" in {reply.seconds:.1f} s" if reply.failure == "timeout" else ""
        return _wrong(f"got no HTTP answer{waited} ({reply}){although}", remedy(reply))
    if reply.status != HTTPStatus.OK:
        return _wrong(f"{_answered(reply)} instead of 200{although}", remedy(reply))
    if seen.answer is None and seen.ignored:
        return _wrong(f"was {seen.said} after its deadline, in vain", "decide sooner, or abstain when time is up")
    if seen.planned.fault != "duplicate" and (not seen.answer) in seen.ignored:
        return _wrong(f"was {seen.said} first and {_word(not seen.answer)} then; Optimove keeps the first answer")
    if reply.seconds * 1000 > seen.deadline_ms:
        return _wrong(f"got its HTTP answer after {reply.seconds:.1f} s, past its deadline{although}")
    if reply.is_html and seen.answer is None:
        return _wrong("was answered with HTML", remedy(reply))
    if seen.answer is None:
        return Verdict("abstained")
    return Verdict("approved" if seen.answer else "denied")


def _repeat(seen: Seen, first: Reply, reply: Reply) -> Verdict:
    keep = "keep by its request_uid what was answered"
    if seen.answer is not None and (not seen.answer) in seen.ignored:
        return _wrong(f"was {seen.said} first, and {_word(not seen.answer)} when it came again", keep)
    if seen.answer is not None and seen.ignored:
        return _wrong(f"was {seen.said} once more when it came again", keep)
    if str(reply) != str(first):
        return _wrong(f"got {first} over HTTP first, and {reply} when it came again", keep)
    return Verdict("unchanged")


def _wrong(finding: str, why: str = "") -> Verdict:
    return Verdict("wrong", finding, why)


def _word(approved: bool) -> str:
    return "approved" if approved else "denied"


def _answered(reply: Reply) -> str:
    return f"got no HTTP answer ({reply})" if reply.status is None else f"got {reply.status} over HTTP"
