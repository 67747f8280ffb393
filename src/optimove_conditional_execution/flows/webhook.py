"""Flow of one notification of a triggered campaign, from the request to the response.

Nothing is approved by accident: the only place that builds an approval is `_Processing._build_approval`, its decision
comes from `_Processing._decide`, and every failure before that ends in `_Processing._fallback`.

A file of its own, since a flow does no IO; `receivers.webhook` adds threads and tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from ..deadline import Clock, Deadline, TransitEstimate
from ..errors import ConfigurationError, HeldBackError, OptimoveError, PayloadError, SignatureError, was_processed
from ..handlers import Decision, kind_of
from ..messages import LOST_IN_CHUNKS, Request, Response, body_fault, is_lost_in_chunks, plain
from ..models.approval import Approval
from ..models.base import LAST_MILLISECOND
from ..models.notification import NotificationEnvelope, WebhookNotification, read_notification
from ..operations import DEFAULT_TIMEOUT_MS, send_webhook_approval
from ..signature import SIGNATURE_HEADERS, UNSIGNED, Keys, match, received_signature
from .budget import Budget, BudgetEstimator, default_lease
from .claims import Claim, ClaimState, ClaimStore, LeasedClaim, Questions, StoreOutage, backoff, question_of
from .effects import Ask, Call, Flow, Late, Overloaded
from .outcome import KINDS, OutcomeBuilder, OutcomeKind

if TYPE_CHECKING:  # loaded by the receivers that use them
    from .controls import Controls
    from .delivery_log import DeliveryLog

OnFailure = Literal["abstain", "deny"]
OnStoreFailure = Literal["refuse", "decide"]

_HURRIED_SAVING: Final = 0.1
"""Seconds that a claim store may take to record a result after the host's deadline; hosts reserve more than that."""

_UNCLAIMED_PATIENCE: Final = 0.1
"""Seconds for which an answer that was decided without a claim is tried to be recorded before it is sent."""

_NO_TIME: Final = "The deadline of the host, that is handle's deadline=, leaves no time to ask."


@dataclass(eq=False, frozen=True, slots=True, kw_only=True)
class WebhookContext:
    """The configuration and state that the flow needs.

    Attributes:
        handler: The integrator's function of a notification and a deadline.
        pause: Sleeps for a number of seconds.
        claims: The claim store.
        keys: The secrets, or `UNSIGNED`.
        on_failure: The decision when the handler fails or is late.
        max_body: Bytes.
        estimator: Estimates the time budget of a notification.
        clock: Monotonic, in seconds.
        lease: Seconds of a claim's lease; None: by the budget.
        on_store_failure: What to do when the claim store stays unreachable.
        decisions: The decision log; None without one.
        questions: The questions of recent notifications.
        outage: When the claim store last failed.
        controls: What stands between the handler and its answer; None if nothing does.
    """

    handler: Callable[[WebhookNotification, Deadline], Any]
    pause: Callable[[float], Any]
    claims: ClaimStore
    keys: Keys
    on_failure: OnFailure
    max_body: int
    estimator: BudgetEstimator
    clock: Clock
    lease: float | None = None
    on_store_failure: OnStoreFailure = "refuse"
    decisions: DeliveryLog | None = None
    questions: Questions = field(default_factory=Questions)
    outage: StoreOutage = field(default_factory=StoreOutage)
    controls: Controls | None = None

    def claim_of(self, question: str, budget: Budget) -> LeasedClaim:
        """Return the claim that a delivery is to acquire."""
        seconds = budget.deadline.remaining()
        lease = patience = default_lease(seconds) if self.lease is None else min(self.lease, seconds)
        if self.lease is None and self.claims.instant:
            lease = seconds  # what is in memory dies with its owner, so nobody has to take over
        return LeasedClaim(
            store=self.claims,
            question=question,
            lease=lease,
            deadline=budget.deadline,
            kept=budget.kept,
            patience=patience if self.on_store_failure == "decide" else None,
            pause=self.pause,
            clock=self.clock,
            outage=self.outage,
        )


