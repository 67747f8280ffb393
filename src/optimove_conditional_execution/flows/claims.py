"""Claims on notifications, so that each is decided once however often it is delivered: the protocol, and its use.

The unit of a claim is a question: may this customer get this action of this occurrence? A `request_uid` alone is not
enough: if Optimove ever used the same one for two customers, the answer for the first would be sent for the second.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
import random
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, final, runtime_checkable

from ..deadline import Clock, Deadline
from ..errors import ConfigurationError, OptimoveError
from ..models.approval import Approval
from ..models.notification import Action, NotificationEnvelope, Occurrence, WebhookNotification
from .effects import Ask, Flow, as_exception

_STEP: Final = 1.0
"""Seconds that a step of the store may take before it is tried again."""

_LAST_TRY: Final = 0.1
"""Seconds before the deadline after which a step that failed is not tried again."""

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.25
_SHORTEST_PAUSE: Final = 0.001

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
    """The stored state of a claimed notification, as a step of a store returns it.

    Attributes:
        state: Its progress.
        approval: The answer, when it is decided and undelivered, and only to its owner.
        mine: Whether the caller owns it now.
        lease: Seconds that are left of its owner's lease; 0 without one.
    """

    state: ClaimState
    approval: Approval | None = None
    mine: bool = False
    lease: float = 0.0


@runtime_checkable
class ClaimStore(Protocol):
    """A store of claims: which questions are being answered, or have been, until half a minute after their deadline.

    A question is an opaque text in ASCII: a notification's `request_uid`, and a digest of its customer, action and
    occurrence. It holds no customer id. An owner is a random text, one for each delivery of a notification.

    With a store shared between replicas, a notification is decided once however many of them receive it, and no answer
    is lost with a replica that dies: its claims are leases, which others take over when they run out. Each step is
    atomic in the store, and leases and expiry are measured by the store's own clock. A step may be repeated, since its
    result can be lost. `ttl` says how long the record must be kept; the later of the old and the new expiry counts.

    A method may be a plain function or a coroutine function (the latter for `AsyncWebhookReceiver` only). A store with
    plain methods may have an attribute `asynchronous`, the same store with coroutine methods; `AsyncWebhookReceiver`
    then takes that one. Any exception of a method counts as "unreachable": the step is tried again while there is time.

    Attributes:
        instant: True when methods never block on a disk or a network, so that they may be called in an event loop.
    """

    instant: bool

    def acquire(self, question: str, owner: str, lease: float, ttl: float, /) -> Claim | Awaitable[Claim]:
        """Claim a notification, or take over a claim whose lease has run out.

        Args:
            question: The question.
            owner: The caller.
            lease: Seconds of the caller's lease.
            ttl: Seconds for which the record must be kept.

        Returns:
            `mine`: the caller owns the claim, and its lease starts now. `OPEN`: it is to decide. `UNDELIVERED`: it is
            to deliver the approval in it. A caller that owned the claim before owns it still, in its state. Not `mine`:
            `SETTLED`, or another owner's, with the seconds left of its lease and without its approval.
        """
        ...

    def renew(self, question: str, owner: str, lease: float, ttl: float, /) -> bool | Awaitable[bool]:
        """Extend a lease, also one that has run out; a claim that the store has forgotten is written anew, as `OPEN`.

        Args:
            question: The question.
            owner: The caller.
            lease: Seconds of the lease from now on.
            ttl: Seconds for which the record must be kept.

        Returns:
            False when another owner has the claim, or it is settled.
        """
        ...

    def update(self, question: str, owner: str, claim: Claim, lease: float, ttl: float, /) -> bool | Awaitable[bool]:
        """Write the state of a claim that is the caller's, whether or not its lease has run out, or that is forgotten.

        Args:
            question: The question.
            owner: The caller.
            claim: `UNDELIVERED` with the approval, or `SETTLED`. What it says of `mine` and `lease` is ignored.
            lease: Seconds of the lease from now on; 0 lets the next caller take over at once.
            ttl: Seconds for which the record must be kept.

        Returns:
            False when another owner has the claim, or it is settled otherwise: nothing was written.
        """
        ...

    def release(self, question: str, owner: str, /) -> Awaitable[None] | None:
        """Delete an `OPEN` claim of the caller: nothing was decided, so a repeat is decided anew.

        Args:
            question: The question.
            owner: The caller.
        """
        ...


class StoreFullError(OptimoveError):
    """A store in memory has no room for another claim; to try again would only add to the load."""


@dataclass(eq=False, slots=True)
class StoreOutage:
    """When a step of the store last failed, in any delivery.

    Attributes:
        at: On the clock of the deliveries.
    """

    at: float = -math.inf


def backoff() -> Iterator[float]:
    """Yield the pauses between tries, in seconds: from 0.02 to 0.25 s, less up to half of each as jitter."""
    pause = _FIRST_PAUSE
    while True:
        yield random.uniform(pause / 2, pause)  # noqa: S311 - no secret
        pause = min(pause * 1.5, _LONGEST_PAUSE)


@final
@dataclass(eq=False, slots=True, kw_only=True)
class LeasedClaim:
    """One delivery's claim on its notification, kept by a lease.

    Attributes:
        store: The claim store.
        question: The question of the notification.
        lease: Seconds of the lease.
        deadline: When the notification must be answered.
        kept: Until when the claim must be kept: past Optimove's deadline, which a host's can precede.
        patience: Seconds for which a step that fails is tried again; None: until shortly before the deadline.
        pause: Sleeps for a number of seconds.
        clock: Monotonic, in seconds.
        outage: Is told of every step that fails.
        owner: The token of this delivery.
    """

    store: ClaimStore
    question: str
    lease: float
    deadline: Deadline
    kept: Deadline
    patience: float | None
    pause: Callable[[float], Any]
    clock: Clock
    outage: StoreOutage
    owner: str = field(default_factory=partial(secrets.token_hex, 16))

    @property
    def renewal(self) -> float:
        """Seconds after which the lease is to be renewed, and that this may take."""
        return self.lease / 3

    def acquire(self) -> Flow[Claim]:
        """Acquire the claim; while another delivery holds it, wait until it is done, its lease ends or the deadline."""
        pauses: Iterator[float] | None = None
        while True:
            claim: Claim = yield from self._retried("acquire", (self.lease, self.kept.remaining()), Claim)
            if not _is_consistent(claim):
                raise ConfigurationError(f"{type(self.store).__name__}.acquire returned an inconsistent Claim.")
            if claim.mine or claim.state is ClaimState.SETTLED or self.deadline.expired:
                return claim
            # A lease of 0 is a store's that cannot tell: the holder has it.
            pauses = pauses or backoff()
            pause = min(next(pauses), claim.lease if claim.lease > 0 else math.inf, self.deadline.remaining())
            yield Ask(self.pause, (max(pause, _SHORTEST_PAUSE),))

    def renew(self) -> Flow[None]:
        """Extend the lease. A failure is ignored, and so is a claim that was lost: `record` will tell."""
        with suppress(Exception):
            within = Deadline.after(self.renewal, clock=self.clock)
            yield from self._step("renew", (self.lease, self.kept.remaining()), bool, within)

    def record(self, approval: Approval) -> Flow[bool]:
        """Write an answer down before it is sent; False: another delivery has the claim, and nothing may be sent."""
        claim = Claim(ClaimState.UNDELIVERED, approval)
        return self._retried("update", (claim, self.lease, self.kept.remaining()), bool)

    def finish(self, claim: Claim | None, *, within: Deadline | None = None) -> Flow[bool]:
        """Write the final state, without a lease; False: it was lost. Or release the claim when it is None."""
        if claim is None:
            return self._step("release", (), object, within)
        return self._step("update", (claim, 0.0, self.kept.remaining()), bool, within)

    def _retried(self, name: str, arguments: tuple[object, ...], returns: type) -> Flow[Any]:
        if self.patience is None:
            return self._step(name, arguments, returns, self.deadline, last=_LAST_TRY)
        seconds = min(self.patience, self.deadline.remaining() / 2)
        return self._step(name, arguments, returns, Deadline.after(seconds, clock=self.clock), last=0.0)

    def _step(
        self,
        name: str,
        arguments: tuple[object, ...],
        returns: type,
        within: Deadline | None,
        *,
        last: float | None = None,
    ) -> Flow[Any]:
        """Call a method of the store, until a deadline at most.

        One that fails is called again until `last` seconds before the deadline; with None it is not.
        """
        pauses: Iterator[float] | None = None
        while True:
            try:
                method, store = getattr(self.store, name), self.store
                if store.instant:
                    result: object = method(self.question, self.owner, *arguments)  # no driver is needed for it
                    if type(result) not in _RESULTS:
                        result = yield Ask(lambda result=result: result)  # but for what may be awaited
                else:
                    seconds = _STEP if within is None else min(within.remaining(), _STEP)
                    end = Deadline.after(seconds, clock=self.clock)
                    result = yield Ask(method, (self.question, self.owner, *arguments), end, "store")
                if isinstance(result, returns):
                    return result
                raise ConfigurationError(f"{type(store).__name__}.{name} must return a {returns.__name__}.")
            except Exception as error:
                self.outage.at = self.clock()
                left = 0.0
                if within is not None and last is not None and not isinstance(error, StoreFullError):
                    left = within.remaining() - last
                if left < _SHORTEST_PAUSE:
                    if isinstance(error, StopIteration):  # no generator lets one through
                        raise as_exception(error) from error
                    raise
            pauses = pauses or backoff()
            yield Ask(self.pause, (min(next(pauses), left),))


_RESULTS: Final = (Claim, bool, type(None))

_NUMBERS: Final = (float, int)
"""For `isinstance`, which would build a union anew each time."""


def _is_consistent(claim: Claim) -> bool:
    """Return whether a store's answer can be acted on: it may be another's code, and an approval may come of it."""
    state, mine = claim.state, claim.mine
    lease: object = claim.lease
    if type(state) is not ClaimState or type(mine) is not bool or not isinstance(lease, _NUMBERS):
        return False
    # Only a decided claim comes with an answer, and it always does.
    return not mine or isinstance(claim.approval, Approval if state is ClaimState.UNDELIVERED else type(None))


def question_of(notification: WebhookNotification | NotificationEnvelope) -> str:
    """Return the question of a notification, as passed to a claim store.

    The same notification in another spelling, `7` for `"7"`, is the same question. One of which only the envelope can
    be parsed is a question of its own: it shares no answer with another one, and blocks none.
    """
    uid = asked = _written(str(notification.request_uid))
    if isinstance(notification, WebhookNotification):
        # A field of an undocumented type is kept as received, so no type is assumed here.
        occurrence: object = notification.occurrence
        action: object = None
        if isinstance(occurrence, Occurrence):
            action = occurrence.action
            series, number, date = occurrence.series_id, occurrence.occurrence_id, occurrence.date
            occurrence = f"[{_alike(series)}, {_alike(number)}, {_alike(date)}]"
        else:
            occurrence = _alike(occurrence)
        if isinstance(action, Action):
            action = action.id
        user = notification.user
        visitor = "true" if user.is_visitor is True else "false"
        asked = f"{uid}, {_written(user.user_id)}, {visitor}, {_alike(action)}, {occurrence}"
    digest = hashlib.sha256(f"[{asked}]".encode()).hexdigest()
    # As ASCII, without the quotes: any store can hold it, whatever the sender has put into it.
    return f"{uid[1:-1]} {digest}"


_written: Final = json.JSONEncoder(sort_keys=True).encode


def _alike(value: object) -> str:
    """Return one JSON text for values that mean the same."""
    if type(value) is str:
        return _written(value)
    # An encoder takes several times as long for anything but a text.
    return "null" if value is None else _written(_spelt(value))


def _spelt(value: object) -> object:
    """Return one spelling for values that mean the same."""
    if value is None or type(value) is str:
        return value
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
    """The questions of the last notifications, by `request_uid`. Safe for threads: each of its steps is atomic."""

    def __init__(self, *, capacity: int = _REMEMBERED) -> None:
        """Remember at most `capacity` questions; the oldest is dropped first."""
        self._capacity = capacity
        self._first: OrderedDict[str, str] = OrderedDict()

    def contradict(self, request_uid: str, asked: str) -> bool:
        """Remember a question; return whether the same `request_uid` was seen with another one."""
        first = self._first.setdefault(request_uid, asked)
        if len(self._first) > self._capacity:
            self._first.popitem(last=False)
        return first != asked
