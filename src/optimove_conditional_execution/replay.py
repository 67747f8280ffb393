"""Replay: ask a new rule about recorded decisions, and count who would be decided differently. It sends nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Literal, final

from . import validation
from .deadline import Deadline
from .drivers import Pools, arun
from .errors import ConfigurationError, OptimoveError, PayloadError
from .flows.decision_log import DecisionRecord, LoggedDecision
from .flows.effects import Ask, Flow, Late, Overloaded
from .flows.outcome import KINDS
from .flows.review_log import read_review_payload
from .flows.reviewer_answer import BatchResult, failure_of, parse_answer
from .flows.webhook import read_answer
from .handlers import Verdict
from .models.campaign import CampaignCustomer, CustomerBatch
from .models.events import CampaignReadyEvent
from .models.notification import WebhookNotification

__all__ = ["ReplayReport", "Replayed", "replay"]

Left = Literal["without_payload", "erased", "not_decided", "no_rule"]

_UNDECIDED: Final = frozenset({"failed", "late"})
"""Kinds of records whose verdict is that of `on_failure`, not of a rule."""

_VERDICTS: Final[Mapping[str, Verdict]] = {kind: verdict for verdict, kind in KINDS.items()}
"""What a rule said, by what it leads to."""

_LATE: Final = "The {} did not answer in time."
_BUSY: Final = "Earlier calls of the {} still hang."
_UNREADABLE: Final = "The payload cannot be understood."


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A decision that would be another one, or for which the new rule failed. The repr shows no personal data.

    Attributes:
        logged: The recorded decision.
        after: What the new rule says; None when it failed.
        reason: Its words.
        error: Why it failed, in words that hold no personal data; None when it did not.
    """

    logged: LoggedDecision = field(repr=False)
    after: Verdict | None
    reason: str | None = field(default=None, repr=False)
    error: str | None = None

    @property
    def before(self) -> Verdict | None:
        """The recorded verdict of the rule; of a gate that only observed, what it would have said."""
        return _verdict_of(self.logged.record)


@final
@dataclass(slots=True)
class ReplayReport:
    """What a replay has found; it holds no personal data.

    Attributes:
        asked: How many decisions the new rule was asked about.
        changed: How many it decides differently, by the verdict before and after.
        failed: For how many it failed, by the reason.
        left_out: How many it was not asked about: `without_payload`, `erased`, `not_decided` (the old rule failed, was
            late, or was not asked, or the kill switch answered in its place), `no_rule` (of a triggered campaign
            without a handler, or a scheduled one without a reviewer). An answer that was given again, or that of a
            shadow, is not counted at all.
    """

    asked: int = 0
    changed: Counter[tuple[Verdict, Verdict]] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    left_out: Counter[Left] = field(default_factory=Counter)

    @property
    def unchanged(self) -> int:
        """How many are decided as before."""
        return self.asked - self.changed.total() - self.failed.total()


def replay(
    decisions: Iterable[LoggedDecision],
    *,
    handler: Callable[..., Any] | None = None,
    reviewer: Callable[..., Any] | None = None,
    on_difference: Callable[[Replayed], None] | None = None,
    timeout: float = 10.0,
    concurrency: int = 16,
    batch_size: int = 1_000,
) -> ReplayReport:
    """Ask a new rule about recorded decisions. Nothing is sent; what the rule itself does happens.

    Memory stays flat, however many decisions there are. Not to be called in an event loop; there, use
    `asyncio.to_thread`.

    Args:
        decisions: From `decisions` of a log that was written with `keep_payloads=True`.
        handler: What a `WebhookReceiver` or an `AsyncWebhookReceiver` would get.
        reviewer: What a `CampaignReview` or an `AsyncCampaignReview` would get. Its batches have the customers of one
            campaign, each once, but not in the batches of the review.
        on_difference: Is called for each decision that differs, or for which the rule failed.
        timeout: Seconds for each call. A plain function that hangs occupies a thread until it returns.
        concurrency: How many calls of the handler run at the same time.
        batch_size: How many customers a batch has at most.

    Raises:
        ConfigurationError: There is neither a handler nor a reviewer, or a setting is invalid; or a payload is
            encrypted, and the log was not given its key.
    """
    if handler is None and reviewer is None:
        raise ConfigurationError("A replay needs handler= or reviewer=, or both.")
    if handler is not None:
        validation.check_callable("handler", handler, "notification", "deadline")
    if reviewer is not None:
        validation.check_callable("reviewer", reviewer, "customers", "deadline")
    validation.seconds("timeout", timeout, above_zero=True)
    validation.integer("concurrency", concurrency)
    validation.integer("batch_size", batch_size)
    return asyncio.run(_Replay(handler, reviewer, on_difference, timeout, concurrency, batch_size).run(iter(decisions)))


class _RuleError(OptimoveError):
    """The rule did not answer; the text says why."""


@dataclass(frozen=True, slots=True)
class _Answer:
    verdict: Verdict | None
    reason: str | None = None
    error: str | None = None


