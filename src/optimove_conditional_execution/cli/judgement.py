"""Whether the demo went well: each post gets one verdict, from what the simulator saw and the HTTP statuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, final

from optimove_conditional_execution.cli.latencies import Latencies
from optimove_conditional_execution.cli.scenarios import Scenario

VerdictKind = Literal["approved", "denied", "abstained", "forged", "duplicate", "lost", "late"]

_ACCEPTED: Final = 200
_REFUSED: Final = 401


@final
@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of one notification.

    Attributes:
        scenario: What it was.
        user_id: Whose it was.
        statuses: What the webhook answered, in the order posted; None where no answer came.
        answer: Whether Optimove was told "approved"; None when no answer came in time.
        ignored: What later and late answers said.
        latency_ms: Milliseconds from notification to answer; None without one.
    """

    scenario: Scenario
    user_id: str
    statuses: tuple[int | None, ...]
    answer: bool | None = None
    ignored: tuple[bool, ...] = ()
    latency_ms: int | None = None

    @property
    def is_late(self) -> bool:
        """Whether the only answers came after the deadline."""
        return self.answer is None and bool(self.ignored)


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one post.

    Attributes:
        kind: What.
        finding: What is wrong with it; None when nothing is.
    """

    kind: VerdictKind
    finding: str | None = None


def judge(seen: Observation) -> list[Verdict]:
    """Return a verdict for each post of a notification.

    Args:
        seen: What was seen of it, after its deadline.
    """
    if seen.scenario.forged:
        return [_forged(seen, status) for status in seen.statuses]
    return [_first(seen), *(_repeat(seen, status) for status in seen.statuses[1:])]


def _forged(seen: Observation, status: int | None) -> Verdict:
    if seen.answer is not None or seen.ignored:
        return _lost(seen, "it was forged, and was decided all the same")
    if status != _REFUSED:
        return _lost(seen, f"it was forged, and the webhook answered {_shown(status)} instead of 401")
    return Verdict("forged")


def _first(seen: Observation) -> Verdict:
    expected = seen.scenario.expected
    if seen.is_late:
        return Verdict("late", f"{seen.user_id} ({seen.scenario.name}): the answer came after the deadline")
    if seen.answer is True and expected != "approved":
        return _lost(seen, "it was approved, which must never happen")
    if seen.answer is None and expected is not None:
        return _lost(seen, f"it should have been {expected}, and no answer came")
    if seen.answer is False and expected == "approved":
        return _lost(seen, "it should have been approved, and was denied")
    if seen.answer is not None:
        return Verdict("approved" if seen.answer else "denied")
    if seen.statuses[0] != _ACCEPTED:
        return _lost(seen, f"nobody decided it: the webhook answered {_shown(seen.statuses[0])}")
    return Verdict("abstained")


def _repeat(seen: Observation, status: int | None) -> Verdict:
    if seen.answer is not None and (not seen.answer) in seen.ignored:
        return _lost(seen, "its repeat was answered differently")
    if status != _ACCEPTED:
        return _lost(seen, f"the webhook answered its repeat with {_shown(status)}")
    return Verdict("duplicate")


def _lost(seen: Observation, finding: str) -> Verdict:
    return Verdict("lost", f"{seen.user_id} ({seen.scenario.name}): {finding}")


def _shown(status: int | None) -> str:
    return "nothing" if status is None else str(status)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How the demo went. Each post is counted once: `sent = decided + forged + duplicates + lost + late`.

    Attributes:
        sent: Notifications that were posted, repeats included.
        approved: Optimove was told to send.
        denied: Optimove was told not to send.
        abstained: The webhook took it and told Optimove nothing: the handler abstained, raised, or was too slow.
        forged: Wrong signature, refused with 401.
        duplicates: Repeats that changed nothing.
        lost: What should have been answered and was not, or came out wrong.
        late: Answers that came after the deadline.
        latencies: From notification to answer.
        deadline_ms: Milliseconds that an answer might take.
        findings: A sentence for each that was lost or late.
    """

    sent: int
    approved: int
    denied: int
    abstained: int
    forged: int
    duplicates: int
    lost: int
    late: int
    latencies: Latencies
    deadline_ms: int
    findings: tuple[str, ...] = ()

    @classmethod
    def of(cls, observations: Iterable[Observation], *, deadline_ms: int) -> Summary:
        """Judge all that was seen.

        Args:
            observations: One for each notification.
            deadline_ms: Milliseconds that an answer might take.
        """
        observations = list(observations)
        verdicts = [verdict for seen in observations for verdict in judge(seen)]
        counts = Counter(verdict.kind for verdict in verdicts)
        return cls(
            sent=len(verdicts),
            approved=counts["approved"],
            denied=counts["denied"],
            abstained=counts["abstained"],
            forged=counts["forged"],
            duplicates=counts["duplicate"],
            lost=counts["lost"],
            late=counts["late"],
            latencies=Latencies.of(seen.latency_ms for seen in observations if seen.latency_ms is not None),
            deadline_ms=deadline_ms,
            findings=tuple(verdict.finding for verdict in verdicts if verdict.finding is not None),
        )

    @property
    def decided(self) -> int:
        """Approved, denied or abstained."""
        return self.approved + self.denied + self.abstained

    @property
    def ok(self) -> bool:
        """Whether nothing was lost and nothing was late."""
        return not (self.lost or self.late)

    def counts(self) -> Iterator[tuple[str, int]]:
        """Return the numbers with their names, in the order in which they are shown."""
        for name in ("sent", "decided", "approved", "denied", "abstained", "forged", "duplicates", "lost", "late"):
            yield name, getattr(self, name)

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values, in the order in which they are shown."""
        numbers = [(name, str(value)) for name, value in self.counts()]
        return [*numbers, ("latency", str(self.latencies)), ("deadline", f"{self.deadline_ms} ms")]

    @property
    def verdict(self) -> str:
        """How it went, without a full stop."""
        return "Nothing lost, nothing late" if self.ok else f"{self.lost} lost, {self.late} late"

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of `--json`."""
        return {
            "ok": self.ok,
            **dict(self.counts()),
            "latency_ms": self.latencies.as_json(),
            "deadline_ms": self.deadline_ms,
            "findings": list(self.findings),
        }
