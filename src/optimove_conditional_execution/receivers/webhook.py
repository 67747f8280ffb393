"""Receivers for webhook notifications, sync and async: the wiring of `flows.webhook`."""

from __future__ import annotations

import abc
import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from os import PathLike
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar

from .. import shadow as shadows  # this and the next are loaded by the receivers that have a shadow, or a log
from .. import stores
from ..client import AsyncOptimoveClient, OptimoveClient
from ..deadline import Deadline, TransitEstimate
from ..drivers import Pools, arun, run, start_task
from ..errors import ConfigurationError
from ..flows.budget import BudgetEstimator, Reserve
from ..flows.claims import ClaimStore
from ..flows.effects import Flow, exception_name
from ..flows.outcome import Outcome, OutcomeBuilder, OutcomeKind
from ..flows.webhook import (
    OnFailure,
    OnStoreFailure,
    WebhookContext,
    answer_notification,
    interrupted,
    too_large,
)
from ..fork import detect_fork, reset_after_fork
from ..handlers import AsyncWebhookHandler, WebhookHandler
from ..messages import Request, Response, plain
from ..models.approval import Approval
from ..models.notification import NotificationEnvelope, WebhookNotification
from ..observers import SafeLogger, notify
from ..signature import Secrets, Unsigned, receiver_keys
from ..stores.claims import MemoryClaims
from ..tracebacks import sensitive_variables
from ..transport.connection_pool import running_loop
from ..validation import check_callable, check_takes, integer, is_async, seconds, warn_of_copies
from ..worker_pool import until_done
from .base import (
    DRAIN_SECONDS,
    Around,
    BackgroundTasks,
    BaseReceiver,
    check_arguments,
    check_store,
    flavour_for_loop,
    refuse_running_loop,
    with_context,
)

MAX_BODY: Final = 262_144
"""Maximum size of a notification in bytes; Optimove's sample has 1,268."""

_LOGGER: Final = SafeLogger("webhook")
_EXPECTED: Final = frozenset({"approved", "denied", "abstained", "duplicate"})

_STEPS: Final = ("acquire", "renew", "update", "release")

_REUSED: Final = (
    " (the same request_uid has come with another customer, action or occurrence; each was answered on its own)"
)

H = TypeVar("H", bound=Callable[..., Any])
C = TypeVar("C", OptimoveClient, AsyncOptimoveClient)


