"""Rules from parts: a handler and a reviewer from named checks, of which each must say yes. Start with `all_of`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Protocol, cast, final

from .deadline import Clock, Deadline
from .drivers import contained, not_awaitable
from .errors import ConfigurationError
from .flows.effects import Overloaded, exception_name
from .handlers import Decision, Verdict, kind_of
from .models.campaign import CampaignCustomer
from .models.notification import WebhookNotification
from .validation import check_callable, integer, is_async, seconds
from .worker_pool import DaemonThreadPool

Asked = WebhookNotification | CampaignCustomer
OnFailure = Literal["deny", "abstain"]
State = Literal["yes", "no", "abstained", "failed", "late", "stale", "unknown"]

_VERDICTS: Final[Mapping[State, Verdict]] = {"yes": "approve", "no": "deny", "abstained": "abstain"}
"""Of all other states `on_failure` says what they are."""

_MARGIN: Final = 0.05
"""Seconds before the deadline at which unfinished checks are late; at most a tenth of the time that there is."""

_THREADS: Final = 100
"""Calls of one plain check at the same time: as many as a receiver's handlers."""

_AHEAD: Final = timedelta(minutes=1)
"""Knowledge from further in the future has a wrong time."""


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """A check's answer with what it rests on, for the evidence.

    Attributes:
        allowed: Whether the customer may get the campaign. Only a real `True` is a yes.
        as_of: When the register was asked, if the answer comes from a cache; with a zone.
        version: The version of the register or of the rule.
        reference: The register's own reference of its answer.
        reason: Why not, in your words.
    """

    allowed: bool
    as_of: datetime | None = None
    version: str | None = None
    reference: str | None = None
    reason: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Validate at construction, so that the traceback points at the check's own line."""
        given: object = self.allowed
        if not isinstance(given, bool):
            raise ConfigurationError(f"Answer.allowed must be True or False, not a {kind_of(given)}.")
        if self.as_of is not None and self.as_of.tzinfo is None:
            raise ConfigurationError("Answer.as_of must have a zone, such as datetime.now(UTC).")

    def __bool__(self) -> bool:
        """Raise: a no that is truthy in an `if` would be a yes.

        Raises:
            TypeError: Always; look at `allowed`.
        """
        raise TypeError("An Answer has no truth value: return it as it is, or look at allowed.")


OneCheck = Callable[[Any, Deadline], Any]
"""A function, or a coroutine function, of a notification or a `CampaignCustomer`, and a deadline."""


@final
@dataclass(frozen=True, slots=True)
class Check:
    """A check with its settings, from `check` or `chunked`; callable as the function itself."""

    function: Callable[..., Any]
    size: int | None = None
    version: str | None = None
    max_age: float | None = None
    on_failure: OnFailure = "deny"
    concurrency: int = 16

    def __call__(self, asked: Any, deadline: Deadline, /) -> Any:
        """Call the function."""
        return self.function(asked, deadline)


def check(
    function: OneCheck | Check,
    /,
    *,
    version: str | None = None,
    max_age: float | timedelta | None = None,
    on_failure: OnFailure = "deny",
    concurrency: int = 16,
) -> Check:
    """Give a check settings.

    Args:
        function: Takes the notification (in a review the `CampaignCustomer`) and a deadline, and returns `True`,
            `False`, an `Answer` or a `Decision`; or what `chunked` made.
        version: The version of your rule, for the evidence; `Answer.version` counts before it.
        max_age: For knowledge that comes from a cache: seconds, or a `timedelta`, that it may be old. The check then
            returns `Answer(..., as_of=...)`; what is older, or has no `as_of`, is not a yes. It is measured when the
            check answers: leave room for the time until the campaign goes out.
        on_failure: What it is when the check raises, is late, does not know the customer, or knows too little: a no, or
            an abstention.
        concurrency: Calls at the same time for one batch of a review.

    Raises:
        ConfigurationError: A setting is invalid.
    """
    if isinstance(max_age, timedelta):
        max_age = max_age.total_seconds()
    if max_age is not None:
        seconds("max_age", max_age, above_zero=True)
    if on_failure not in ("deny", "abstain"):
        raise ConfigurationError('on_failure must be "deny" (a no) or "abstain".')
    given = function if isinstance(function, Check) else Check(function)
    return replace(
        given,
        version=version,
        max_age=max_age,
        on_failure=on_failure,
        concurrency=integer("concurrency", concurrency),
    )


