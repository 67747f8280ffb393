"""What a shadow is asked, about a notification or a batch, and how its answer compares with the real one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, final

from ..errors import OptimoveError
from ..flows.decision_log import DecisionRecord
from ..flows.effects import Late
from ..flows.outcome import KINDS
from ..flows.subject import Subject, subject_of, text_of
from ..flows.webhook import read_answer
from ..models.notification import WebhookNotification

if TYPE_CHECKING:  # loaded by the shadows of reviews
    from ..flows.reviewer_answer import BatchResult
    from ..models.campaign import CustomerBatch

_REVIEWER_SECONDS: Final = 60.0
"""Seconds that a shadow has for a batch of a review."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowAnswer:
    """What a shadow made of one notification, or of some customers of a batch.

    Attributes:
        decided: What the real handler's answer led to, as a kind of `Outcome`: such as `approved` or `late`.
        observed: What the shadow's would have led to: `approved`, `denied`, `abstained`, `failed` or `late`; `dropped`
            when it was not asked, since too many of its calls were running.
        campaign: The campaign, as text.
        customers: How many customers this is about.
    """

    decided: str
    observed: str
    campaign: str | None = None
    customers: int = 1

    @property
    def differs(self) -> bool:
        """Whether the shadow's answer would have led to something else."""
        return self.observed not in (self.decided, "dropped")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AskedNotification:
    """A notification that the handler was asked about, and what its answer led to.

    Attributes:
        about: The notification.
        decided: The kind.
        seconds: Seconds that the handler had.
    """

    about: WebhookNotification
    decided: str
    seconds: float

    def dropped(self) -> ShadowAnswer:
        """Return that the shadow was not asked."""
        campaign = subject_of(self.about).campaign
        return ShadowAnswer(decided=self.decided, observed="dropped", campaign=campaign)

    def compare(self, answer: object, error: BaseException | None) -> tuple[list[ShadowAnswer], list[DecisionRecord]]:
        """Return what the shadow's answer is beside the real one, and the record of it."""
        subject = subject_of(self.about)
        observed, given = "failed", dict[str, Any]()
        if isinstance(error, Late):
            observed = "late"
        elif error is not None:
            from ..flows.reviewer_answer import failure_of

            given["error"] = failure_of(error, who="shadow").text
        else:
            try:
                decision = read_answer(answer)
            except OptimoveError as invalid:
                given["error"] = str(invalid)
            else:
                observed = KINDS[decision.verdict]
                given["reason"], given["evidence"] = decision.reason, decision.evidence
                given["additional_data"] = decision.additional_data
        record = DecisionRecord(
            at=datetime.now(UTC),
            flow="triggered",
            kind="shadow",
            subject=subject,
            request_uid=self.about.request_uid,
            observed=observed,
            decided=self.decided,
            **given,
        )
        return [ShadowAnswer(decided=self.decided, observed=observed, campaign=subject.campaign)], [record]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AskedBatch:
    """A batch that the reviewer was asked about, and its answer.

    Attributes:
        about: The batch.
        result: The answer.
        seconds: Seconds for the shadow.
    """

    about: CustomerBatch
    result: BatchResult
    seconds: float = _REVIEWER_SECONDS

    def dropped(self) -> ShadowAnswer:
        """Return that the shadow was not asked."""
        return ShadowAnswer(
            decided="reviewed",
            observed="dropped",
            campaign=str(self.about.campaign_id),
            customers=len(self.about),
        )

    def compare(self, answer: object, error: BaseException | None) -> tuple[list[ShadowAnswer], list[DecisionRecord]]:
        """Return what the shadow's answer is beside the real one, and records of those about whom they differ."""
        from ..flows.reviewer_answer import BatchResult, failure_of, parse_answer

        ids = [customer.customer_id for customer in self.about]
        missing, why, result = "", None, BatchResult(frozenset())
        if error is None:
            try:
                result = parse_answer(ids, answer)
            except Exception as raised:  # noqa: BLE001 - a generator may raise anything
                error = raised
        if isinstance(error, Late):
            missing = "late"
        elif error is not None:
            missing, why = "failed", failure_of(error, who="shadow").text
        campaign, event_key = str(self.about.campaign_id), self.about.event.key
        counted: Counter[tuple[str, str]] = Counter()
        records: list[DecisionRecord] = []
        for customer in self.about:
            name = customer.customer_id
            decided, observed = self.result.became(name), missing or result.became(name)
            counted[decided, observed] += 1
            if decided == observed:
                continue
            failure = result.failed.get(name)
            channel, action = text_of(customer.channel_id), text_of(customer.action_id)
            records.append(
                DecisionRecord(
                    at=datetime.now(UTC),
                    flow="scheduled",
                    kind="shadow",
                    subject=Subject(
                        customer_id=name,
                        campaign=campaign,
                        action=action,
                        channels=() if channel is None else (channel,),
                        promotions=customer.promo_codes,
                    ),
                    event_key=event_key,
                    reason=result.reasons.get(name),
                    evidence=result.evidence.get(name, {}),
                    error=why if failure is None else failure.text,
                    observed=observed,
                    decided=decided,
                )
            )
        answers = [
            ShadowAnswer(decided=decided, observed=observed, campaign=campaign, customers=count)
            for (decided, observed), count in counted.items()
        ]
        return answers, records


Asked = AskedNotification | AskedBatch
"""What a shadow is asked, and how its answer compares."""
