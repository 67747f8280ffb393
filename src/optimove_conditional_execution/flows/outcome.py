"""The outcome of a notification, and its builder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal, final

from ..deadline import Clock
from ..errors import OptimoveError
from ..handlers import Decision
from .budget import Budget
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
]


Stage = Literal["verify", "parse", "claim", "decide", "deliver"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The record of one delivery to a webhook.

    Attributes:
        kind: `approved` and `denied`: Optimove took the answer. `abstained`: the handler said so. `failed`: the handler
            raised or returned something odd, the claim store was unreachable, or the host's deadline left no time to
            ask. `late`: the handler took too long. `duplicate`: answered before. `expired`: it came after its deadline.
            `forged`: the signature was missing or wrong. `unreadable`: it could not be understood, was too large, or
            its chunks were lost. `overloaded`: no handler was free. `undelivered`: it was decided, but Optimove did not
            take the answer. `cancelled`: the event loop or the process ended while it was being answered, so no answer
            was given; a repeat is asked about again.
        status: The HTTP status of the answer to the webhook.
        request_uid: The notification's, when it could be read.
        request_uid_reused: Whether this process has seen the same `request_uid` with another customer, action or
            occurrence: then it was asked about, and answered, on its own.
        decision: What was decided; after a failure what `on_failure` says. None when nothing was.
        error: What went wrong, in words that hold no personal data; None when nothing did.
        exception: What was raised, for your error tracker. It can hold personal data; the repr leaves it out.
        secret_index: Which of the secrets matched; None when unsigned. While you rotate, this tells when the old one
            is no longer used.
        verify_seconds: How long the signature took.
        parse_seconds: How long reading took.
        claim_seconds: How long the claim store took, waiting for a first delivery of the same notification included.
        decide_seconds: How long the handler took.
        deliver_seconds: How long Optimove took to accept the answer, retries included.
        total_seconds: From arrival to answer.
        budget_seconds: How long there was from arrival to Optimove's deadline; None when it could not be read.
    """

    kind: OutcomeKind
    status: int
    request_uid: str | None = None
    decision: Decision | None = None
    error: str | None = None
    exception: BaseException | None = field(default=None, repr=False)
    secret_index: int | None = None
    request_uid_reused: bool = False
    verify_seconds: float = 0.0
    parse_seconds: float = 0.0
    claim_seconds: float = 0.0
    decide_seconds: float = 0.0
    deliver_seconds: float = 0.0
    total_seconds: float = 0.0
    budget_seconds: float | None = None

    @property
    def seconds_to_spare(self) -> float | None:
        """What was left until Optimove's deadline when the answer was given; negative when it was too late."""
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
    """Return a colon and the error's text; of a class of an integrator's own even that can fail."""
    try:
        return f": {error}"
    except Exception:  # noqa: BLE001 - whatever it is, the delivery goes on
        return ""


class OutcomeBuilder:
    """Mutable builder for `Outcome`.

    Attributes:
        kind: What the outcome is if the delivery is interrupted now.
    """

    def __init__(self, clock: Clock) -> None:
        """Begin now.

        Args:
            clock: Monotonic, in seconds.
        """
        self.started = clock()
        self.request_uid: str | None = None
        self.request_uid_reused = False
        self.decision: Decision | None = None
        self.secret_index: int | None = None
        self.budget: Budget | None = None
        self.kind: OutcomeKind = "cancelled"
        self._clock = clock
        self._seconds: dict[str, float] = {}
        self._error: str | None = None
        self._exception: BaseException | None = None

    @contextmanager
    def timing(self, stage: Stage) -> Iterator[None]:
        """Add the time that the `with` block takes to a stage."""
        started = self._clock()
        try:
            yield
        finally:
            name = f"{stage}_seconds"
            self._seconds[name] = self._seconds.get(name, 0.0) + self._clock() - started

    def seconds(self, stage: Stage) -> float:
        """Return the seconds that a stage has taken so far."""
        return self._seconds.get(f"{stage}_seconds", 0.0)

    def set_error(self, what: str, exception: BaseException | None = None) -> None:
        """Say what went wrong.

        An error of ours speaks for itself and holds no personal data. Of any other only the type is told, and where it
        was raised, since its message can hold anything.
        """
        if exception is not None:
            exception = original(exception)
            details = _text(exception) if isinstance(exception, OptimoveError) else _place(exception)
            what += f": {type(exception).__name__}{details}"
        self._error, self._exception = what, exception

    def build(self, kind: OutcomeKind, status: int) -> Outcome:
        """Return the outcome.

        Args:
            kind: What came of the delivery.
            status: The HTTP status that is answered.
        """
        return Outcome(
            kind=kind,
            status=status,
            request_uid=self.request_uid,
            request_uid_reused=self.request_uid_reused,
            decision=self.decision,
            error=self._error,
            exception=self._exception,
            secret_index=self.secret_index,
            total_seconds=self._clock() - self.started,
            budget_seconds=None if self.budget is None else self.budget.seconds,
            **self._seconds,
        )
