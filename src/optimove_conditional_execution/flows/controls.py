"""What stands between a handler and its answer: the kill switch, `observe=True`, and a shadow that is asked as well.

A file of its own, so that the flow of a notification has one question to ask: whether there is any of that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from ..deadline import Deadline
from ..errors import HeldBackError
from ..handlers import Decision
from ..models.approval import Approval
from ..models.notification import WebhookNotification
from .effects import Flow
from .outcome import OutcomeBuilder, OutcomeKind
from .switch import Stopped, Switch, tags_of

Decided = tuple[OutcomeKind, Decision | None]

OBSERVED: Final = "Held back: observe=True answers nothing."


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """The controls of a receiver that has some.

    Attributes:
        switch: The kill switch; None without one.
        observe: Whether nothing is answered, and what the handler says only recorded.
        has_shadow: Whether a shadow is to be asked about what the handler was asked.
    """

    switch: Switch | None = None
    observe: bool = False
    has_shadow: bool = False

    def decide(
        self,
        outcome: OutcomeBuilder,
        notification: WebhookNotification | None,
        due: Deadline,
        *,
        ask: Callable[[], Flow[Decided]],
        fallback: Callable[[], Decision],
    ) -> Flow[Decided]:
        """Decide.

        Args:
            outcome: The delivery.
            notification: The notification; None when it could not be read.
            due: The handler's deadline.
            ask: Asks the handler; its decision is None when it could not be called.
            fallback: Returns the decision of `on_failure`.
        """
        kind: OutcomeKind = "failed"
        decision: Decision | None = None
        stopped = yield from self._look(outcome, notification, due)
        if stopped is None:
            had = due.remaining()
            outcome.begin()  # what the switch took is no stage's time
            kind, decision = yield from ask()
            if self.has_shadow and decision is not None and notification is not None:
                outcome.asked = notification, kind, had
            if decision is not None and decision.verdict == "approve":
                # It may have been thrown while the handler ran.
                stopped = yield from self._look(outcome, notification, due)
                outcome.begin()
        if stopped is not None:
            if stopped.mode == "failed":  # as a handler that fails: a healthy replica may still approve
                outcome.set_error(stopped.reason, stopped.exception)
                kind, decision = "failed", fallback()
            else:
                kind = "denied" if stopped.mode == "deny" else "abstained"
                decision = Decision(stopped.mode, stopped.reason)
        if not self.observe or decision is None:
            return kind, decision
        outcome.observed = kind
        kind = "abstained" if kind in ("approved", "denied") else kind
        return kind, replace(decision, verdict="abstain")

    def _look(
        self, outcome: OutcomeBuilder, notification: WebhookNotification | None, due: Deadline
    ) -> Flow[Stopped | None]:
        if self.switch is None:
            return None
        campaign = outcome.subject.campaign
        stopped = yield from self.switch.look(campaign=campaign, tags=tags_of(notification), within=due)
        if stopped is not None:
            outcome.switch = stopped.mode
        return stopped

    def holds_back(
        self, approval: Approval, outcome: OutcomeBuilder, notification: WebhookNotification | None, due: Deadline
    ) -> Flow[bool]:
        """Return whether the answer of an earlier delivery must not be sent now.

        Args:
            approval: The answer.
            outcome: The delivery.
            notification: The notification; None when it could not be read.
            due: The handler's deadline.
        """
        if self.observe:
            outcome.set_error(OBSERVED)
            return True
        stopped = (yield from self._look(outcome, notification, due)) if approval.approved else None
        outcome.begin()
        if stopped is not None:
            outcome.set_error(f"Held back: {stopped.reason}", stopped.exception)
        return stopped is not None

    def before_send(
        self, approval: Approval, outcome: OutcomeBuilder, notification: WebhookNotification | None, within: Deadline
    ) -> Callable[[], Flow[None]] | None:
        """Return what looks at the switch before each request that sends an answer; None if nothing does.

        Args:
            approval: The answer.
            outcome: The delivery.
            notification: The notification; None when it could not be read.
            within: The deadline of the answer.
        """
        if self.switch is None or not approval.approved:
            return None

        def look() -> Flow[None]:
            stopped = yield from self._look(outcome, notification, within)
            if stopped is not None:
                raise HeldBackError(stopped.held_back)

        return look