class _WebhookReceiver(BaseReceiver, Generic[H, C]):
    """Base class of both webhook receivers."""

    @sensitive_variables
    def __init__(
        self,
        handler: H,
        *,
        client: C,
        secrets: Secrets | Literal[Unsigned.UNSIGNED],
        on_failure: OnFailure = "abstain",
        claims: ClaimStore | None = None,
        lease: float | None = None,
        on_store_failure: OnStoreFailure = "refuse",
        decision_log: stores.DecisionLog | None = None,
        on_log_failure: Literal["refuse", "decide"] = "refuse",
        reserve: float | None = None,
        max_concurrency: int = 100,
        max_body: int = MAX_BODY,
        on_outcome: Callable[[Outcome], None] | None = None,
        around: Around | None = None,
        switch: str | PathLike[str] | Callable[[], Any] | None = None,
        shadow: H | shadows.Shadow[H] | None = None,
        observe: bool = False,
    ) -> None:
        """Set up a receiver for a handler and a client.

        Args:
            handler: Decides about one customer. A function runs in a thread of a bounded pool, since it may be late and
                cannot be cancelled. `AsyncWebhookReceiver` takes coroutine functions too; those run in the event loop
                and are cancelled when they are late.
            client: Sends the approvals.
            secrets: The webhook secret; several while you rotate; `UNSIGNED` when Optimove has none. Text, bytes, or
                pydantic's `SecretStr` and `SecretBytes`.
            on_failure: The decision when the handler raises, is late or returns an invalid value: `"abstain"` sends
                nothing, so that another webhook of the tenant may still approve; `"deny"` denies.
            claims: The claim store, which ensures that each notification is answered once; None keeps claims in this
                process. Processes that share a webhook should share a store, such as `stores.SqliteClaims`.
            lease: Seconds after which another replica takes over the notifications of one that died. None: a sixth of
                each notification's time, at least 0.5. A lease is renewed while the handler runs.
            on_store_failure: What to do when the claim store stays unreachable. `"refuse"`: it is tried until shortly
                before the deadline, then the notification is answered 503, and nothing is sent. `"decide"`: it is tried
                for as long as a lease, then the notification is decided as if there were no store, so several replicas
                may ask their handlers about it and send different answers, of which Optimove keeps the first.
            decision_log: Gets a record of every decision before the answer leaves, and what became of it after, such as
                `stores.SqliteDecisionLog`. None records nothing.
            on_log_failure: What becomes of an approval that cannot be recorded. `"refuse"`: it is not sent, and
                `on_failure` applies, since an approval without evidence is worse than none. `"decide"`: it is sent, and
                the outcome's `error` says that there is no record of it. A denial is sent either way.
            reserve: Seconds reserved to deliver the handler's answer; None follows the measured round trips.
            max_concurrency: Handlers that run concurrently, late ones included; further notifications get a 503.
            max_body: Bytes of a notification at most.
            on_outcome: Called with the record of every delivery, in the thread or event loop that answers it; in an
                event loop it must not block.
            around: Makes a context manager that is entered around each call of the handler, in the thread that runs it:
                for what must be opened and closed with it, such as a database connection. An asynchronous context
                manager is taken for a coroutine function. What it raises counts as raised by the handler, also when it
                is left, so the handler's answer is not sent then. What it suppresses is a failure all the same. The
                time that it takes is the handler's.
            switch: The kill switch: the path of a file (see `switch.SwitchState.parse`), or a function without
                arguments that says the same; `AsyncWebhookReceiver` takes a coroutine function too. It is looked at
                before the handler is asked, and again before an approval, at most every second. One that raises, is
                missing, takes more than half a second or says anything else counts as a handler that fails.
            shadow: A second handler, such as a new rule: it is asked about what the handler was asked, after the answer
                has left, and what it says is recorded and never counts. A `shadow.Shadow` has settings.
            observe: Answer nothing, as if the handler had abstained, and record what it would have been, in the
                outcome and in the decision log.

        Raises:
            ConfigurationError: A setting is invalid.
        """
        check_callable("handler", handler, "notification", "deadline")
        if isinstance(client, type) or not callable(getattr(client, "send", None)):
            raise ConfigurationError(
                "client must be an OptimoveClient; for AsyncWebhookReceiver an AsyncOptimoveClient."
            )
        if claims is not None:
            check_store(claims)
        self._check(handler, client, claims)
        if on_outcome is not None and (is_async(on_outcome) or not callable(on_outcome)):
            raise ConfigurationError("on_outcome must be a function of an Outcome; a coroutine would never be awaited.")
        if on_failure not in ("abstain", "deny"):
            raise ConfigurationError('on_failure must be "abstain" (say nothing) or "deny" (say no).')
        if on_store_failure not in ("refuse", "decide"):
            raise ConfigurationError(
                'on_store_failure must be "refuse" (send nothing) or "decide" (without the store).'
            )
        if decision_log is not None or on_log_failure != "refuse":
            from ..flows.decision_log import check_log

            check_log(decision_log, on_log_failure)
        if lease is not None:
            seconds("lease", lease, above_zero=True)
        integer("max_concurrency", max_concurrency)
        self._max_body = integer("max_body", max_body)
        # pydantic builds models at first use, and the first notification must not wait for that.
        for model in (WebhookNotification, NotificationEnvelope, Approval):
            model.model_rebuild()
        controls = decisions = None
        if not isinstance(observe, bool):
            raise ConfigurationError("observe must be True or False.")
        if switch is not None or shadow is not None or observe:
            from ..flows.controls import Controls
            from ..switch import make_switch

            if switch is not None:
                check_takes("client.send", client.send, "before_send", needed_by="switch=")
            controls = Controls(
                switch=None if switch is None else make_switch(switch, pause=self._pause, in_loop=self._in_loop),
                observe=observe,
                has_shadow=shadow is not None,
            )
        if decision_log is not None:
            from ..flows.delivery_log import DeliveryLog

            decisions = DeliveryLog(
                log=decision_log,
                on_failure=on_log_failure,
                clock=time.monotonic,
                wall_clock=time.time,
                on_lost=_log_lost,
            )
        self._shadow = None if shadow is None else self._make_shadow(shadow, around, decision_log)
        keys = receiver_keys(secrets)
        if not isinstance(keys, Unsigned):
            warn_of_copies(_LOGGER, "a webhook secret", keys)
        self._client: C = client
        self._context = WebhookContext(
            handler=with_context(handler, around),
            pause=self._pause,
            claims=MemoryClaims() if claims is None else self._flavour_of(claims),
            keys=keys,
            on_failure=on_failure,
            max_body=max_body,
            estimator=BudgetEstimator(
                transit=TransitEstimate(),
                reserve=Reserve(reserve, clock=time.monotonic),
                clock=time.monotonic,
                wall_clock=time.time,
            ),
            clock=time.monotonic,
            lease=lease,
            on_store_failure=on_store_failure,
            decisions=decisions,
            controls=controls,
        )
        estimator = self._context.estimator
        for each in (estimator.transit, estimator.reserve):
            reset_after_fork(each)
        self._pools = Pools.of(max_concurrency)
        self._on_outcome = on_outcome

    @abc.abstractmethod
    def _check(self, handler: H, client: C, claims: ClaimStore | None) -> None:
        """Reject a sync client, handler or store where an async one is needed, and vice versa."""

    def _flavour_of(self, claims: ClaimStore) -> ClaimStore:
        """Return the store as this receiver calls it."""
        return claims

    _in_loop: ClassVar[bool]

    def _make_shadow(
        self, given: H | shadows.Shadow[H], around: Around | None, log: stores.DecisionLog | None
    ) -> Callable[[shadows.AskedNotification], None]:
        """Return what asks the shadow, without waiting for it.

        Raises:
            ConfigurationError: It is no handler, or one for the async receiver.
        """
        shadow = shadows.as_shadow(given, "notification", "deadline", owner="WebhookReceiver", in_loop=self._in_loop)
        function = with_context(shadow.function, around)
        return lambda asked: shadow.start(function, asked, log)

    def _ask_shadow(self, outcome: OutcomeBuilder) -> None:
        assert self._shadow is not None and outcome.asked is not None  # noqa: S101, PT018 - else nobody asks for it
        notification, decided, had = outcome.asked
        self._shadow(shadows.AskedNotification(about=notification, decided=decided, seconds=had))

    @abc.abstractmethod
    def _pause(self, seconds: float, /) -> Awaitable[None] | None:
        """Sleep for a number of seconds."""

    def too_large(self) -> Response:
        """Return the response to a request whose body an adapter has not read completely, and record it."""
        outcome = OutcomeBuilder(self._context.clock)
        response = too_large(self._context, outcome)
        self._observe(outcome)
        return response

    def _delivery(self, request: Request, host: Deadline | None) -> Flow[Response]:
        """Answer a request, and record the outcome, also when it is interrupted."""
        detect_fork()
        outcome = OutcomeBuilder(self._context.clock)
        try:
            response = yield from answer_notification(request, self._context, outcome, host=host)
        except Exception as error:  # noqa: BLE001 - fail closed, whatever it is
            return self._crashed(error)
        except BaseException as interruption:
            interrupted(outcome, interruption)
            try:
                if self._context.decisions is not None:
                    may_wait = not isinstance(interruption, GeneratorExit)
                    yield from self._context.decisions.finish_interrupted(outcome, may_wait=may_wait)
            finally:
                self._observe(outcome)
            raise
        if outcome.asked is not None:
            self._ask_shadow(outcome)
        if outcome.status is not None:
            self._observe(outcome)
        return response

    def _observe(self, outcome: OutcomeBuilder) -> None:
        if self._on_outcome is not None or _LOGGER.is_enabled_for(_level(outcome.kind, outcome.request_uid_reused)):
            self._report(outcome.build())

    def _report(self, outcome: Outcome) -> None:
        _log(outcome)
        if self._on_outcome is not None:
            notify("on_outcome", self._on_outcome, outcome, _LOGGER)

    def _crashed(self, error: Exception) -> Response:
        # No known delivery reaches this. It fails closed, and logs no traceback, which could quote data.
        _LOGGER.error("a delivery failed inside the SDK: %s", type(error).__name__)
        what = f"The delivery failed inside the SDK: {type(error).__name__}"
        self._report(Outcome(kind="failed", status=503, error=what, exception=error))
        return plain(503, "Not available.")


