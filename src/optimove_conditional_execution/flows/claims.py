"""Who answers a notification, so that it is decided once however often it arrives: the protocol, and its use.

What is claimed is a question: may this customer get this action of this occurrence? A `request_uid` alone is none: if
Optimove ever gave the same one to two customers, the answer about the first would be sent about the second.
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
"""Seconds between two looks at a claim that somebody else holds."""

_REMEMBERED: Final = 10_000
"""Notifications among which a `request_uid` of two questions is noticed."""

_LONG_NUMBER: Final = 1 << 64


class ClaimState(enum.Enum):
    """How far a claimed notification has got."""

    OPEN = "open"
    """Somebody is deciding or answering it."""
    UNDELIVERED = "undelivered"
    """It is decided, but Optimove has not taken the answer."""
    SETTLED = "settled"
    """Nothing more is to be done."""


@final
@dataclass(frozen=True, slots=True)
class Claim:
    """What is known of a claimed notification.

    Attributes:
        state: How far it has got.
        approval: The answer, when it is decided and has one.
    """

    state: ClaimState
    approval: Approval | None = None


@runtime_checkable
class ClaimStore(Protocol):
    """Remembers who answers which question until its deadline.

    A question is an opaque text in ASCII: a notification's `request_uid`, and a digest of its customer, action and
    occurrence. It holds no customer id.

    Share one between replicas, and a notification is decided once however many of them get it. A method may be a plain
    function or a coroutine function (the latter for `AsyncWebhookReceiver` only). Whatever a method raises counts as
    "unreachable": nothing is approved.

    Attributes:
        instant: True when methods never wait for a disk or a network, so they may be called in an event loop.
    """

    instant: bool

    def claim(self, question: str, seconds: float, /) -> Claim | Awaitable[Claim | None] | None:
        """Take a notification, atomically.

        Args:
            question: Which one.
            seconds: How long the store must remember it.

        Returns:
            None: it is yours, and `OPEN` from now on. `UNDELIVERED`: it is yours too, and `OPEN` from now on; deliver
            the approval that the claim holds. `OPEN` or `SETTLED`: it is somebody else's.
        """
        ...

    def look(self, question: str, /) -> Claim | Awaitable[Claim | None] | None:
        """Return what is known of a notification without taking it.

        Args:
            question: Which one.

        Returns:
            None when nothing is known, or no more.
        """
        ...

    def record(self, question: str, claim: Claim, /) -> Awaitable[None] | None:
        """Write down how far a notification that is yours has got; one that is forgotten already stays so.

        Args:
            question: Which one.
            claim: `UNDELIVERED` with the approval, or `SETTLED`.
        """
        ...

    def release(self, question: str, /) -> Awaitable[None] | None:
        """Forget a notification that is yours: nothing was decided, so a repeat starts anew.

        Args:
            question: Which one.
        """
        ...


def claim_notification(
    claims: ClaimStore, question: str, deadline: Deadline, *, pause: Callable[[float], Any]
) -> Flow[Claim | None]:
    """Claim a notification, or wait until whoever holds it is done or the deadline comes.

    Returns:
        None when it is ours; an `UNDELIVERED` claim with an approval when that is ours to deliver; otherwise how
        somebody else left it, without its approval.
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
        # The first delivery gave it back undecided, so this one tries.


def update_claim(claims: ClaimStore, question: str, claim: Claim | None, *, within: Deadline) -> Flow[Exception | None]:
    """Write down how far a notification has got, or give it back when `claim` is None.

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
    """Return what a notification asks, as a claim store knows it.

    The same notification in another spelling, `7` for `"7"` say, is the same question. One of which only the envelope
    can be read is a question of its own: it takes no answer of another one, and blocks none.
    """
    asked: list[object] = []
    if isinstance(notification, WebhookNotification):
        # A field of an undocumented type is kept as it came, so nothing is taken for granted here.
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
        """Remember so many at most; the oldest is forgotten first."""
        self._capacity = capacity
        self._lock = threading.Lock()
        self._first: OrderedDict[str, str] = OrderedDict()

    def contradict(self, request_uid: str, asked: str) -> bool:
        """Remember a question; tell whether the same `request_uid` has come with another one."""
        with self._lock:
            first = self._first.setdefault(request_uid, asked)
            if len(self._first) > self._capacity:
                self._first.popitem(last=False)
            return first != asked
