"""The outcome of a notification, and its builder."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final, Literal, final

from ..deadline import Clock
from ..errors import OptimoveError
from ..handlers import Decision, Verdict
from ..messages import Response
from ..models.notification import WebhookNotification
from .budget import Budget
from .decision_log import DecisionRecord, Subject, Told, subject_of
from .effects import original

OutcomeKind = Literal[
    "approved",
    "denied",
    "abstained",
    "failed",
    "late",
    "duplicate",
    "expired",
    "forged",
    "unreadable",
    "overloaded",
    "undelivered",
    "cancelled",
    "superseded",
]


Stage = Literal["verify", "parse", "claim", "decide", "log", "deliver"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The record of one delivery to a webhook.

    Attributes:
        kind: `approved` and `denied`: Optimove accepted the answer. `abstained`: the handler abstained, the kill
            switch did, or the receiver only observes. `failed`: the
            handler raised or returned an invalid value, the claim store was unreachable, or the host's deadline left no
            time to ask. `late`: the handler took too long. `duplicate`: answered before. `expired`: it arrived after
            its deadline. `forged`: the signature was missing or wrong. `unreadable`: it could not be understood, was
            too large, or its chunks were lost. `overloaded`: no handler was free. `undelivered`: it was decided, but
            Optimove did not accept the answer. `cancelled`: the event loop or the process ended while it was being
            answered, so no answer was given; a repeat is asked about again. `superseded`: its claim's lease ran out
            while it was being decided, and another delivery took over; nothing was sent for this one.
        status: The HTTP status of the webhook's response.
        request_uid: The notification's, when it could be read.
        series_id: The campaign series, as text; this and the next four are None or empty when the notification could
            not be read, or does not say.
        occurrence_id: The occurrence, or else its date.
        action_id: The action.
        channel_ids: The channels.
        user_id: The customer, for you to join with; the repr leaves it out, and no log line has it.
        request_uid_reused: Whether this process has seen the same `request_uid` with another customer, action or
            occurrence: then it was asked about, and answered, on its own.
        decision: The decision; after a failure that of `on_failure`. None without one.
        error: The error, in words that hold no personal data; None without one.
        exception: The exception, for your error tracker. It can hold personal data; the repr leaves it out.
        switch: What the kill switch said, if the decision is its own: `"deny"` or `"abstain"`; `"failed"` when it could
            not be looked at. None when it said to ask, and without one.
        observed: With `observe=True` the kind that it would have been; None without.
        secret_index: Which of the secrets matched; None when unsigned. While you rotate, this shows when the old one is
            no longer used.
        verify_seconds: Seconds that checking the signature took.
        parse_seconds: Seconds that parsing took.
        claim_seconds: Seconds that the claim store took, waiting for a first delivery of the same notification
            included.
        decide_seconds: Seconds that the handler took.
        log_seconds: Seconds that the decision log took before the answer was sent.
        deliver_seconds: Seconds that Optimove took to accept the answer, retries included.
        total_seconds: Seconds from arrival to response.
        budget_seconds: Seconds from arrival to Optimove's deadline; None when that could not be parsed.
    """

    kind: OutcomeKind
    status: int
    request_uid: str | None = None
    series_id: str | None = None
    occurrence_id: str | None = None
    action_id: str | None = None
    channel_ids: tuple[str, ...] = ()
    user_id: str | None = field(default=None, repr=False)
    decision: Decision | None = None
    error: str | None = None
    exception: BaseException | None = field(default=None, repr=False)
    switch: Literal["deny", "abstain", "failed"] | None = None
    observed: OutcomeKind | None = None
    secret_index: int | None = None
    request_uid_reused: bool = False
    verify_seconds: float = 0.0
    parse_seconds: float = 0.0
    claim_seconds: float = 0.0
    decide_seconds: float = 0.0
    log_seconds: float = 0.0
    deliver_seconds: float = 0.0
    total_seconds: float = 0.0
    budget_seconds: float | None = None

    @property
    def seconds_to_spare(self) -> float | None:
        """Seconds left until Optimove's deadline at the time of the response; negative after it."""
        return None if self.budget_seconds is None else self.budget_seconds - self.total_seconds


def _place(exception: BaseException) -> str:
    """Return the file, line and function that raised an exception."""
    traceback = exception.__traceback__
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    return f" at {PurePath(code.co_filename).name}:{traceback.tb_lineno} in {code.co_name}"


def _text(error: OptimoveError) -> str:
    """Return a colon and the error's text; `str` of an integrator's own subclass can fail."""
    try:
        return f": {error}"
    except Exception:  # noqa: BLE001 - whatever it is, the delivery goes on
        return ""