class WebhookReceiver(_WebhookReceiver[WebhookHandler, OptimoveClient]):
    """Receives the notifications of triggered campaigns in threads, and answers them through a client.

    Mount it with `adapters.wsgi.WSGIApp`, `adapters.aws_lambda.lambda_handler`, or by calling `handle` in a view of
    your framework. Nothing is approved unless your handler returns `True` or `Decision.approve()` in time.
    """

    _in_loop = False

    def _check(self, handler: WebhookHandler, client: OptimoveClient, claims: ClaimStore | None) -> None:
        if is_async(handler):
            raise ConfigurationError("An async handler needs AsyncWebhookReceiver; WebhookReceiver calls a function.")
        if is_async(client.send):
            raise ConfigurationError(
                "WebhookReceiver needs an OptimoveClient; AsyncWebhookReceiver takes the async one."
            )
        if any(is_async(inspect.getattr_static(type(claims), name, None)) for name in _STEPS):
            raise ConfigurationError("A claim store with coroutine methods needs AsyncWebhookReceiver.")

    def _pause(self, seconds: float, /) -> None:
        time.sleep(seconds)

    def handle(self, request: Request, *, deadline: Deadline | None = None) -> Response:
        """Answer a request; blocks until the answer has reached Optimove, or the notification's deadline.

        Args:
            request: As your framework received it, with the raw body.
            deadline: When this must return, on a host with a time limit of its own, such as AWS Lambda. The earlier one
                of this and the notification's deadline applies. None for a host without a limit.

        Returns:
            The response for your framework to send. No request, whatever it holds, makes it raise.

        Raises:
            ConfigurationError: `request` is your framework's request, not a `Request`; or it was called in an event
                loop, which it would block.
        """
        check_arguments(request, deadline)
        refuse_running_loop("WebhookReceiver")
        return run(self._delivery(request, deadline), call=self._client.send, pools=self._pools)