def answer_notification(
    request: Request, context: WebhookContext, outcome: OutcomeBuilder, *, host: Deadline | None = None
) -> Flow[Response]:
    """Answer a request to a webhook, and complete its record in the decision log.

    Args:
        request: The request.
        context: The receiver's configuration and state.
        outcome: The builder of the outcome. It has no status afterwards if the request was none about a notification.
        host: The deadline of a host that ends the call, such as AWS Lambda; None without one.
    """
    response = _examine(request, context, outcome, host)
    if isinstance(response, _Processing):
        processing = response
        kind, status = yield from processing.run()
        response = (
            _cannot_be_understood(outcome) if processing.notification is None else outcome.end(kind, plain(status))
        )
    if context.decisions is not None and outcome.status is not None:
        yield from context.decisions.finish(outcome, host=host)
    return response


def _examine(
    request: Request, context: WebhookContext, outcome: OutcomeBuilder, host: Deadline | None
) -> Response | _Processing:
    """Check and parse a request; return its response, or what processes it."""
    if request.method != "POST":
        return plain(405, "Only POST is answered here.", headers={"allow": "POST"})
    if len(request.body) > context.max_body:
        return too_large(context, outcome)
    if is_lost_in_chunks(request):
        outcome.set_error(LOST_IN_CHUNKS)
        return outcome.end("unreadable", plain(411, "The body is empty: send it with its length."))
    try:
        if context.keys is not UNSIGNED:
            outcome.secret_index = match(request.body, received_signature(request), context.keys)
    except SignatureError as error:
        outcome.set_error(_why_forged(request, error))
        return outcome.end("forged", plain(401, "The signature is missing or wrong."))
    finally:
        outcome.end_of("verify")
    try:
        notification = read_notification(request.body)
    except PayloadError as error:
        # A valid signature proves that the body is complete, and a named field that it could be parsed.
        unsure = context.keys is UNSIGNED and not error.path
        outcome.set_error((unsure and body_fault(request)) or str(error))
        return _unreadable(request.body, context, outcome, host)
    finally:
        outcome.end_of("parse")
    outcome.request_uid = notification.request_uid
    outcome.notification = notification
    outcome.payload = request.body
    outcome.budget = context.estimator.budget(
        sent_ms=notification.timestamp,
        deadline_ms=notification.conditional_execution_approval_deadline,
        received=outcome.started,
        host=host,
    )
    if outcome.budget.deadline.expired:
        if host is not None and outcome.budget.seconds > 0 and host.expired:
            outcome.set_error(_NO_TIME)
            return outcome.end("failed", plain(503, "No time is left."))
        return outcome.end("expired", plain(200))
    question = question_of(notification)
    outcome.request_uid_reused = context.questions.contradict(notification.request_uid, question)
    claim = context.claim_of(question, outcome.budget)
    return _Processing(
        context, outcome, claim, notification.request_uid, notification.timestamp, outcome.budget, notification, host
    )


def interrupted(outcome: OutcomeBuilder, interruption: BaseException) -> None:
    """End a delivery that was interrupted before it had a response."""
    outcome.set_error(f"The delivery was interrupted by {type(interruption).__name__}.")
    outcome.end(outcome.kind, plain(503))


def _why_forged(request: Request, error: SignatureError) -> str:
    """Return what is wrong with the body, if the headers show it; otherwise the error of the signature."""
    fault = body_fault(request)
    signed = any(request.header_values(name) for name in SIGNATURE_HEADERS)
    return " ".join(text for text in (None if signed and fault else str(error), fault) if text)


def too_large(context: WebhookContext, outcome: OutcomeBuilder) -> Response:
    """Reject a body that is over the limit."""
    outcome.set_error(f"The body is longer than {context.max_body} bytes.")
    return outcome.end("unreadable", plain(413, "The body is too large."))


