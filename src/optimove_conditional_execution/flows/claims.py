"""Claims on notifications, so that each is decided once however often it is delivered: the protocol, and its use.

The unit of a claim is a question: may this customer get this action of this occurrence? A `request_uid` alone is not
enough: if Optimove ever used the same one for two customers, the answer for the first would be sent for the second.
"""

from __future__ import annotations

import enum
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, final, runtime_checkable

from ..deadline import Deadline
from ..models.approval import Approval
from ..models.notification import Action, NotificationEnvelope, Occurrence, WebhookNotification
from .effects import Ask, Flow

_LOOK_AGAIN: Final = 0.02
"""Seconds between two polls of a claim that another process or thread holds."""

_REMEMBERED: Final = 10_000
"""Recent notifications among which a `request_uid` with two questions is detected."""

_LONG_NUMBER: Final = 1 << 64


class ClaimState(enum.Enum):
    """The progress of a claimed notification."""

    OPEN = "open"
    """It is being decided or answered."""
    UNDELIVERED = "undelivered"
    """It is decided, but Optimove has not accepted the answer."""
    SETTLED = "settled"
    """It is finished."""


@final
@dataclass(frozen=True, slots=True)
class Claim:
    """The stored state of a claimed notification.

    Attributes:
        state: Its progress.
        approval: The answer, when it is decided and has one.
    """

    state: ClaimState
    approval: Approval | None = None


@runtime_checkable
class ClaimStore(Protocol):
    """A store of claims: which questions are being answered, or have been, until their deadline.

    A question is an opaque text in ASCII: a notification's `request_uid`, and a digest of its customer, action and
    occurrence. It holds no customer id.

    With a store shared between replicas, a notification is decided once however many of them receive it. A method may
    be a plain function or a coroutine function (the latter for `AsyncWebhookReceiver` only). Any exception of a method
    counts as "unreachable": nothing is approved.

    Attributes:
        instant: True when methods never block on a disk or a network, so that they may be called in an event loop.
    """

    instant: bool

    def claim(self, question: str, seconds: float, /) -> Claim | Awaitable[Claim | None] | None:
        """Claim a notification, atomically.

        Args:
            question: The question.
            seconds: How long the store must keep the claim.

        Returns:
            None: the caller holds the claim, now `OPEN`. `UNDELIVERED`: the caller holds it too, now `OPEN`, and is to
            deliver the approval in it. `OPEN` or `SETTLED`: another caller holds it.
        """
        ...

    def look(self, question: str, /) -> Claim | Awaitable[Claim | None] | None:
        """Return the claim on a notification without claiming it.

        Args:
            question: The question.

        Returns:
            None when there is no claim, or it has expired.
        """
        ...

    def record(self, question: str, claim: Claim, /) -> Awaitable[None] | None:
        """Update a claim that the caller holds; without effect when it has expired.

        Args:
            question: The question.
            claim: `UNDELIVERED` with the approval, or `SETTLED`.
        """
        ...

    def release(self, question: str, /) -> Awaitable[None] | None:
        """Delete a claim that the caller holds: nothing was decided, so a repeat is decided anew.

        Args:
            question: The question.
        """
        ...


def claim_notification(
    claims: ClaimStore, question: str, deadline: Deadline, *, pause: Callable[[float], Any]
) -> Flow[Claim | None]:
    """Claim a notification, or wait until the holder of its claim is done or the deadline comes.

    Returns:
        None when we hold the claim; an `UNDELIVERED` claim with the approval that is ours to deliver; otherwise the
        other holder's claim, without its approval.
    """
    while True:
        held: Claim | None = yield _ask(claims, claims.claim, (question, deadline.remaining()), deadline)
        if held is None or held.state is not ClaimState.OPEN:
            return held
        while held is not None and held.state is ClaimState.OPEN:
            if deadline.expired:
                return held
            yield Ask(pause, (min(_LOOK_AGAIN, deadline.remaining()),))
            held = yield _ask(claims, claims.look, (question,), deadline)
        if held is not None:
            return Claim(held.state)
        if deadline.expired:
            return Claim(ClaimState.OPEN)
        # The first delivery released it undecided, so this one tries.


def update_claim(claims: ClaimStore, question: str, claim: Claim | None, *, within: Deadline) -> Flow[Exception | None]:
    """Update the claim on a notification, or release it when `claim` is None.

    Returns:
        What the store raised, or None.
    """
    try:
        if claim is None:
            yield _ask(claims, claims.release, (question,), within)
        else:
            yield _ask(claims, claims.record, (question, claim), within)
    except Exception as error:  # noqa: BLE001 - a store may raise anything
        return error
    return None


def _ask(claims: ClaimStore, method: Callable[..., Any], arguments: tuple[object, ...], within: Deadline) -> Ask:
    return Ask(method, arguments) if claims.instant else Ask(method, arguments, within, "store")


def question_of(notification: WebhookNotification | NotificationEnvelope) -> str:
    """Return the question of a notification, as passed to a claim store.

    The same notification in another spelling, `7` for `"7"`, is the same question. One of which only the envelope can
    be parsed is a question of its own: it shares no answer with another one, and blocks none.
    """
    asked: list[object] = []
    if isinstance(notification, WebhookNotification):
        # A field of an undocumented type is kept as received, so no type is assumed here.
        occurrence: object = notification.occurrence
        action: object = None
        if isinstance(occurrence, Occurrence):
            action = occurrence.action
            occurrence = [occurrence.series_id, occurrence.occurrence_id, occurrence.date]
        if isinstance(action, Action):
            action = action.id
        user = notification.user
        asked = [user.user_id, user.is_visitor is True, _spelt(action), _spelt(occurrence)]
    uid = str(notification.request_uid)
    digest = hashlib.sha256(json.dumps([uid, *asked], sort_keys=True).encode()).hexdigest()
    # As ASCII, without the quotes: any store can hold it, whatever the sender has put into it.
    return f"{json.dumps(uid)[1:-1]} {digest}"


def _spelt(value: object) -> object:
    """Return one spelling for values that mean the same."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < _LONG_NUMBER else hex(value)  # Python refuses to write huge ones in decimal
    if isinstance(value, Mapping):
        return {str(key): _spelt(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_spelt(each) for each in value]
    return value


class Questions:
    """The questions of the last notifications, by `request_uid`. Safe for threads."""

    def __init__(self, *, capacity: int = _REMEMBERED) -> None:
        """Remember at most `capacity` questions; the oldest is dropped first."""
        self._capacity = capacity
        self._lock = threading.Lock()
        self._first: OrderedDict[str, str] = OrderedDict()

    def contradict(self, request_uid: str, asked: str) -> bool:
        """Remember a question; return whether the same `request_uid` was seen with another one."""
        with self._lock:
            first = self._first.setdefault(request_uid, asked)
            if len(self._first) > self._capacity:
                self._first.popitem(last=False)
            return first != asked