class AsyncWebhookReceiver(_WebhookReceiver[AsyncWebhookHandler | WebhookHandler, AsyncOptimoveClient]):
    """Receives the notifications of triggered campaigns in an event loop, and answers them through a client.

    Mount it with `adapters.asgi.ASGIApp`. Nothing is approved unless your handler returns `True` or
    `Decision.approve()` in time.

    Each notification is answered in a task of its own. When the request is cancelled, because the sender has
    disconnected or a timeout has expired, that task goes on: Optimove still waits for the answer. `drain` waits for
    such tasks at shutdown.
    """

    _in_loop = True

    def _check(
        self, handler: AsyncWebhookHandler | WebhookHandler, client: AsyncOptimoveClient, claims: ClaimStore | None
    ) -> None:
        given: object = client
        if isinstance(given, OptimoveClient):
            raise ConfigurationError(
                "AsyncWebhookReceiver needs an AsyncOptimoveClient; WebhookReceiver takes the other."
            )

        self._deliveries = BackgroundTasks()

    def _flavour_of(self, claims: ClaimStore) -> ClaimStore:
        return flavour_for_loop(claims)

    async def _pause(self, seconds: float, /) -> None:
        await asyncio.sleep(seconds)

    async def handle(self, request: Request, *, deadline: Deadline | None = None) -> Response:
        """Answer a request; returns when the answer has reached Optimove, or the notification's deadline has come.

        Args:
            request: As your framework received it, with the raw body.
            deadline: When this must return, on a host with a time limit of its own, such as AWS Lambda. The earlier one
                of this and the notification's deadline applies. None for a host without a limit.

        Returns:
            The response for your framework to send. No request, whatever it holds, makes it raise.

        Raises:
            ConfigurationError: `request` is your framework's request, not a `Request`; or no event loop of asyncio is
                running.
        """
        check_arguments(request, deadline)
        running_loop("AsyncWebhookReceiver")
        delivery = self._delivery(request, deadline)
        task = start_task(arun(delivery, call=self._client.send, pools=self._pools))
        if task.done():
            return task.result()
        self._deliveries.keep(task)
        # Else asyncio logs what ended a delivery whose request is gone, or the server: it is in the outcome.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        if inspect.getgeneratorstate(delivery) == inspect.GEN_CREATED:
            task.add_done_callback(lambda _: self._record_cancelled(delivery))
        await until_done(task)
        return task.result()

    def _record_cancelled(self, delivery: Flow[Response]) -> None:
        """Record a delivery whose task was cancelled before it began."""
        if inspect.getgeneratorstate(delivery) == inspect.GEN_CREATED:
            delivery.close()
            outcome = OutcomeBuilder(self._context.clock)
            interrupted(outcome, asyncio.CancelledError())
            self._observe(outcome)

    async def drain(self, *, within: float = DRAIN_SECONDS) -> bool:
        """Wait for the deliveries that run in this event loop, those included whose request was cancelled.

        Call it at shutdown, before the client is closed; `ASGIApp` does, where the server sends lifespan events.

        Args:
            within: Seconds at most. Each delivery ends at its notification's deadline by itself.

        Returns:
            Whether all are done. A delivery that is cancelled by the end of the event loop releases its claim.

        Raises:
            ConfigurationError: `within` is not a number of 0 or more.
        """
        return await self._deliveries.drain(within)


