"""One notification of a triggered campaign, from its bytes to its answer.

Nothing is approved by accident: the one place that makes an approving answer is `_Question._approval`, what it may say
is decided in `_Question._decided`, and everything that goes wrong on the way there ends in `_Question._failed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, final

from optimove_conditional_execution.deadline import Clock, Deadline, TransitEstimate
from optimove_conditional_execution.errors import PayloadError, SignatureError
from optimove_conditional_execution.flows.bodies import LOST_IN_CHUNKS, body_fault, is_lost_in_chunks
from optimove_conditional_execution.flows.budget import Budget, Reserve, budget
from optimove_conditional_execution.flows.claims import (
    Claim,
    ClaimState,
    ClaimStore,
    Questions,
    note,
    question_of,
    take,
)
from optimove_conditional_execution.flows.effects import Ask, Flow, Late, Overloaded
from optimove_conditional_execution.flows.outcome import Outcome, OutcomeKind, Record
from optimove_conditional_execution.handlers import Decision, kind_of
from optimove_conditional_execution.messages import Request, Response, plain
from optimove_conditional_execution.models.approval import Approval
from optimove_conditional_execution.models.base import LAST_MILLISECOND
from optimove_conditional_execution.models.notification import (
    NotificationEnvelope,
    WebhookNotification,
    read_notification,
)
from optimove_conditional_execution.signature import SIGNATURE_HEADERS, UNSIGNED, Keys, match, received_signature

OnFailure = Literal["abstain", "deny"]
Answer = tuple[Response, Outcome | None]

_NOTING: Final = 2.0
"""Seconds that a claim store gets to write an answer down; Optimove's deadline may be over by then."""

_HURRIED_NOTING: Final = 0.1
"""The same when the host's deadline is over; hosts that end us are asked to leave more than that."""

_NO_TIME: Final = "The deadline of the host, that is handle's deadline=, leaves no time to ask."

