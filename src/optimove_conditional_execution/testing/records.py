"""What the stand-in for Optimove remembers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, final

from optimove_conditional_execution.messages import Request, Response
from optimove_conditional_execution.models.approval import Approval

Result = Literal["pending", "approved", "denied", "unanswered"]


@final
@dataclass(frozen=True, slots=True)
class Call:
    """A request that the fake has answered.

    Attributes:
        operation: The call's name, such as `create_webhook`; empty for a path that is none.
        request: What came.
        status: What was answered.
        at_ms: When, in milliseconds since 1970.
    """

    operation: str
    request: Request
    status: int
    at_ms: int


@final
@dataclass(frozen=True, slots=True)
class Delivery:
    """A notification for one webhook, to be posted by whoever has a socket.

    Attributes:
        url: Where to.
        request: What to post, signed.
    """

    url: str
    request: Request


@final
@dataclass(slots=True)
class Question:
    """A notification that the fake has sent out, and what came back.

    Attributes:
        request_uid: Its name.
        user_id: The customer.
        sent_ms: When it was made, in milliseconds since 1970.
        deadline_ms: Until when an answer counts.
        answer: The first answer that came in time; None when none did.
        answered_ms: When it came.
        ignored: Answers that did not count: later ones, and late ones.
        responses: What the webhooks answered over HTTP, in order.
    """

    request_uid: str
    user_id: str
    sent_ms: int
    deadline_ms: int
    answer: Approval | None = None
    answered_ms: int | None = None
    ignored: list[Approval] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)

    @property
    def approved(self) -> bool:
        """Whether the customer gets the campaign. Silence is a no."""
        return self.answer is not None and self.answer.approved

    @property
    def latency_ms(self) -> int | None:
        """Milliseconds from notification to answer; None without one."""
        return None if self.answered_ms is None else self.answered_ms - self.sent_ms