def _level(kind: OutcomeKind, reused: bool) -> int:
    return logging.INFO if kind in _EXPECTED and not reused else logging.WARNING


def _log_lost(request_uid: str | None, error: BaseException) -> None:
    uid = ascii(request_uid)[:100]
    _LOGGER.error("the decision log lost what became of request_uid=%s: %s", uid, exception_name(error))


def _log(outcome: Outcome) -> None:
    level = _level(outcome.kind, outcome.request_uid_reused)
    if not _LOGGER.is_enabled_for(level):
        return
    # A request_uid is the sender's text: ascii() keeps it on one line.
    uid = ascii(outcome.request_uid)[:100] if outcome.request_uid is not None else "-"
    _LOGGER.log(
        level,
        "%s request_uid=%s status=%d total=%.3fs%s",
        outcome.kind,
        uid,
        outcome.status,
        outcome.total_seconds,
        ("" if outcome.error is None else f" ({outcome.error})") + (_REUSED if outcome.request_uid_reused else ""),
        extra={
            "optimove_kind": outcome.kind,
            "optimove_request_uid": outcome.request_uid,
            "optimove_status": outcome.status,
            "optimove_error": outcome.error,
            "optimove_total_seconds": outcome.total_seconds,
            "optimove_budget_seconds": outcome.budget_seconds,
        },
    )