def _unreadable(
    body: bytes, context: WebhookContext, outcome: OutcomeBuilder, host: Deadline | None
) -> Response | _Processing:
    """Respond with 400; if at least the envelope can be parsed, `on_failure` still decides."""
    try:
        envelope = NotificationEnvelope.from_json(body)
    except PayloadError:
        return _cannot_be_understood(outcome)
    outcome.request_uid = envelope.request_uid
    if context.on_failure != "deny":
        return _cannot_be_understood(outcome)
    deadline_ms = envelope.conditional_execution_approval_deadline
    stamp: object = envelope.timestamp
    transit: TransitEstimate | None = None
    # An invalid time stamp is kept as received: a negative or a huge number too.
    if isinstance(stamp, int) and not isinstance(stamp, bool) and 0 <= stamp <= LAST_MILLISECOND:
        sent_ms = stamp
    else:
        theirs = context.estimator.transit.sender_now(now=outcome.started)
        sent_ms = max(0, deadline_ms - DEFAULT_TIMEOUT_MS) if theirs is None else round(theirs * 1000)
        transit = TransitEstimate()  # a new one: a forged time stamp must not influence the shared estimate
    outcome.budget = context.estimator.budget(
        sent_ms=sent_ms, deadline_ms=deadline_ms, received=outcome.started, transit=transit, host=host
    )
    if outcome.budget.deadline.expired:
        return _cannot_be_understood(outcome)
    claim = context.claim_of(question_of(envelope), outcome.budget)
    return _Processing(context, outcome, claim, envelope.request_uid, sent_ms, outcome.budget, None, host)


def _cannot_be_understood(outcome: OutcomeBuilder) -> Response:
    return outcome.end("unreadable", plain(400, "The notification cannot be understood."))


_ADVICE: Final = {
    "coroutine": " Is an await missing?",
    "method": " Call it: Decision.approve().",
    "function": " Is a pair of parentheses missing?",
}
_WRAP: Final = " Wrap it: bool(...)."


class _InvalidAnswer(OptimoveError):  # noqa: N818 - never raised to users
    """A handler's answer is none; `raised` is what it raised when it was looked at."""

    def __init__(self, text: str, raised: Exception | None = None) -> None:
        super().__init__(text)
        self.raised = raised


def read_answer(answer: object) -> Decision:
    """Return the decision that a handler's answer is.

    Raises:
        OptimoveError: It is none; the message says what is wrong, and holds no personal data.
    """
    if answer is True:
        return Decision("approve")
    if answer is False:
        return Decision("deny")
    if isinstance(answer, Decision):
        try:
            # Validated again: its additional_data may have been changed since.
            return replace(answer)
        except Exception as error:  # noqa: BLE001 - a stand-in for a Decision, as tests make them, may raise anything
            raise _InvalidAnswer("The handler's decision is invalid", error) from None
    kind = kind_of(answer)
    advice = _ADVICE.get(kind, _WRAP if kind.endswith((".bool", ".bool_")) else "")
    raise _InvalidAnswer(f"The handler returned {kind}; it must return a bool or a Decision.{advice}")


_SETTLED: Final = Claim(ClaimState.SETTLED)
_Result = tuple[OutcomeKind, int]