def chunked(size: int) -> Callable[[Callable[[Sequence[str], Deadline], Any]], Check]:
    """Decorate a check of many customers, for a register that takes so many ids a call.

    The function, or coroutine function, takes customer ids and a deadline. It returns a mapping from id to `True`,
    `False`, an `Answer` or a `Decision`, or a collection of the ids of those who may. An id that it leaves out is one
    that the register does not know, and that is not a yes.

    Args:
        size: Ids a call at most.

    Raises:
        ConfigurationError: `size` is not a whole number of 1 or more.
    """
    integer("size", size)
    return lambda function: Check(function, size=size)


def all_of(**checks: OneCheck | Check) -> Policy:
    """Return a policy of which every check must say yes.

    The checks run at the same time. In a handler the first no wins, with the check's name as `Decision.reason`; in a
    review, that of the first check in order. A check that raises, is late, or does not know the customer is a no, or an
    abstention where `check` says so; a no outweighs an abstention. What each check said, how long it took, and its
    version are in `Decision.evidence`, for the decision log.

    Args:
        checks: By name: functions, coroutine functions, or what `check` and `chunked` return.

    Raises:
        ConfigurationError: There is none, or one of them cannot be called with what it is given.
    """
    if not checks:
        raise ConfigurationError("all_of needs at least one check: without any, everybody would be approved.")
    made = {name: given if isinstance(given, Check) else Check(given) for name, given in checks.items()}
    for name, each in made.items():
        what = "notification or customer" if each.size is None else "sequence of ids"
        check_callable(name, each.function, what, "deadline")
    return Policy(made)


@dataclass(slots=True)
class _Finding:
    """What one check says about one customer."""

    state: State
    took: float
    reason: str | None = None
    answer: Answer | None = None

    def evidence(self, check: Check) -> dict[str, Any]:
        answer = Answer(False) if self.answer is None else self.answer
        told = {
            "answer": self.state,
            "seconds": round(self.took, 6),
            "version": answer.version or check.version,
            "as_of": None if answer.as_of is None else answer.as_of.astimezone(UTC).isoformat(),
            "reference": answer.reference,
            "reason": self.reason,
        }
        return {name: value for name, value in told.items() if value is not None}