@dataclass(eq=False)
class _Replay:
    _handler: Callable[..., Any] | None
    _reviewer: Callable[..., Any] | None
    _on_difference: Callable[[Replayed], None] | None
    _timeout: float
    _concurrency: int
    _batch_size: int
    _report: ReplayReport = field(default_factory=ReplayReport)
    _batch: list[LoggedDecision] = field(default_factory=list[LoggedDecision])
    _customers: dict[str, CampaignCustomer] = field(default_factory=dict[str, CampaignCustomer])
    _event: CampaignReadyEvent | None = None

    def __post_init__(self) -> None:
        self._pools = Pools.of(self._concurrency)

    async def run(self, decisions: Iterator[LoggedDecision]) -> ReplayReport:
        while group := list(islice(decisions, self._concurrency)):
            wanted = [logged for logged in group if self._is_wanted(logged)]
            triggered = [logged for logged in wanted if logged.record.flow == "triggered"]
            for logged, answer in zip(triggered, await asyncio.gather(*map(self._handle, triggered)), strict=True):
                self._count(logged, answer)
            for logged in wanted:
                if logged.record.flow == "scheduled":
                    await self._add(logged)
        await self._review()
        return self._report

    def _is_wanted(self, logged: LoggedDecision) -> bool:
        record, done = logged.record, logged.completion
        if record.redelivered or record.kind == "shadow" or (done is not None and done.kind == "discarded"):
            return False  # there is another record of the same question
        if logged.sealed:
            raise ConfigurationError(
                f"The payload of entry {logged.entry} is encrypted: give the log its encryption_keys=, or the command "
                "OPTIMOVE_DECISION_LOG_KEY."
            )
        rule = self._handler if record.flow == "triggered" else self._reviewer
        why: Left | None = None
        if _verdict_of(record) is None or record.kind in _UNDECIDED or record.switch is not None:
            why = "not_decided"
        elif rule is None:
            why = "no_rule"
        elif logged.erased:
            why = "erased"
        elif record.payload is None:
            why = "without_payload"
        if why is not None:
            self._report.left_out[why] += 1
        return why is None

    async def _handle(self, logged: LoggedDecision) -> _Answer:
        try:
            notification = WebhookNotification.from_json(logged.record.payload or b"")
        except PayloadError:
            return _Answer(None, error=_UNREADABLE)
        try:
            decision = read_answer(await self._ask(self._handler, notification, "handler"))
        except OptimoveError as failed:  # or what it returned is invalid
            return _Answer(None, error=str(failed))
        return _Answer(decision.verdict, decision.reason)

    async def _add(self, logged: LoggedDecision) -> None:
        """Put a customer into the batch of the campaign; ask about it when it is full, or another one begins."""
        try:
            event, customer = read_review_payload(logged.record.payload or b"")
        except (ValueError, KeyError, TypeError):
            self._count(logged, _Answer(None, error=_UNREADABLE))
            return
        is_other = self._event is not None and event.key != self._event.key
        if is_other or customer.customer_id in self._customers or len(self._batch) >= self._batch_size:
            await self._review()
        self._event = event
        self._batch.append(logged)
        self._customers[customer.customer_id] = customer

    async def _review(self) -> None:
        """Ask the reviewer about the batch."""
        batch, customers, event = self._batch, self._customers, self._event
        self._batch, self._customers = [], {}
        if not batch or event is None:
            return
        ids, until = list(customers), Deadline.after(self._timeout)
        try:
            answer = await self._ask(self._reviewer, CustomerBatch(customers.values(), event=event), "reviewer")
            result = parse_answer(ids, answer, until)
        except Exception as error:  # noqa: BLE001 - a generator of the user's may raise anything
            text = str(error) if isinstance(error, _RuleError) else failure_of(error).text
            answers = [_Answer(None, error=text)] * len(batch)
        else:
            answers = [_answer_of(result, name) for name in ids]
        for logged, each in zip(batch, answers, strict=True):
            self._count(logged, each)

    async def _ask(self, rule: Callable[..., Any] | None, about: object, who: str) -> Any:
        """Return what a rule says.

        Raises:
            _RuleError: It failed, was late, or is still busy with earlier calls.
        """

        def flow() -> Flow[object]:
            assert rule is not None  # noqa: S101 - only what has a rule is asked about
            until = Deadline.after(self._timeout)
            return (yield Ask(rule, (about, until), until))

        try:
            return await arun(flow(), pools=self._pools)
        except Late:
            raise _RuleError(_LATE.format(who)) from None
        except Overloaded:
            raise _RuleError(_BUSY.format(who)) from None
        except Exception as error:  # noqa: BLE001 - a rule may raise anything
            raise _RuleError(failure_of(error, who=who).text) from None

    def _count(self, logged: LoggedDecision, answer: _Answer) -> None:
        before = _verdict_of(logged.record)
        assert before is not None  # noqa: S101 - others are left out
        self._report.asked += 1
        if answer.verdict is None:
            self._report.failed[answer.error or ""] += 1
        elif answer.verdict != before:
            self._report.changed[before, answer.verdict] += 1
        else:
            return
        if self._on_difference is not None:
            self._on_difference(Replayed(logged=logged, after=answer.verdict, reason=answer.reason, error=answer.error))


def _verdict_of(record: DecisionRecord) -> Verdict | None:
    return record.verdict if record.observed is None else _VERDICTS.get(record.observed)


def _answer_of(result: BatchResult, name: str) -> _Answer:
    if name in result.failed:
        return _Answer(None, error=result.failed[name].text)
    if (verdict := _VERDICTS.get(result.became(name))) is None:
        return _Answer(None, error=_LATE.format("reviewer"))
    return _Answer(verdict, result.reasons.get(name))
