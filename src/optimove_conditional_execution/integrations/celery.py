"""Reviewers that ask Celery workers (extra `celery`). The only module that knows Celery."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple, final

from celery import Task
from celery.backends.base import DisabledBackend
from celery.exceptions import ImproperlyConfigured
from celery.result import AsyncResult
from celery.states import SUCCESS

from ..deadline import Deadline
from ..drivers import Pools, arun, run
from ..errors import ConfigurationError, OptimoveError
from ..flows.effects import Ask, Flow, Late
from ..models.campaign import CampaignCustomer, CustomerRow
from ..observers import SafeLogger
from ..validation import check_callable
from ..worker_pool import DaemonThreadPool

Argument = Callable[[Sequence[CampaignCustomer]], object]

_LOGGER: Final = SafeLogger("celery")

_SHORTEST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 0.5
_PAUSE_SHARE: Final = 0.1
"""Seconds between two looks at the result of a task: a tenth of the time that it has taken so far."""

_PATIENCE: Final = 5.0
"""Seconds for which a result backend may be unreachable, as while it restarts, before a batch fails."""


class WorkerError(OptimoveError):
    """A Celery worker did not decide about a batch; nobody in it is approved."""


class BrokerError(WorkerError):
    """The task could not be sent to the broker."""


class ResultBackendError(WorkerError):
    """The result of the task could not be read."""


class TaskFailedError(WorkerError):
    """The task raised, its worker was lost, or it was revoked. The message names the exception's class alone."""


class _Ended(NamedTuple):
    """How a task has ended, and what it returned or raised."""

    state: str
    value: object


