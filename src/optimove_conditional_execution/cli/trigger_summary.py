"""How a rehearsal of a triggered campaign went: the numbers, and a sentence for each thing that is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, final

from optimove_conditional_execution.cli.charts import Histogram, Section
from optimove_conditional_execution.cli.latencies import Latencies
from optimove_conditional_execution.cli.trigger_judgement import EXPECTED, Seen, Verdict, judge
from optimove_conditional_execution.testing import Call

_SHOWN: Final = 3
_WORDS: Final = {"duplicate": "changed nothing", "late": "left alone", "forged": "refused", "oversize": "refused"}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerSummary:
    """How it went.

    Each post counts once: `sent` is the sum of approved, denied, abstained, the faults that came to what they must, of
    wrong and of pending.

    Attributes:
        sent: Notifications that were posted, repeats included.
        approved: Optimove was told to send.
        denied: Optimove was told not to send.
        abstained: The webhook answered 200 and told Optimove nothing.
        faults: How many of each fault were posted, and how many of them came to what they must.
        wrong: Posts with a finding.
        pending: Posts that nobody waited for any longer.
        latencies_ms: Milliseconds from notification to answer, of each good one that was answered.
        deadline_ms: Milliseconds that an answer might take.
        findings: A sentence for each thing that is wrong.
        hints: What may be wrong, and may be meant.
    """

    sent: int
    approved: int
    denied: int
    abstained: int
    faults: Mapping[str, tuple[int, int]]
    wrong: int
    pending: int
    latencies_ms: tuple[int, ...]
    deadline_ms: int
    findings: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, seen: Sequence[Seen], *, calls: Iterable[Call] = (), further: Iterable[str] = (), deadline_ms: int
    ) -> TriggerSummary:
        """Judge all that was seen.

        Args:
            seen: One for each notification.
            calls: What the service called at Optimove.
            further: Findings that are about no single notification.
            deadline_ms: Milliseconds that an answer might take.
        """
        # Good ones first: what is wrong with them explains most of the rest.
        over = sorted((one for one in seen if one.over), key=lambda one: one.planned.fault not in (None, "duplicate"))
        pending = sum(max(1, len(one.replies)) for one in seen if not one.over)
        counts: Counter[str] = Counter()
        posted: Counter[str] = Counter()
        as_expected: Counter[str] = Counter()
        affected: dict[Verdict, list[str]] = {}
        for one in over:
            fault = one.planned.fault
            for number, verdict in enumerate(judge(one)):
                counts[verdict.kind] += 1
                if verdict.finding is not None:
                    affected.setdefault(verdict, []).append(_name(one))
                if fault is not None and number == (fault == "duplicate"):
                    posted[fault] += 1
                    as_expected[fault] += verdict.kind == EXPECTED[fault]
        of_calls = _of_calls(calls)
        return cls(
            sent=counts.total() + pending,
            approved=counts["approved"],
            denied=counts["denied"],
            abstained=counts["abstained"],
            faults={kind: (posted[kind], as_expected[kind]) for kind in EXPECTED if posted[kind]},
            wrong=counts["wrong"],
            pending=pending,
            latencies_ms=tuple(
                one.latency_ms
                for one in over
                if one.latency_ms is not None and one.planned.fault in (None, "duplicate")
            ),
            deadline_ms=deadline_ms,
            findings=(*further, *_sentences(affected), *of_calls),
            hints=() if of_calls else tuple(_hints(counts)),
        )

    @property
    def latencies(self) -> Latencies:
        """From notification to answer."""
        return Latencies.of(self.latencies_ms)

    @property
    def chart(self) -> Histogram:
        """The latencies against the deadline."""
        return Histogram([max(0, latency) for latency in self.latencies_ms], deadline_ms=self.deadline_ms)

    def section(self, verdict: str) -> Section:
        """Return its part of a report.

        Args:
            verdict: How it went, as a sentence.
        """
        return Section(
            title="A triggered campaign",
            ok=self.ok,
            verdict=verdict,
            facts=self.lines(),
            charts=[self.chart],
            findings=self.findings,
            warnings=self.hints,
        )

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong, and somebody was decided about: a gate that never decides passes no check."""
        return not (self.findings or self.hints)

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values, in the order in which they are shown."""
        shown = [(name, str(getattr(self, name))) for name in ("sent", "approved", "denied", "abstained")]
        shown += [(kind, f"{fine} of {sent} {_WORDS[kind]}") for kind, (sent, fine) in self.faults.items()]
        shown += [(name, str(getattr(self, name))) for name in ("wrong", "pending") if name == "wrong" or self.pending]
        return [*shown, ("latency", str(self.latencies)), ("deadline", f"{self.deadline_ms} ms")]

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of `--json`."""
        return {
            "event": "summary",
            "ok": self.ok,
            **{name: getattr(self, name) for name in ("sent", "approved", "denied", "abstained", "wrong", "pending")},
            "faults": {kind: {"sent": sent, "as_expected": fine} for kind, (sent, fine) in self.faults.items()},
            "latency_ms": self.latencies.as_json(),
            "deadline_ms": self.deadline_ms,
            "findings": list(self.findings),
            "hints": list(self.hints),
        }


def _sentences(affected: Mapping[Verdict, Sequence[str]]) -> Iterator[str]:
    said: set[str] = set()
    for verdict, who in affected.items():
        # What to do is said once.
        yield f"{_names(who)} {verdict.finding if verdict.why in said else verdict.sentence}."
        said.add(verdict.why)


def _name(seen: Seen) -> str:
    return f"{seen.planned.user_id} ({seen.planned.fault})" if seen.planned.fault else seen.planned.user_id


def _names(who: Sequence[str]) -> str:
    different = list(dict.fromkeys(who))
    some = ", ".join(different[:_SHOWN])
    if len(different) > _SHOWN:
        some += " ..."
    return some if len(who) == 1 else f"{len(who)} notifications, {some}, each"


def _of_calls(calls: Iterable[Call]) -> list[str]:
    refused = Counter((call.status, call.operation) for call in calls if call.status in _REFUSALS)
    found = []
    for (status, operation), number in refused.items():
        if operation in ("", "send_webhook_approval"):
            what = _REFUSALS[HTTPStatus(status)]
            found.append(f"The service called Optimove {number} times and got {status}: {what}.")
    return found


_REFUSALS: Final = {
    HTTPStatus.BAD_REQUEST: "the body is not the documented one, which has timestamp, request_uid and approved",
    HTTPStatus.UNAUTHORIZED: "OPTIMOVE_API_KEY of the service is another one",
    HTTPStatus.NOT_FOUND: "Optimove has no such path, or asked no such request_uid",
    HTTPStatus.METHOD_NOT_ALLOWED: "Optimove's path takes another method",
}


def _hints(counts: Counter[str]) -> list[str]:
    if counts["abstained"] and not counts["approved"] and not counts["denied"]:
        return [
            "Nothing was told to Optimove about any customer: the handler abstained, raised, lacks an await or was too "
            "slow, which the log of the service tells."
        ]
    return []
