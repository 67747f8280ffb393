"""Results of rehearsals: the numbers, and a finding for each error."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from itertools import accumulate
from typing import Any, Final, final

from ..settings import TOKEN_VARIABLE
from ..testing import Call, Campaign
from ..validation import number_of
from .checks import EXPECTED, UNDECIDED_REMEDY, WRONGLY_APPROVED, WRONGLY_DENIED, CheckResult, Observation
from .plan import FaultKind

_SHOWN: Final = 3
_FIRST_RECIPIENTS: Final = 10
_DECIDED: Final = ("approved", "denied", "abstained")
_COUNTS: Final = ("approved", "denied", "unknown", "late", "twice", "contradictions")
_WORDS: Final = {"duplicate": "changed nothing", "late": "left alone", "forged": "refused", "oversize": "refused"}
UNDECIDED_PERCENT: Final = 100 / 3
"""How many of a hundred may stay without a decision by default, of `UNDECIDED_SAMPLE` customers or more."""

UNDECIDED_SAMPLE: Final = 10

OTHER_TOKEN: Final = f"its token is not the one in the URL; set {TOKEN_VARIABLE} alike"
_REFUSALS: Final = {
    HTTPStatus.BAD_REQUEST: "the body is not the documented one, which has timestamp, request_uid and approved",
    HTTPStatus.UNAUTHORIZED: "OPTIMOVE_API_KEY of the service is another one",
    HTTPStatus.NOT_FOUND: "Optimove has no such path, or asked no such request_uid",
    HTTPStatus.METHOD_NOT_ALLOWED: "Optimove's path takes another method",
}


@final
@dataclass(frozen=True, slots=True)
class Latencies:
    """Percentiles by the nearest-rank method, so each is a latency that was measured.

    Attributes:
        p50: Milliseconds; None when there was no answer at all, as in the others.
        p95: Milliseconds.
        p99: Milliseconds.
        max: Milliseconds.
    """

    p50: int | None
    p95: int | None
    p99: int | None
    max: int | None

    @classmethod
    def of(cls, milliseconds: Iterable[int]) -> Latencies:
        """Return the percentiles of some latencies."""
        ordered = sorted(milliseconds)
        return cls(
            *(ordered[math.ceil(rank / 100 * len(ordered)) - 1] if ordered else None for rank in (50, 95, 99, 100))
        )

    def as_json(self) -> dict[str, int | None]:
        """Return them as a JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        """Return them as words."""
        if self.max is None:
            return "no answers"
        return f"p50 {self.p50} ms, p95 {self.p95} ms, p99 {self.p99} ms, max {self.max} ms"


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """An error that a rehearsal has found.

    Attributes:
        cause: The error, as a sentence without its full stop.
        remedy: Why, and what to do, as half a sentence; empty when nothing more is known.
        user_ids: The customers of the notifications that it is about; empty when it is about no single one.
    """

    cause: str
    remedy: str = ""
    user_ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it as a sentence."""
        return f"{self.cause}: {self.remedy}." if self.remedy else f"{self.cause}."


def sentences(findings: Iterable[Finding]) -> list[str]:
    """Return findings as sentences that say each remedy once."""
    said: set[str] = set()
    found = []
    for finding in findings:
        found.append(f"{finding.cause}." if finding.remedy in said else str(finding))
        said.add(finding.remedy)
    return found


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TriggeredResult:
    """The result of a triggered rehearsal.

    Each post counts once: `sent` is the sum of approved, denied, abstained, the faults with the right result, wrong and
    pending.

    Attributes:
        sent: Notifications that were posted, repeats included.
        approved: The answer to Optimove was to send.
        denied: The answer to Optimove was not to send.
        abstained: The webhook responded with 200 and sent no answer to Optimove.
        faults: How many of each fault were posted, and how many of them had the right result.
        wrong: Posts with a finding.
        late: How many of the wrong ones were answered after their deadline only.
        pending: Posts that were still waited for when the rehearsal was interrupted.
        latencies_ms: Milliseconds from notification to answer, of each good one that was answered.
        deadline_ms: Milliseconds that an answer might take.
        findings: The errors; equal ones are merged.
        hints: What may be an error, or intended.
        observations: What was observed of each notification, in the order in which they went out.
        seed: Gives the same customers and faults again.
        skew_seconds: How far Optimove's clock was ahead of ours.
    """

    sent: int
    approved: int
    denied: int
    abstained: int
    faults: Mapping[str, tuple[int, int]]
    wrong: int
    late: int = 0
    pending: int = 0
    latencies_ms: tuple[int, ...] = ()
    deadline_ms: int = 5_000
    findings: tuple[Finding, ...] = ()
    hints: tuple[str, ...] = ()
    observations: tuple[Observation, ...] = field(default=(), repr=False)
    seed: int = 0
    skew_seconds: float = 0.0

    @classmethod
    def of(
        cls,
        observations: Sequence[Observation],
        *,
        calls: Iterable[Call] = (),
        further: Iterable[Finding] = (),
        deadline_ms: int,
        seed: int = 0,
        skew_seconds: float = 0.0,
        undecided: float | None = None,
    ) -> TriggeredResult:
        """Check all that was observed.

        Args:
            observations: One for each notification.
            calls: The service's calls to Optimove.
            further: Findings that are about no single notification.
            deadline_ms: Milliseconds that an answer might take.
            seed: Of the plan.
            skew_seconds: How far Optimove's clock was ahead of ours.
            undecided: How many of a hundred may stay without a decision; None for a third, of ten or more.
        """
        # Good ones first: what is wrong with them explains most of the rest.
        over = sorted((one for one in observations if one.over), key=lambda one: not one.planned.must_be_decided)
        checked = [(one, number, check) for one in over for number, check in enumerate(one.checks())]
        counts = Counter(check.kind for _, _, check in checked)
        affected: defaultdict[CheckResult, list[Observation]] = defaultdict(list)
        faults: defaultdict[FaultKind, list[bool]] = defaultdict(list)
        free: list[Observation] = []
        for one, number, check in checked:
            fault = one.planned.fault
            if check.finding:
                affected[check].append(one)
            if fault is not None and number == (fault == "duplicate"):
                faults[fault].append(check.kind == EXPECTED[fault])
            if number == 0 and check.kind in _DECIDED and not one.planned.expected:
                free.append(one)
        pending = sum(max(1, len(one.replies)) for one in observations if not one.over)
        of_calls = _of_calls(calls)
        none_decided = counts["abstained"] and not counts["approved"] and not counts["denied"]
        hint = (
            "No answer about any customer was sent to Optimove: the handler abstained, raised, lacks an await or was "
            "too slow, which the log of the service shows."
        )
        return cls(
            sent=len(checked) + pending,
            approved=counts["approved"],
            denied=counts["denied"],
            abstained=counts["abstained"],
            faults={kind: (len(faults[kind]), sum(faults[kind])) for kind in EXPECTED if kind in faults},
            wrong=counts["wrong"],
            late=sum(one.is_late for one in over),
            pending=pending,
            latencies_ms=tuple(
                one.latency_ms for one in over if one.latency_ms is not None and one.planned.must_be_decided
            ),
            deadline_ms=deadline_ms,
            findings=(
                *further,
                *(_finding(check, who) for check, who in affected.items()),
                *(() if none_decided else _of_undecided(free, undecided)),
                *of_calls,
            ),
            hints=(hint,) if none_decided and not of_calls else (),
            observations=tuple(observations),
            seed=seed,
            skew_seconds=skew_seconds,
        )

    @property
    def latencies(self) -> Latencies:
        """From notification to answer."""
        return Latencies.of(self.latencies_ms)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong and at least one customer was decided: a gate that never decides is not ok."""
        return not (self.findings or self.hints)

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values, in the order in which they are shown."""
        shown = [(name, str(getattr(self, name))) for name in ("sent", *_DECIDED)]
        shown += [(kind, f"{fine} of {sent} {_WORDS[kind]}") for kind, (sent, fine) in self.faults.items()]
        shown += [(name, str(getattr(self, name))) for name in ("wrong", "pending") if name == "wrong" or self.pending]
        return [*shown, ("latency", str(self.latencies)), ("deadline", f"{self.deadline_ms} ms")]

    def as_json(self) -> dict[str, Any]:
        """Return the summary of `trigger --json`."""
        return {
            "event": "summary",
            "ok": self.ok,
            **{name: getattr(self, name) for name in ("sent", *_DECIDED, "wrong", "pending")},
            "faults": {kind: {"sent": sent, "as_expected": fine} for kind, (sent, fine) in self.faults.items()},
            "latency_ms": self.latencies.as_json(),
            "deadline_ms": self.deadline_ms,
            "findings": sentences(self.findings),
            "hints": list(self.hints),
            "seed": self.seed,
            "skew_seconds": self.skew_seconds,
        }

    def __str__(self) -> str:
        """Return the numbers and findings as lines, as an assertion shows them."""
        return _text(self.lines(), [*sentences(self.findings), *self.hints])


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledResult:
    """The result of a scheduled rehearsal, as the simulator recorded it.

    Attributes:
        campaign_id: The campaign.
        listener_statuses: What the listener answered to each announcement over HTTP; None where no answer came.
        rows: Customers on hold.
        recipients: Who would get the campaign, in the order in which they were approved.
        denied: Customers who were reported as not approved, in time.
        unknown: Ids that the campaign does not have.
        late: Statuses that came after clearance.
        twice: Customers who were reported more than once.
        contradictions: Customers who were reported with two different answers.
        updates: When each update came, in seconds since the event, and how many statuses it had.
        clearance_seconds: Seconds from the event to clearance.
        unapproved: Recipients who were not expected; 0 when nothing was expected.
        missing: Expected recipients who would not get the campaign; 0 when nothing was expected.
        unmet: Customers of `expect` for whom the decision is another one.
        never_awaited: Coroutines of the service that were never awaited, by name.
        findings: The errors.
    """

    campaign_id: int = 0
    listener_statuses: tuple[int | None, ...] = ()
    rows: int = 0
    recipients: tuple[str, ...] = field(default=(), repr=False)
    denied: int = 0
    unknown: int = 0
    late: int = 0
    twice: int = 0
    contradictions: int = 0
    updates: tuple[tuple[float, int], ...] = field(default=(), repr=False)
    clearance_seconds: float = 0.0
    unapproved: int = 0
    missing: int = 0
    unmet: int = 0
    never_awaited: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(
        cls,
        campaign: Campaign,
        statuses: Sequence[int | None],
        *,
        expected: Collection[str] | None = None,
        expect: Mapping[str, str] | None = None,
        never_awaited: Iterable[str] = (),
        further: Iterable[Finding] = (),
    ) -> ScheduledResult:
        """Compare the reported statuses with the expected ones.

        Args:
            campaign: With all reported statuses.
            statuses: What the listener answered to each announcement; None where no answer came.
            expected: Who should get the campaign; None accepts all reported customers.
            expect: The right decision about single customers, approved or denied.
            never_awaited: Coroutines of the service that were never awaited, by name.
            further: Findings that are not about statuses.
        """
        recipients = campaign.recipients()
        wanted = set(recipients if expected is None else expected)
        unapproved, missing = sorted(set(recipients) - wanted), sorted(wanted - set(recipients))
        some = ", ".join(unapproved[:_SHOWN]) + (" and others" if len(unapproved) > _SHOWN else "")
        unmet = [
            _of_expectation(customer_id, campaign.statuses.get(customer_id))
            for customer_id, decision in (expect or {}).items()
            if (campaign.statuses.get(customer_id) is True) != (decision == "approved")
        ]
        findings = [
            *further,
            *_of_listener(statuses),
            *_of_customers(unapproved, f"would get the campaign and must not: {some}"),
            *_of_customers(missing, "should get the campaign and would not"),
            *unmet,
            *_of_customers([name for name, _ in campaign.late], "came after clearance", "what is late does not count"),
            *_of_customers(campaign.contradictions, "got two different answers"),
            *_of_customers(campaign.unknown, "were reported, and are not in the campaign"),
        ]
        if expected is None and not campaign.statuses:
            findings.append(
                Finding("No customer was reported in time", "customers who are not approved do not get the campaign")
            )
        return cls(
            campaign_id=campaign.campaign_id,
            listener_statuses=tuple(statuses),
            rows=campaign.row_count,
            recipients=tuple(recipients),
            denied=len(campaign.statuses) - len(recipients),
            **{name: len(getattr(campaign, name)) for name in ("unknown", "late", "twice", "contradictions")},
            updates=tuple(((one.at_ms - campaign.added_ms) / 1000, one.size) for one in campaign.updates),
            clearance_seconds=(campaign.clearance_ms - campaign.added_ms) / 1000,
            unapproved=len(unapproved),
            missing=len(missing),
            unmet=len(unmet),
            never_awaited=tuple(never_awaited),
            findings=tuple(findings),
        )

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def failed(self) -> bool:
        """Whether nothing was reported in time, a decision is not that of `expect`, or a coroutine was not awaited."""
        return not self.reported or self.unmet > 0 or bool(self.never_awaited)

    @property
    def approved(self) -> int:
        """How many would get the campaign."""
        return len(self.recipients)

    @property
    def reported(self) -> int:
        """How many customers were reported in time, approved or not."""
        return self.approved + self.denied + self.unknown

    @property
    def largest_update(self) -> int:
        """Statuses of the largest update."""
        return max((size for _, size in self.updates), default=0)

    @property
    def reported_over_time(self) -> list[tuple[float, int]]:
        """Seconds since the event, and how many statuses had been reported by then, repeats and late ones too."""
        totals = accumulate(size for _, size in self.updates)
        return [(0.0, 0), *zip((seconds for seconds, _ in self.updates), totals, strict=True)]

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values, in the order in which they are shown."""
        numbers = self.as_json()
        status = numbers["listener_status"]
        shown = [
            (name.replace("_", " "), f"{numbers[name]:,}") for name in ("rows", "updates", "largest_update", *_COUNTS)
        ]
        return [("listener", "no answer" if status is None else f"HTTP {status}"), *shown]

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of `campaign --json`."""
        return {
            "event": "campaign",
            "listener_status": self.listener_statuses[-1] if self.listener_statuses else None,
            "updates": len(self.updates),
            **{name: getattr(self, name) for name in ("campaign_id", "rows", "largest_update", *_COUNTS)},
            "first_recipients": list(self.recipients[:_FIRST_RECIPIENTS]),
            "unmet": self.unmet,
            "never_awaited": list(self.never_awaited),
            "findings": sentences(self.findings),
        }

    def __str__(self) -> str:
        """Return the numbers and findings as lines, as an assertion shows them."""
        return _text(self.lines(), sentences(self.findings))


def _text(lines: Iterable[tuple[str, str]], findings: Iterable[str]) -> str:
    return "\n".join([*(f"{name:<14} {value}" for name, value in lines), *(f"! {finding}" for finding in findings)])


def _finding(check: CheckResult, affected: Sequence[Observation]) -> Finding:
    names = list(dict.fromkeys(one.planned.name for one in affected))
    some = ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
    who = some if len(affected) == 1 else f"{len(affected)} notifications, {some}, each"
    user_ids = tuple(dict.fromkeys(one.planned.user_id for one in affected))
    return Finding(f"{who} {check.finding}", check.remedy, user_ids)


def _of_undecided(free: Sequence[Observation], percent: float | None) -> list[Finding]:
    """Return a finding if too many of those who might stay without a decision did."""
    silent = tuple(dict.fromkeys(one.planned.user_id for one in free if one.answer is None))
    number = sum(one.answer is None for one in free)
    bound = UNDECIDED_PERCENT if percent is None else percent
    if number * 100 <= bound * len(free) or (percent is None and len(free) < UNDECIDED_SAMPLE):
        return []
    of = number_of(len(free), "notification")
    cause = f"{number} of {of} stayed without a decision, more than {bound:.3g} %"
    return [Finding(cause, f"{UNDECIDED_REMEDY}: a register or database may be down", silent)]


def _of_calls(calls: Iterable[Call]) -> list[Finding]:
    refused = Counter((call.status, call.operation) for call in calls if call.status in _REFUSALS)
    return [
        Finding(
            f"The service called Optimove {number_of(number, 'time')} and got {status}",
            _REFUSALS[HTTPStatus(status)],
        )
        for (status, operation), number in refused.items()
        if operation in ("", "send_webhook_approval")
    ]


def _of_listener(statuses: Sequence[int | None]) -> list[Finding]:
    if all(status is not None and status // 100 == 2 for status in statuses):
        return []
    given = ", ".join("no answer" if status is None else f"HTTP {status}" for status in statuses)
    remedy = OTHER_TOKEN if HTTPStatus.UNAUTHORIZED in statuses else ""
    return [Finding(f"The listener gave {given} instead of HTTP 200", remedy)]


def _of_customers(ids: Collection[str], what: str, remedy: str = "") -> list[Finding]:
    return [Finding(f"{len(ids)} {what}", remedy, tuple(sorted(ids)))] if ids else []


def _of_expectation(customer_id: str, status: bool | None) -> Finding:
    if status:
        right, what, remedy = "denied", "would get the campaign", WRONGLY_APPROVED
    elif status is None:
        right, what = "approved", "no status was reported in time"
        remedy = "the reviewer left the customer out, raised or was too slow"
    else:
        right, what, remedy = "approved", "was reported as not approved", WRONGLY_DENIED
    return Finding(f"{customer_id} should have been {right}, and {what}", remedy, (customer_id,))