class _Reviewer:
    """What both reviewers share. All calls to Celery are made in one thread, since few result backends are thread-safe.

    Results are polled, and not subscribed to: a subscription breaks for good when its connection is lost too often.
    """

    _pause: Callable[[float], object]

    def __init__(self, task: object, *, send: Literal["ids", "rows"] | Argument = "ids") -> None:
        """Wrap a task.

        Args:
            task: Your task. It takes one argument, and returns the ids of the customers who are approved, or a mapping
                of id to bool, in a form that the task serializer knows.
            send: What the task gets. `"ids"`: a list of `customer_id`. `"rows"`: a list of JSON objects, one a customer
                as Optimove sent it, with all rows of the customer that are known as `Rows`: objects with `ChannelID`,
                `ActionID`, `TemplateID` and `PromoCode`, a list. Or a function of the batch that returns the argument.

        Raises:
            ConfigurationError: It is not a task, it takes other arguments, its result would not be stored, or `send` is
                invalid.
        """
        if not isinstance(task, Task):
            raise ConfigurationError("CeleryReviewer needs a Celery task: decorate the function with @app.task.")
        check_callable("task", task.run, "batch")
        if not callable(send) and send not in _ARGUMENTS:
            raise ConfigurationError('send must be "ids", "rows", or a function of the batch.')
        self._task: Any = task
        self._argument: Argument = send if callable(send) else _ARGUMENTS[send]
        self._check_backend()
        self._calls = self._new_thread()

    def _check_backend(self) -> None:
        if self._task.app.conf.task_always_eager:
            return  # the result never leaves the process
        try:
            backend = self._task.backend
        except (ImproperlyConfigured, ImportError) as error:
            raise ConfigurationError(f"Celery's result backend cannot be used: {type(error).__name__}.") from None
        if isinstance(backend, DisabledBackend):
            raise ConfigurationError("The Celery app has no result backend: pass Celery(..., backend=URL).")
        if self._task.ignore_result:
            raise ConfigurationError(f"The results of the task {self._task.name} are ignored: set ignore_result=False.")

    def _new_thread(self) -> DaemonThreadPool:
        return DaemonThreadPool(1, on_full="queue", name="optimove-celery")

    def _pools(self) -> Pools:
        return Pools(self._calls, self._calls, self._calls)

    def _review(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> Flow[object]:
        """Send the task, and poll its result until the deadline.

        Raises:
            WorkerError: The task could not be sent, or failed.
            TimeoutError: It was not done by the deadline.
        """
        task_id = str(uuid.uuid4())
        calls = self._calls
        argument = self._argument(customers)
        try:
            result = yield Ask(self._send, (task_id, argument, deadline), deadline)
            begun = deadline.remaining()
            unreachable: Deadline | None = None
            while True:
                ended: _Ended | None = None
                try:
                    ended = yield Ask(_read, (result,), deadline)
                    unreachable = None
                except ResultBackendError:
                    unreachable = unreachable or Deadline.after(_PATIENCE)
                    if unreachable.expired:
                        raise
                if ended is not None:
                    break
                took = begun - deadline.remaining() if begun < math.inf else _LONGEST_PAUSE
                pause = min(max(_SHORTEST_PAUSE, took * _PAUSE_SHARE), _LONGEST_PAUSE, deadline.remaining())
                if deadline.expired:
                    raise Late
                yield Ask(self._pause, (pause,))
        except BaseException as error:
            if not isinstance(error, BrokerError):
                calls.submit(self._revoke, (task_id,))
            if not isinstance(error, Late):
                raise
            if calls is self._calls:
                # It may hang in a call to a broker that does not answer, and must not delay the batches after this one.
                self._calls = self._new_thread()
            raise TimeoutError(f"The task {self._task.name} was not done in time.") from None
        if ended.state != SUCCESS:
            name = type(ended.value).__name__
            raise TaskFailedError(f"The task {self._task.name} ended as {ended.state}: {name}.")
        return ended.value

    def _send(self, task_id: str, argument: object, deadline: Deadline) -> AsyncResult:
        left = deadline.remaining()
        if not left:
            raise Late
        try:
            expires = None if left == math.inf else left
            if self._task.app.conf.task_always_eager:
                return self._task.apply_async((argument,), task_id=task_id)
            with self._task.app.producer_or_acquire() as producer:
                # Sending begins with the result backend, which tries to connect for long if both are down.
                producer.connection.ensure_connection(max_retries=2, interval_start=0.2, interval_step=0.2)
                result = self._task.apply_async((argument,), task_id=task_id, expires=expires, producer=producer)
            # With some backends this has subscribed to the result; nothing would read what they push.
            result.backend.remove_pending_result(result)
        except Exception as error:  # noqa: BLE001 - brokers and backends raise what their libraries raise
            # Its message may quote the batch, or a URL with a password.
            raise BrokerError(
                f"The task {self._task.name} could not be sent: {type(error).__name__}. Is the broker up, is its URL "
                "right, and can its serializer write what is sent?"
            ) from None
        return result

    def _revoke(self, task_id: str) -> None:
        try:
            self._task.app.control.revoke(task_id)
        except Exception as error:  # noqa: BLE001 - as above; it expires all the same
            _LOGGER.warning("a late task could not be revoked: %s", type(error).__name__)


def _read(result: AsyncResult) -> _Ended | None:
    try:
        if not result.ready():
            return None
        ended = _Ended(str(result.state), result.result)
    except Exception as error:  # noqa: BLE001 - as above
        raise ResultBackendError(f"The result of a task could not be read: {type(error).__name__}.") from None
    # The ids of customers must not stay there.
    with contextlib.suppress(Exception):
        result.forget()
    return ended


def _ids(customers: Sequence[CampaignCustomer]) -> list[str]:
    return [customer.customer_id for customer in customers]


def _rows(customers: Sequence[CampaignCustomer]) -> list[dict[str, Any]]:
    return [
        {**customer.model_dump(mode="json", by_alias=True, exclude_unset=True), "Rows": list(map(_row, customer.rows))}
        for customer in customers
    ]


def _row(row: CustomerRow) -> dict[str, Any]:
    return {
        "ChannelID": row.channel_id,
        "ActionID": row.action_id,
        "TemplateID": row.template_id,
        "PromoCode": list(row.promo_codes),
    }


_ARGUMENTS: Final[dict[object, Argument]] = {"ids": _ids, "rows": _rows}


@final
class CeleryReviewer(_Reviewer):
    """A reviewer for `CampaignReview` whose batches are decided by Celery workers.

    Each batch is one task. It expires at the deadline by the worker's clock; one that is not done by then, or that is
    given up, is revoked. It needs a broker and a result backend, nothing else. What the task returned is deleted from
    the backend when it has been read; what nobody reads stays there for `result_expires`.
    """

    _pause = staticmethod(time.sleep)

    def __call__(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> Any:
        """Return what the task returned.

        Args:
            customers: The batch.
            deadline: When the task must be done.

        Raises:
            WorkerError: The task could not be sent, its result could not be read, or it failed.
            TimeoutError: It was not done by the deadline.
        """
        return run(self._review(customers, deadline), pools=self._pools())


@final
class AsyncCeleryReviewer(_Reviewer):
    """The same for `AsyncCampaignReview`: waiting costs no thread."""

    _pause = staticmethod(asyncio.sleep)

    async def __call__(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> Any:
        """Return what the task returned; see `CeleryReviewer`."""
        return await arun(self._review(customers, deadline), pools=self._pools())