@dataclass(eq=False, slots=True)
class _Processing:
    """The processing of a notification before its deadline. If the handler cannot be called, `on_failure` decides."""

    context: WebhookContext
    outcome: OutcomeBuilder
    claim: LeasedClaim
    uid: str
    sent_ms: int
    budget: Budget
    notification: WebhookNotification | None
    host: Deadline | None

    def run(self) -> Flow[_Result]:
        """Claim, decide, record, deliver, settle."""
        outcome, claim = self.outcome, self.claim
        try:
            try:
                held = yield from claim.acquire()
            finally:
                outcome.end_of("claim")
            if held.approval is not None and held.approval.request_uid != self.uid:
                raise ConfigurationError("The claim store returned the answer to another notification.")
        except Exception as error:  # noqa: BLE001 - a store may raise anything; whatever it is, nothing is approved
            outcome.set_error("The claim store is unreachable", error)
            if self.context.on_store_failure == "refuse":
                return "failed", 503
            held = Claim(ClaimState.OPEN, mine=True)
            claim = replace(claim, patience=_UNCLAIMED_PATIENCE)
        if held.state is ClaimState.SETTLED:
            return "duplicate", 200
        if not held.mine:
            outcome.set_error("The first delivery of this notification has not been settled.")
            return "duplicate", 503
        approval, controls = held.approval, self.context.controls
        again = approval is not None
        due = self.budget.handler_deadline
        try:
            if approval is not None:
                if controls is not None and (yield from controls.holds_back(approval, outcome, self.notification, due)):
                    yield from self._save(Claim(ClaimState.UNDELIVERED, approval))
                    return "undelivered", 503
                kind: OutcomeKind = yield from self._redeliver(approval)
            else:
                kind, decision = yield from (
                    self._decide()
                    if controls is None
                    else controls.decide(outcome, self.notification, due, ask=self._decide, fallback=self._fallback)
                )
                if decision is None:
                    yield from self._save(None)
                    return kind, 503
                if self.context.decisions is not None:
                    kind, decision = yield from self._log(self.context.decisions, kind, decision)
                outcome.decision = decision
                approval = self._build_approval(decision)
                # Recorded before it is sent: whoever takes over the claim from now on sends the same answer.
                stopped = None if approval is None else (yield from self._record(claim, approval))
                if stopped is not None:
                    return stopped
            failure = None if approval is None else (yield from self._deliver(approval, again=again))
        except GeneratorExit:  # no effect can be yielded any more; the claim's lease runs out
            raise
        except BaseException:
            # The event loop or the process ends. A repeat may ask again, but must not send a second answer.
            outcome.begin()
            yield from self._save(None if approval is None else Claim(ClaimState.UNDELIVERED, approval))
            raise
        if failure is not None:
            if isinstance(failure, HeldBackError):
                outcome.set_error(str(failure))
            else:
                verb = "take" if outcome.taken is False else "confirm"
                outcome.set_error(f"Optimove did not {verb} the answer", failure)
            yield from self._save(Claim(ClaimState.UNDELIVERED, approval))
            return "undelivered", 503
        outcome.kind = kind  # whatever happens from here on
        try:
            is_ours = yield from self._save(_SETTLED)
        except GeneratorExit:
            raise
        except BaseException:  # an interruption that came while the decision was recorded, and is raised only now
            yield from self._save(_SETTLED)
            raise
        return kind if is_ours or approval is not None else self._superseded(), 200

    def _log(
        self, log: DeliveryLog, kind: OutcomeKind, decision: Decision, *, again: bool = False
    ) -> Flow[tuple[OutcomeKind, Decision]]:
        """Write a decision to the log before it counts; if that fails, an approval becomes what `on_failure` says."""
        left, unused = self.budget.deadline.remaining(), self.budget.handler_deadline.remaining()
        may_leave = yield from log.record(
            self.outcome,
            kind,
            decision,
            within=self.budget.deadline.earlier_by((left - unused) / 2),  # the rest of the reserve is for the answer
            redelivered=again,
            meanwhile=self.claim.renew,
            every=self.claim.renewal,
        )
        return (kind, decision) if may_leave else ("failed", self._fallback())

    def _record(self, claim: LeasedClaim, approval: Approval) -> Flow[_Result | None]:
        """Record an answer before it is sent; the result is None if it may be sent."""
        try:
            is_ours = yield from claim.record(approval)
        except Exception as error:  # noqa: BLE001 - a store may raise anything
            self.outcome.set_error("The claim store is unreachable", error)
            return None if self.context.on_store_failure == "decide" else ("failed", 503)
        finally:
            self.outcome.end_of("claim")
        return None if is_ours else (self._superseded(), 200)

    def _superseded(self) -> OutcomeKind:
        self.outcome.set_error("Its lease ran out, and another delivery of this notification took over.")
        return "superseded"

    def _decide(self) -> Flow[tuple[OutcomeKind, Decision | None]]:
        """Call the handler; the decision is None when it could not be called."""
        if self.notification is None:
            return "unreadable", self._fallback()
        due = self.budget.handler_deadline
        try:
            try:
                answer = yield from self._ask_handler(self.notification, due)
            finally:
                self.outcome.end_of("decide")
            if due.expired:
                raise Late
        except Overloaded:
            self.outcome.set_error("All handlers are busy.")
            return "overloaded", None
        except Late as late:
            self.outcome.set_error(f"The handler did not answer in time.{_blocked_loop(late)}")
            return "late", self._fallback()
        except Exception as error:  # noqa: BLE001 - whatever the handler raises, it does not approve
            self.outcome.set_error("The handler raised", error)
            return "failed", self._fallback()
        try:
            decision = read_answer(answer)
        except _InvalidAnswer as invalid:
            self.outcome.set_error(str(invalid), invalid.raised)
            return "failed", self._fallback()
        return KINDS[decision.verdict], decision

    def _ask_handler(self, notification: WebhookNotification, due: Deadline) -> Flow[object]:
        """Call the handler, and renew the lease meanwhile; after an outage of the store, wait until one is free."""
        context, claim = self.context, self.claim
        ask = Ask(context.handler, (notification, due), due, meanwhile=claim.renew, every=claim.renewal)
        pauses: Iterator[float] | None = None
        renewed = 0.0
        while True:
            try:
                return (yield ask)
            except Overloaded:
                # What has waited for the store comes all at once.
                if due.expired or context.clock() - context.outage.at > self.budget.seconds:
                    raise
            if pauses is None:
                pauses, renewed = backoff(), context.clock()
            yield Ask(context.pause, (min(next(pauses), due.remaining()),))
            if context.clock() - renewed >= claim.renewal:
                yield from claim.renew()
                renewed = context.clock()

    def _fallback(self) -> Decision:
        return Decision.deny() if self.context.on_failure == "deny" else Decision.abstain()

    def _build_approval(self, decision: Decision) -> Approval | None:
        if decision.verdict == "abstain":
            return None
        # Now, on Optimove's clock as derived from its own time stamps: ours may be wrong.
        elapsed = self.budget.transit + self.context.clock() - self.outcome.started
        return Approval(
            timestamp=min(self.sent_ms + round(elapsed * 1000), LAST_MILLISECOND),
            request_uid=self.uid,
            approved=decision.verdict == "approve",
            additional_data=dict(decision.additional_data),
        )

    def _redeliver(self, approval: Approval) -> Flow[OutcomeKind]:
        """Record the decision of an earlier delivery, which is sent again."""
        verdict: Literal["approve", "deny"] = "approve" if approval.approved else "deny"
        decision = self.outcome.decision = Decision(verdict, None, approval.additional_data)
        if self.context.decisions is None:
            return KINDS[verdict]
        kind, _ = yield from self._log(self.context.decisions, KINDS[verdict], decision, again=True)
        return kind

    def _deliver(self, approval: Approval, *, again: bool) -> Flow[Exception | None]:
        """Send the answer; return the error if Optimove did not accept it, or None."""
        failure: Exception | None = None
        controls, deadline = self.context.controls, self.budget.deadline
        before_send = (
            None if controls is None else controls.before_send(approval, self.outcome, self.notification, deadline)
        )
        self.outcome.told = "approved" if approval.approved else "denied"
        try:
            yield Call(send_webhook_approval(approval), deadline, before_send)
        except Exception as error:  # noqa: BLE001 - whatever the client raises, the answer was not accepted
            failure = error
        finally:
            self.outcome.end_of("deliver")
        self.outcome.taken = was_processed(failure)
        if self.outcome.taken is False and isinstance(failure, HeldBackError):
            self.outcome.told, self.outcome.taken = "nothing", None
        elif self.outcome.taken is False and again:
            self.outcome.taken = None  # what an earlier delivery sent may have arrived
        if failure is None or isinstance(failure, TimeoutError):  # it would have taken at least as long
            took = self.outcome.seconds("log") + self.outcome.seconds("deliver")
            self.context.estimator.reserve.observe(took)
        return failure

    def _save(self, claim: Claim | None) -> Flow[bool]:
        """Save the state of the claim; the answer to Optimove stands even if that fails. False: it was not ours."""
        within: Deadline | None = None
        if self.host is not None:
            within = Deadline.after(max(self.host.remaining(), _HURRIED_SAVING), clock=self.context.clock)
        try:
            return (yield from self.claim.finish(claim, within=within))
        except Exception as error:  # noqa: BLE001 - a store may raise anything
            self.outcome.set_error("The claim store lost the answer", error)
            return True
        finally:
            self.outcome.end_of("claim")


def _blocked_loop(late: Late) -> str:
    if not late.blocked:
        return ""
    return (
        f" The event loop was blocked for {late.blocked:.1f} s past the deadline: a coroutine must not block. Await "
        "what it waits for, or make the handler a plain function, which runs in a thread."
    )
