"""Handler protocols and decisions: the code that integrators write, for one customer or for a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast, final

from . import models
from .deadline import Deadline
from .errors import ConfigurationError, PayloadError
from .models.approval import json_object
from .models.notification import WebhookNotification

Verdict = Literal["approve", "deny", "abstain"]


@final
@dataclass(frozen=True, slots=True)
class Decision:
    """A handler's decision about one customer.

    Make one with `approve`, `deny` or `abstain`. The repr shows the verdict alone.

    Attributes:
        verdict: `"approve"`, `"deny"` or `"abstain"`.
        reason: Your words, for `on_outcome`, a review's journal and the decision log; never sent, and in no log
            line.
        additional_data: Sent with an approval or a denial; JSON only.
        evidence: What the decision rests on, for the decision log alone: the rule and its version, a reference of a
            register's answer; JSON only. Never sent.
    """

    verdict: Verdict
    reason: str | None = field(default=None, repr=False)
    additional_data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    evidence: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Validate at construction, so that the traceback points at the handler's own line."""
        if self.verdict not in ("approve", "deny", "abstain"):
            raise ConfigurationError(
                'A verdict is "approve", "deny" or "abstain": use Decision.approve(), .deny() or .abstain().'
            )
        for name in ("additional_data", "evidence"):
            given: object = getattr(self, name)
            if not isinstance(given, Mapping):
                raise PayloadError(f"{name} must be a dictionary.", path=name)
            # A copy, since the handler may go on with its own.
            copied = json_object(dict(cast("Mapping[str, Any]", given)), name) if given else {}
            object.__setattr__(self, name, copied)

    def __bool__(self) -> bool:
        """Raise: a denial that is truthy in an `if` would approve.

        Raises:
            TypeError: Always; look at `verdict`.
        """
        raise TypeError("A Decision has no truth value: return it as it is, or look at its verdict.")

    @classmethod
    def approve(
        cls,
        additional_data: Mapping[str, Any] | None = None,
        *,
        reason: str | None = None,
        evidence: Mapping[str, Any] | None = None,
    ) -> Decision:
        """Approve: the campaign may go out to the customer.

        Args:
            additional_data: A JSON object to send along.
            reason: The reason, for your own records.
            evidence: A JSON object for the decision log; never sent.

        Raises:
            PayloadError: `additional_data` or `evidence` has no JSON form.
        """
        return cls("approve", reason, _given(additional_data), _given(evidence))

    @classmethod
    def deny(
        cls,
        reason: str | None = None,
        additional_data: Mapping[str, Any] | None = None,
        *,
        evidence: Mapping[str, Any] | None = None,
    ) -> Decision:
        """Deny, finally: no other webhook of the tenant can approve any more.

        Args:
            reason: The reason, for your own records.
            additional_data: A JSON object to send along.
            evidence: A JSON object for the decision log; never sent.

        Raises:
            PayloadError: `additional_data` or `evidence` has no JSON form.
        """
        return cls("deny", reason, _given(additional_data), _given(evidence))

    @classmethod
    def abstain(cls, reason: str | None = None, *, evidence: Mapping[str, Any] | None = None) -> Decision:
        """Abstain: the campaign does not go out unless another webhook of the tenant approves in time.

        Args:
            reason: The reason, for your own records.
            evidence: A JSON object for the decision log; never sent.

        Raises:
            PayloadError: `evidence` has no JSON form.
        """
        return cls("abstain", reason, evidence=_given(evidence))


def _given(value: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {} if value is None else value


def kind_of(answer: object) -> str:
    """Return the name of a value's type, with its module unless it is Python's own: NumPy has a `bool` too."""
    kind = type(answer)
    module: object = getattr(kind, "__module__", "builtins")
    return kind.__name__ if module == "builtins" else f"{module}.{kind.__name__}"


class WebhookHandler(Protocol):
    """A handler for one customer; called in a thread of a bounded pool."""

    def __call__(self, notification: WebhookNotification, deadline: Deadline, /) -> Decision | bool:
        """Decide before the deadline.

        Args:
            notification: The customer and the campaign.
            deadline: When your answer is due; the time that delivering it takes has been taken off. An answer that
                comes later is ignored.

        Returns:
            `True` or `Decision.approve()` approves, `False` or `Decision.deny()` denies. Anything else, or an
            exception, does not approve.
        """
        ...


class AsyncWebhookHandler(Protocol):
    """A coroutine function that handles one customer; cancelled when it is late."""

    async def __call__(self, notification: WebhookNotification, deadline: Deadline, /) -> Decision | bool:
        """Decide before the deadline; see `WebhookHandler`."""
        ...


class CampaignReviewer(Protocol):
    """A reviewer: decides about a batch of customers of a scheduled campaign."""

    def __call__(
        self, customers: models.CustomerBatch, deadline: Deadline
    ) -> Iterable[str] | Mapping[str, bool | Decision]:
        """Decide about each customer of a batch.

        Called from several threads at once when the review's `concurrency` is above 1. A customer in several rows is
        asked about again when a row brings a new channel, action, template or promo code: `rows` of the customer has
        all that are known, and only who is approved by every answer is approved.

        Args:
            customers: Up to `batch_size` of them, each once: a `Sequence[CampaignCustomer]` that also says which
                campaign, batch and attempt it is.
            deadline: When to return, with those who are approved by then; a result that comes more than a moment later
                is ignored, and nobody in the batch is approved.

        Returns:
            The `customer_id` of each customer who may get the campaign; the others may not. Or a mapping of
            `customer_id` to `True`, `False` or a `Decision`; who is missing may not. A customer for whom it holds
            anything else counts as failed. Abstaining means: not approved, and never reported.

        Raises:
            Exception: Whatever you raise fails this batch: nobody in it is approved. It is asked about again.
        """
        ...


class AsyncCampaignReviewer(Protocol):
    """A reviewer that is a coroutine function; see `CampaignReviewer`."""

    async def __call__(
        self, customers: models.CustomerBatch, deadline: Deadline
    ) -> Iterable[str] | Mapping[str, bool | Decision]:
        """Decide about each customer of a batch."""
        ...