class _Run:
    """One notification, or one batch: what is still to be asked, and what was answered. Safe for threads.

    That about a notification is over at the first no.
    """

    def __init__(
        self, checks: Mapping[str, Check], asked: Mapping[str, Asked], deadline: Deadline, wall: Clock, *, is_one: bool
    ) -> None:
        left = deadline.remaining()
        self.deadline = deadline.earlier_by(min(_MARGIN, left / 10))
        self.found: dict[str, dict[str, _Finding]] = {name: {} for name in checks}
        self._checks = checks
        self._asked = asked
        self._wall = wall
        self._is_one = is_one
        self._clock = time.monotonic
        self._started = self._clock()
        ids = list(asked)
        self._todo = {
            name: deque([ids[start : start + (each.size or 1)] for start in range(0, len(ids), each.size or 1)])
            for name, each in checks.items()
        }

    def workers(self, name: str) -> int:
        """Return how many calls of a check to make at the same time."""
        return min(self._checks[name].concurrency, len(self._todo[name]))

    def calls(self, name: str) -> Iterator[tuple[Sequence[str], Callable[[], Any], float]]:
        """Yield what is still to be asked of a check: the ids, the call, when it began."""
        check, todo = self._checks[name], self._todo[name]
        while not self.deadline.expired:
            try:
                ids = todo.popleft()
            except IndexError:
                return
            asked: object = self._asked[ids[0]] if check.size is None else tuple(ids)
            yield ids, functools.partial(check.function, asked, self.deadline), self._clock()

    def answered(self, name: str, ids: Sequence[str], answer: object, began: float) -> None:
        """Keep the answer of a call."""
        check, took = self._checks[name], self._clock() - began
        if check.size is None:
            self.found[name][ids[0]] = self._read(check, answer, took)
            return
        if isinstance(answer, Mapping):
            each = cast("Mapping[object, object]", answer)
        elif isinstance(answer, Collection) and not isinstance(answer, str | bytes):
            each = dict.fromkeys(cast("Collection[object]", answer), True)
        else:
            self.failed(name, ids, f"returned a {kind_of(answer)}", began)
            return
        for one in ids:
            said = each.get(one)
            self.found[name][one] = _Finding("unknown", took) if said is None else self._read(check, said, took)

    def failed(self, name: str, ids: Sequence[str], what: str, began: float) -> None:
        """Keep that a call failed."""
        took = self._clock() - began
        self.found[name].update({one: _Finding("failed", took, what) for one in ids})

    def _read(self, check: Check, said: object, took: float) -> _Finding:
        if isinstance(said, bool):
            said = Answer(said)
        if isinstance(said, Decision):
            if said.verdict == "abstain":
                return _Finding("abstained", took, said.reason)
            said = Answer(said.verdict == "approve", reason=said.reason)
        if not isinstance(said, Answer):
            return _Finding("failed", took, f"returned a {kind_of(said)}")
        state: State = "yes" if said.allowed else "no"
        if said.allowed and check.max_age is not None and not self._is_fresh(said.as_of, check.max_age):
            state = "stale"
        return _Finding(state, took, said.reason, said)

    def _is_fresh(self, as_of: datetime | None, max_age: float) -> bool:
        if as_of is None:
            return False
        age = datetime.fromtimestamp(self._wall(), UTC) - as_of
        return -_AHEAD <= age <= timedelta(seconds=max_age)

    def is_over(self) -> bool:
        """Whether nothing more is waited for."""
        return self.deadline.expired or self._is_refused()

    def _is_refused(self) -> bool:
        """Whether a check has said no to the one customer."""
        return self._is_one and any(
            self._verdict(self._checks[name], finding) == "deny"
            for name, found in list(self.found.items())
            for finding in list(found.values())
        )

    def _verdict(self, check: Check, finding: _Finding | None) -> Verdict:
        return check.on_failure if finding is None else _VERDICTS.get(finding.state, check.on_failure)

    def decisions(self) -> dict[str, Decision]:
        """Return the decision about each."""
        refused = self._is_refused()  # then a check without an answer is not late
        found = {name: each.copy() for name, each in self.found.items()}  # late threads may still write
        return {one: self._decision({name: found[name].get(one) for name in found}, refused) for one in self._asked}

    def _decision(self, found: Mapping[str, _Finding | None], refused: bool) -> Decision:
        took = self._clock() - self._started
        told: dict[str, dict[str, Any]] = {}
        reasons: dict[str, str] = {}
        for name, finding in found.items():
            check = self._checks[name]
            if finding is None and refused:
                told[name] = {"answer": "not awaited"}
                continue
            known = finding or _Finding("late", took)
            told[name] = known.evidence(check)
            verdict = self._verdict(check, known)
            if verdict != "approve":
                reasons.setdefault(verdict, name if known.state in ("no", "abstained") else f"{name}: {known.state}")
        evidence = {"checks": told}
        if "deny" in reasons:
            return Decision.deny(reasons["deny"], evidence=evidence)
        if "abstain" in reasons:
            return Decision.abstain(reasons["abstain"], evidence=evidence)
        return Decision.approve(evidence=evidence)


class AsyncHandler(Protocol):
    """A coroutine function that handles a notification."""

    async def __call__(self, notification: WebhookNotification, deadline: Deadline, /) -> Decision:
        """Decide before the deadline."""
        ...