_UNKNOWN: Final = Subject()
KINDS: Final[Mapping[Verdict, OutcomeKind]] = {"approve": "approved", "deny": "denied", "abstain": "abstained"}
"""What a verdict leads to."""


class OutcomeBuilder:
    """Mutable builder for `Outcome`, which times the stages of the delivery too.

    Attributes:
        started: When the delivery began, on the builder's clock.
        kind: The kind of the outcome; before the end, that of a delivery that is interrupted now.
        status: The HTTP status of the response; None before the end, and for a delivery without an outcome.
        total: Seconds from the beginning to the end.
        notification: The notification, once it was parsed.
        payload: Its raw body.
        error: The error, in words that hold no personal data; None without one.
        record: The record of the decision, once the decision log was given it.
        is_recorded: Whether the log has confirmed it.
        told: What was sent to Optimove.
        taken: Whether Optimove accepted it; None when nothing was sent, or it is not known.
        switch: What the kill switch said; see `Outcome`.
        observed: What it would have been; see `Outcome`.
        asked: What the handler was asked about, what its answer led to, and the seconds that it had; only if a shadow
            is to be asked too.
    """

    kind: OutcomeKind = "cancelled"
    status: int | None = None
    total: float = 0.0
    request_uid: str | None = None
    request_uid_reused: bool = False
    notification: WebhookNotification | None = None
    payload: bytes | None = None
    record: DecisionRecord | None = None
    is_recorded: bool = False
    told: Told = "nothing"
    taken: bool | None = None
    decision: Decision | None = None
    switch: Literal["deny", "abstain", "failed"] | None = None
    observed: OutcomeKind | None = None
    asked: tuple[WebhookNotification, OutcomeKind, float] | None = None
    secret_index: int | None = None
    budget: Budget | None = None
    error: str | None = None
    _exception: BaseException | None = None

    def __init__(self, clock: Clock) -> None:
        """Start timing.

        Args:
            clock: Monotonic, in seconds.
        """
        self.started = self._began = clock()
        self._clock = clock
        self._seconds: defaultdict[Stage, float] = defaultdict(float)

    def begin(self) -> None:
        """Begin a stage; only needed after something that may have waited, and belongs to none."""
        self._began = self._clock()

    def end_of(self, stage: Stage) -> None:
        """Add the time since the end of the last stage, or since `begin`, to a stage."""
        now = self._clock()
        self._seconds[stage] += now - self._began
        self._began = now

    @functools.cached_property
    def subject(self) -> Subject:
        """What the notification asks about."""
        return _UNKNOWN if self.notification is None else subject_of(self.notification)

    @property
    def stages(self) -> dict[str, float]:
        """The seconds that each stage has taken so far, by its name."""
        return dict(self._seconds.items())

    def seconds(self, stage: Stage) -> float:
        """Return the seconds that a stage has taken so far."""
        return self._seconds.get(stage, 0.0)

    def set_error(self, what: str, exception: BaseException | None = None) -> None:
        """Set the error.

        The SDK's own errors are quoted, since they hold no personal data. Of any other only the type is named, and
        where it was raised, since its message can hold anything.
        """
        if exception is not None:
            exception = original(exception)
            details = _text(exception) if isinstance(exception, OptimoveError) else _place(exception)
            what += f": {type(exception).__name__}{details}"
        self.error, self._exception = what, exception

    def end(self, kind: OutcomeKind, response: Response) -> Response:
        """Set what became of the delivery, and return its response.

        Args:
            kind: The result of the delivery.
            response: The response.
        """
        self.kind, self.status = kind, response.status
        self.total = self._clock() - self.started
        return response

    def build(self) -> Outcome:
        """Return the outcome of a delivery that has ended. It costs more than it looks, so it waits for a listener."""
        return Outcome(
            kind=self.kind,
            status=self.status or 0,
            request_uid=self.request_uid,
            series_id=self.subject.campaign,
            occurrence_id=self.subject.occurrence,
            action_id=self.subject.action,
            channel_ids=self.subject.channels,
            user_id=self.subject.customer_id,
            request_uid_reused=self.request_uid_reused,
            decision=self.decision,
            error=self.error,
            exception=self._exception,
            switch=self.switch,
            observed=self.observed,
            secret_index=self.secret_index,
            total_seconds=self.total,
            budget_seconds=None if self.budget is None else self.budget.seconds,
            **{f"{stage}_seconds": seconds for stage, seconds in self._seconds.items()},
        )
