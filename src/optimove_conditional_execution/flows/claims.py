"""Who answers a notification, so that it is decided once however often it arrives: the protocol, and its use."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, final, runtime_checkable

from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.flows.effects import Ask, Flow
from optimove_conditional_execution.models.approval import Approval

_LOOK_AGAIN: Final = 0.02
"""Seconds between two looks at a claim that somebody else holds."""


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
    """Remembers who answers which notification until its deadline.

    Share one between replicas, and a notification is decided once however many of them get it. A method may be a plain
    function or a coroutine function (the latter for `AsyncWebhookReceiver` only). Whatever a method raises counts as
    "unreachable": nothing is approved.

    Attributes:
        instant: True when methods never wait for a disk or a network, so they may be called in an event loop.
    """

    instant: bool

    def claim(self, request_uid: str, seconds: float, /) -> Claim | Awaitable[Claim | None] | None:
        """Take a notification, atomically.

        Args:
            request_uid: Which one.
            seconds: How long the store must remember it.

        Returns:
            None: it is yours, and `OPEN` from now on. `UNDELIVERED`: it is yours too, and `OPEN` from now on; deliver
            the approval that the claim holds. `OPEN` or `SETTLED`: it is somebody else's.
        """
        ...

    def look(self, request_uid: str, /) -> Claim | Awaitable[Claim | None] | None:
        """Return what is known of a notification without taking it.

        Args:
            request_uid: Which one.

        Returns:
            None when nothing is known, or no more.
        """
        ...

    def record(self, request_uid: str, claim: Claim, /) -> Awaitable[None] | None:
        """Write down how far a notification that is yours has got; one that is forgotten already stays so.

        Args:
            request_uid: Which one.
            claim: `UNDELIVERED` with the approval, or `SETTLED`.
        """
        ...

    def release(self, request_uid: str, /) -> Awaitable[None] | None:
        """Forget a notification that is yours: nothing was decided, so a repeat starts anew.

        Args:
            request_uid: Which one.
        """
        ...


def take(
    claims: ClaimStore, request_uid: str, deadline: Deadline, *, pause: Callable[[float], Any]
) -> Flow[Claim | None]:
    """Take a notification, or wait until whoever has it is done or the deadline comes.

    Returns:
        None when it is ours; an `UNDELIVERED` claim with an approval when that is ours to deliver; otherwise how
        somebody else left it, without its approval.
    """
    while True:
        held: Claim | None = yield _ask(claims, claims.claim, (request_uid, deadline.remaining()), deadline)
        if held is None or held.state is not ClaimState.OPEN:
            return held
        while held is not None and held.state is ClaimState.OPEN:
            if deadline.expired:
                return held
            yield Ask(pause, (min(_LOOK_AGAIN, deadline.remaining()),))
            held = yield _ask(claims, claims.look, (request_uid,), deadline)
        if held is not None:
            return Claim(held.state)
        if deadline.expired:
            return Claim(ClaimState.OPEN)
        # The first delivery gave it back undecided, so this one tries.


def note(claims: ClaimStore, request_uid: str, claim: Claim | None, *, within: Deadline) -> Flow[Exception | None]:
    """Write down how far a notification has got, or give it back when `claim` is None.

    Returns:
        What the store raised, or None.
    """
    try:
        if claim is None:
            yield _ask(claims, claims.release, (request_uid,), within)
        else:
            yield _ask(claims, claims.record, (request_uid, claim), within)
    except Exception as error:  # noqa: BLE001 - a store may raise anything
        return error
    return None


def _ask(claims: ClaimStore, method: Callable[..., Any], arguments: tuple[object, ...], within: Deadline) -> Ask:
    return Ask(method, arguments) if claims.instant else Ask(method, arguments, within, "store")