class Reviewer(Protocol):
    """A reviewer of a batch that returns a decision for each customer."""

    def __call__(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> dict[str, Decision]:
        """Decide before the deadline."""
        ...


class AsyncReviewer(Protocol):
    """A coroutine function that reviews a batch, and returns a decision for each customer."""

    async def __call__(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> dict[str, Decision]:
        """Decide before the deadline."""
        ...


@final
class Policy:
    """Named checks of which each must say yes; from `all_of`.

    Each of the four attributes is a function to pass on: `handler` to `WebhookReceiver`, `async_handler` to
    `AsyncWebhookReceiver`, `reviewer` to `CampaignReview`, `async_reviewer` to `AsyncCampaignReview`. The plain two are
    refused when a check is a coroutine function. In the async two, plain checks run in threads.
    """

    def __init__(self, checks: Mapping[str, Check], *, wall_clock: Clock = time.time) -> None:
        """Set up the policy; `all_of` does.

        Args:
            checks: By name.
            wall_clock: Seconds since 1970, for `max_age`.
        """
        self._checks = dict(checks)
        self._wall_clock = wall_clock
        self._awaited = [name for name, each in checks.items() if is_async(each.function)]
        # A pool each: a register that hangs must not keep the others' calls waiting.
        self._pools = {
            name: DaemonThreadPool(max(_THREADS, each.concurrency), on_full="refuse", name=f"optimove-check-{name}")
            for name, each in checks.items()
            if name not in self._awaited
        }

    @property
    def handler(self) -> Callable[[WebhookNotification, Deadline], Decision]:
        """The handler of a notification, a plain function.

        Raises:
            ConfigurationError: A check is a coroutine function.
        """
        self._refuse_awaited("async_handler")
        return self._handle

    @property
    def async_handler(self) -> AsyncHandler:
        """The handler of a notification, a coroutine function."""
        return self._ahandle

    @property
    def reviewer(self) -> Reviewer:
        """The reviewer of a batch, a plain function; it returns a decision for each customer.

        Raises:
            ConfigurationError: A check is a coroutine function.
        """
        self._refuse_awaited("async_reviewer")
        return self._review

    @property
    def async_reviewer(self) -> AsyncReviewer:
        """The reviewer of a batch, a coroutine function; it returns a decision for each customer."""
        return self._areview

    def _refuse_awaited(self, instead: str) -> None:
        if self._awaited:
            raise ConfigurationError(f"The check {self._awaited[0]} is a coroutine function: use {instead}.")

    def _handle(self, notification: WebhookNotification, deadline: Deadline, /) -> Decision:
        (decision,) = self._decided(self._about(notification, deadline)).values()
        return decision

    async def _ahandle(self, notification: WebhookNotification, deadline: Deadline, /) -> Decision:
        (decision,) = (await self._adecided(self._about(notification, deadline))).values()
        return decision

    def _review(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> dict[str, Decision]:
        return self._decided(self._about_each(customers, deadline))

    async def _areview(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> dict[str, Decision]:
        return await self._adecided(self._about_each(customers, deadline))

    def _about(self, notification: WebhookNotification, deadline: Deadline) -> _Run:
        return _Run(self._checks, {notification.user.user_id: notification}, deadline, self._wall_clock, is_one=True)

    def _about_each(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> _Run:
        asked = {each.customer_id: each for each in customers}
        return _Run(self._checks, asked, deadline, self._wall_clock, is_one=False)

    def _decided(self, run: _Run) -> dict[str, Decision]:
        """Ask until all have answered, the run is over, or the deadline comes."""
        pending = set(self._submitted(run))
        while pending and not run.is_over():
            left = min(run.deadline.remaining(), threading.TIMEOUT_MAX)
            _, pending = concurrent.futures.wait(pending, timeout=left, return_when=concurrent.futures.FIRST_COMPLETED)
        for worker in pending:
            worker.cancel()
        return run.decisions()

    async def _adecided(self, run: _Run) -> dict[str, Decision]:
        """See `_decided`."""
        pending: set[asyncio.Future[None]] = {
            asyncio.ensure_future(self._awork(run, name)) for name in self._awaited for _ in range(run.workers(name))
        }
        try:
            pending |= {asyncio.wrap_future(each) for each in self._submitted(run)}
            while pending and not run.is_over():
                left = run.deadline.remaining()
                _, pending = await asyncio.wait(
                    pending,
                    timeout=None if left == float("inf") else left,
                    return_when=asyncio.FIRST_COMPLETED,
                )
        finally:
            for worker in pending:
                worker.cancel()
        return run.decisions()

    def _submitted(self, run: _Run) -> Iterator[Future[None]]:
        for name, pool in self._pools.items():
            for number in range(run.workers(name)):
                try:
                    yield pool.submit(self._work, (run, name))
                except Overloaded:
                    if number:  # those that have started do the work of this one
                        break
                    for ids, _, began in run.calls(name):
                        run.failed(name, ids, "all its threads are busy", began)

    @staticmethod
    def _work(run: _Run, name: str) -> None:
        for ids, call, began in run.calls(name):
            try:
                run.answered(name, ids, not_awaitable(call()), began)  # a mapping of the check's own may raise too
            except BaseException as error:  # noqa: BLE001 - a check may raise anything, SystemExit too
                run.failed(name, ids, exception_name(error), began)

    @staticmethod
    async def _awork(run: _Run, name: str) -> None:
        for ids, call, began in run.calls(name):
            try:
                with contained():
                    answer = await call()
                run.answered(name, ids, answer, began)
            except Exception as error:  # noqa: BLE001 - a check may raise anything
                run.failed(name, ids, exception_name(error), began)