_UNKNOWN_BUDGET_MS: Final = 5_000
"""What is left to answer a notification whose time stamp is unreadable: Optimove's default timeout."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """All that answering notifications needs: the integrator's code, the rules, and what was learned so far.

    Attributes:
        handler: The integrator's function of a notification and a deadline.
        deliver: Sends an approval before a deadline.
        pause: Waits so many seconds.
        claims: Who answers what.
        keys: The secrets, or `UNSIGNED`.
        on_failure: What a handler that fails or is late means.
        max_body: Bytes.
        transit: How late notifications are.
        reserve: How long delivering takes.
        clock: Monotonic, in seconds.
        questions: What the last notifications asked.
        wall_clock: Seconds since 1970; read only to tell whether a deadline has passed that seems to have.
    """

    handler: Callable[[WebhookNotification, Deadline], Any]
    deliver: Callable[[Approval, Deadline], Any]
    pause: Callable[[float], Any]
    claims: ClaimStore
    keys: Keys
    on_failure: OnFailure
    max_body: int
    transit: TransitEstimate
    reserve: Reserve
    clock: Clock
    wall_clock: Clock
    questions: Questions = field(default_factory=Questions)

    def budget(
        self,
        *,
        sent_ms: int,
        deadline_ms: int,
        received: float,
        transit: TransitEstimate | None = None,
        host: Deadline | None = None,
    ) -> Budget:
        """Return the time that a notification leaves; see `flows.budget`."""
        return budget(
            sent_ms=sent_ms,
            deadline_ms=deadline_ms,
            received=received,
            transit=self.transit if transit is None else transit,
            reserve=self.reserve,
            clock=self.clock,
            wall_clock=self.wall_clock,
            host=host,
        )


def answer_notification(
    request: Request, desk: Desk, record: Record | None = None, *, host: Deadline | None = None
) -> Flow[Answer]:
    """Answer a request that came to a webhook; the flow's result is the answer, and the record of it if it is one.

    Args:
        request: The request.
        desk: All that answering needs.
        record: Where it is written down how far it got, for callers that tell of an interrupted delivery too.
        host: When whatever runs us will end us; None if it does not.
    """
    record = Record(desk.clock) if record is None else record
    if request.method != "POST":
        return plain(405, "Only POST is answered here.", headers={"allow": "POST"}), None
    if len(request.body) > desk.max_body:
        return too_large(desk)
    if is_lost_in_chunks(request):
        record.blame(LOST_IN_CHUNKS)
        return plain(411, "The body is empty: send it with its length."), record.outcome("unreadable", 411)
    try:
        if desk.keys is not UNSIGNED:
            record.secret_index = match(request.body, received_signature(request), desk.keys)
    except SignatureError as error:
        record.stage("verify")
        record.blame(_why_forged(request, error))
        return plain(401, "The signature is missing or wrong."), record.outcome("forged", 401)
    record.stage("verify")
    try:
        notification = read_notification(request.body)
    except PayloadError as error:
        record.stage("parse")
        # A signature that fits says that the body is whole, and a field that is named that it could be read.
        unsure = desk.keys is UNSIGNED and not error.path
        record.blame((unsure and body_fault(request)) or str(error))
        return (yield from _unreadable(request.body, desk, record, host))
    record.request_uid = notification.request_uid
    record.budget = desk.budget(
        sent_ms=notification.timestamp,
        deadline_ms=notification.conditional_execution_approval_deadline,
        received=record.started,
        host=host,
    )
    record.stage("parse")
    if record.budget.deadline.expired:
        if host is not None and record.budget.seconds > 0 and host.expired:
            record.blame(_NO_TIME)
            return plain(503, "No time is left."), record.outcome("failed", 503)
        return plain(200), record.outcome("expired", 200)
    asked = question_of(notification)
    record.request_uid_reused = desk.questions.contradict(notification.request_uid, asked)
    kind, status = yield from _Question(
        desk, record, asked, notification.request_uid, notification.timestamp, record.budget, notification, host
    ).answered()
    return plain(status), record.outcome(kind, status)


def interrupted(record: Record, interruption: BaseException) -> Outcome:
    """Return what becomes of a delivery that was ended from outside before it had an answer."""
    record.blame(f"The delivery was interrupted by {type(interruption).__name__}.")
    return record.outcome(record.kind, 503)


def _why_forged(request: Request, error: SignatureError) -> str:
    """Say what is wrong with the body, if the headers tell; else the signature is what is to be looked at."""
    fault = body_fault(request)
    signed = any(request.header_values(name) for name in SIGNATURE_HEADERS)
    return " ".join(text for text in (None if signed and fault else str(error), fault) if text)


def too_large(desk: Desk) -> Answer:
    """Refuse a body that is over the limit."""
    record = Record(desk.clock)
    record.blame(f"The body is longer than {desk.max_body} bytes.")
    return plain(413, "The body is too large."), record.outcome("unreadable", 413)


def _unreadable(body: bytes, desk: Desk, record: Record, host: Deadline | None) -> Flow[Answer]:
    """Answer 400; where the question can be told from the rest, `on_failure` still answers it."""
    try:
        envelope = NotificationEnvelope.from_json(body)
    except PayloadError:
        return plain(400, "The notification cannot be understood."), record.outcome("unreadable", 400)
    record.request_uid = envelope.request_uid
    if desk.on_failure == "deny":
        sent_ms, transit = _sent(envelope, desk, record)
        record.budget = desk.budget(
            sent_ms=sent_ms,
            deadline_ms=envelope.conditional_execution_approval_deadline,
            received=record.started,
            transit=transit,
            host=host,
        )
        if not record.budget.deadline.expired:
            asked = question_of(envelope)
            question = _Question(desk, record, asked, envelope.request_uid, sent_ms, record.budget, None, host)
            yield from question.answered()
    return plain(400, "The notification cannot be understood."), record.outcome("unreadable", 400)


def _sent(envelope: NotificationEnvelope, desk: Desk, record: Record) -> tuple[int, TransitEstimate]:
    stamp: object = envelope.timestamp
    # Whatever is no moment was kept as it came: a negative or a huge number too.
    if isinstance(stamp, int) and not isinstance(stamp, bool) and 0 <= stamp <= LAST_MILLISECOND:
        return stamp, desk.transit
    theirs = desk.transit.sender_now(now=record.started)
    if theirs is None:
        stamp = max(0, envelope.conditional_execution_approval_deadline - _UNKNOWN_BUDGET_MS)
    else:
        stamp = round(theirs * 1000)
    return stamp, TransitEstimate()  # an estimate of its own: a made-up time stamp must not count among the real ones


_ADVICE: Final = {
    "coroutine": " Is an await missing?",
    "method": " Call it: Decision.approve().",
    "function": " Is a pair of parentheses missing?",
}
_WRAP: Final = " Wrap it: bool(...)."


def _standstill(late: Late) -> str:
    if not late.blocked:
        return ""
    return (
        f" The event loop stood still for {late.blocked:.1f} s past the deadline: a coroutine must not block. Await "
        "what it waits for, or make the handler a plain function, which runs in a thread."
    )


_Result = tuple[OutcomeKind, int]
_KINDS: Final[dict[str, OutcomeKind]] = {"approve": "approved", "deny": "denied", "abstain": "abstained"}


@final
@dataclass(frozen=True, slots=True)
class _Question:
    """A notification that came in time. Without one to ask the handler about, `on_failure` decides."""

    desk: Desk
    record: Record
    asked: str
    uid: str
    sent_ms: int
    time: Budget
    notification: WebhookNotification | None
    host: Deadline | None

    def answered(self) -> Flow[_Result]:
        """Claim, decide, deliver, write down."""
        try:
            held = yield from take(self.desk.claims, self.asked, self.time.deadline, pause=self.desk.pause)
        except Exception as error:  # noqa: BLE001 - a store may raise anything; whatever it is, nothing is approved
            self.record.stage("claim")
            self.record.blame("The claim store is unreachable", error)
            return "failed", 503
        self.record.stage("claim")
        if held is not None and held.state is ClaimState.SETTLED:
            return "duplicate", 200
        if held is not None and held.approval is None:
            self.record.blame("The first delivery of this notification has not been settled.")
            return "duplicate", 503
        approval: Approval | None = None
        try:
            if held is not None:
                approval = held.approval
                kind: OutcomeKind = self._repeated(held)
            else:
                kind, decision = yield from self._decided()
                if decision is None:
                    yield from self._noted(None)
                    return kind, 503
                self.record.decision = decision
                approval = self._approval(decision)
            failure = None if approval is None else (yield from self._delivered(approval))
        except GeneratorExit:  # nothing can be asked any more; the claim stays open, which approves nothing
            raise
        except BaseException:
            # The event loop or the process ends. A repeat may ask again, but must not get a second answer.
            yield from self._noted(None if approval is None else Claim(ClaimState.UNDELIVERED, approval))
            raise
        if failure is not None:
            self.record.blame("Optimove did not take the answer", failure)
            yield from self._noted(Claim(ClaimState.UNDELIVERED, approval))
            return "undelivered", 503
        self.record.kind = kind  # whatever comes now
        yield from self._noted(Claim(ClaimState.SETTLED))
        return kind, 200

    def _decided(self) -> Flow[tuple[OutcomeKind, Decision | None]]:
        """Ask the handler; the decision is None when it could not be asked."""
        if self.notification is None:
            return "unreadable", self._failed()
        thinking = self.time.thinking
        try:
            answer: object = yield Ask(self.desk.handler, (self.notification, thinking), thinking)
            if thinking.expired:
                raise Late
        except Overloaded:
            self.record.stage("decide")
            self.record.blame("All handlers are busy.")
            return "overloaded", None
        except Late as late:
            self.record.stage("decide")
            self.record.blame(f"The handler did not answer in time.{_standstill(late)}")
            return "late", self._failed()
        except Exception as error:  # noqa: BLE001 - whatever the handler raises, it does not approve
            self.record.stage("decide")
            self.record.blame("The handler raised", error)
            return "failed", self._failed()
        self.record.stage("decide")
        if answer is True:
            return "approved", Decision.approve()
        if answer is False:
            return "denied", Decision.deny()
        if isinstance(answer, Decision):
            try:
                # Taken anew: somebody may have put something else into its additional_data meanwhile.
                return _KINDS[answer.verdict], replace(answer)
            except Exception as error:  # noqa: BLE001 - a stand-in for a Decision, as tests make them, may raise anything
                self.record.blame("The handler's decision makes no sense", error)
                return "failed", self._failed()
        kind = kind_of(answer)
        advice = _ADVICE.get(kind, _WRAP if kind.endswith((".bool", ".bool_")) else "")
        self.record.blame(f"The handler returned {kind}; it must return a bool or a Decision.{advice}")
        return "failed", self._failed()

    def _failed(self) -> Decision:
        return Decision.deny() if self.desk.on_failure == "deny" else Decision.abstain()

    def _approval(self, decision: Decision) -> Approval | None:
        if decision.verdict == "abstain":
            return None
        # Now, on Optimove's clock as its own time stamp shows it: ours may be wrong.
        elapsed = self.time.transit + self.desk.clock() - self.record.started
        return Approval(
            timestamp=min(self.sent_ms + round(elapsed * 1000), LAST_MILLISECOND),
            request_uid=self.uid,
            approved=decision.verdict == "approve",
            additional_data=dict(decision.additional_data),
        )

    def _repeated(self, held: Claim) -> OutcomeKind:
        approval = held.approval
        assert approval is not None  # noqa: S101 - `answered` has ruled it out
        verdict: Literal["approve", "deny"] = "approve" if approval.approved else "deny"
        self.record.decision = Decision(verdict, None, approval.additional_data)
        return _KINDS[verdict]

    def _delivered(self, approval: Approval) -> Flow[Exception | None]:
        """Send the answer; return why Optimove did not take it, or None."""
        try:
            yield Ask(self.desk.deliver, (approval, self.time.deadline))
        except Exception as error:  # noqa: BLE001 - whatever the client raises, the answer was not taken
            seconds = self.record.stage("deliver")
            if isinstance(error, TimeoutError):
                self.desk.reserve.observe(seconds)  # it would have taken at least as long
            return error
        self.desk.reserve.observe(self.record.stage("deliver"))
        return None

    def _noted(self, claim: Claim | None) -> Flow[None]:
        """Write down how far it has got; the answer to Optimove stands even if that fails."""
        within = _NOTING if self.host is None else min(_NOTING, max(self.host.remaining(), _HURRIED_NOTING))
        lost = yield from note(
            self.desk.claims, self.asked, claim, within=Deadline.after(within, clock=self.desk.clock)
        )
        self.record.stage("claim")
        if lost is not None:
            self.record.blame("The claim store lost the answer", lost)
