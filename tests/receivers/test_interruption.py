"""A delivery whose request is cancelled goes on; one whose event loop or thread ends is an outcome, and asked again."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import pytest

from optimove_conditional_execution import (
    AsyncWebhookReceiver,
    ConfigurationError,
    Decision,
    Outcome,
    Response,
    WebhookReceiver,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.adapters.wsgi import WSGIApp
from optimove_conditional_execution.flows import webhook
from optimove_conditional_execution.stores import (
    Claim,
    ClaimState,
    Completion,
    DecisionRecord,
    MemoryClaims,
    SqliteDecisionLog,
)
from optimove_conditional_execution.testing import FakeOptimove, SentNotification, notification, signed_request

PATIENCE = 30.0
"""Seconds; only a broken test waits so long."""


class Slow:
    """A claim store that takes its time for one step: acquire, record (an answer), settle or release."""

    instant = False

    def __init__(self, step: str = "acquire", seconds: float = 0.3) -> None:
        self._claims = MemoryClaims()
        self.step = step
        self._seconds = seconds
        self.asked = threading.Event()

    def _wait(self, step: str) -> None:
        if step == self.step:
            self.asked.set()
            time.sleep(self._seconds)

    def acquire(self, question: str, owner: str, lease: float, ttl: float, /) -> Claim:
        self._wait("acquire")
        return self._claims.acquire(question, owner, lease, ttl)

    def renew(self, question: str, owner: str, lease: float, ttl: float, /) -> bool:
        return self._claims.renew(question, owner, lease, ttl)

    def update(self, question: str, owner: str, claim: Claim, lease: float, ttl: float, /) -> bool:
        self._wait("settle" if claim.state is ClaimState.SETTLED else "record")
        return self._claims.update(question, owner, claim, lease, ttl)

    def release(self, question: str, owner: str, /) -> None:
        self._wait("release")
        self._claims.release(question, owner)


class Gate:
    """An async receiver whose handler waits until it may go on, and what became of its deliveries."""

    def __init__(self, kind: str = "coroutine", **options: Any) -> None:
        self.optimove = FakeOptimove()
        self.outcomes: list[Outcome] = []
        self.asked: list[str] = []
        self.entered = threading.Event()
        self.go_on = threading.Event()
        handler: Any = self.coroutine if kind == "coroutine" else self.function
        self.receiver = AsyncWebhookReceiver(
            handler,
            client=self.optimove.async_client(),
            secrets=self.optimove.secrets,
            on_outcome=self.outcomes.append,
            **options,
        )

    async def coroutine(self, notification: Any, deadline: Any) -> bool:
        self.asked.append(notification.request_uid)
        self.entered.set()
        while not self.go_on.is_set():
            await asyncio.sleep(0.002)
        return True

    def function(self, notification: Any, deadline: Any) -> bool:
        self.asked.append(notification.request_uid)
        self.entered.set()
        assert self.go_on.wait(PATIENCE)
        return True

    async def notify(self, **options: Any) -> SentNotification:
        return await self.optimove.anotify(self.receiver, request_uid="r-1", timeout_ms=20_000, **options)

    def kinds(self) -> list[str]:
        return [outcome.kind for outcome in self.outcomes]


async def until(event: threading.Event) -> None:
    while not event.is_set():
        await asyncio.sleep(0.002)


async def cancelled(work: Awaitable[object], entered: threading.Event, *, times: int) -> None:
    task = asyncio.ensure_future(work)
    await until(entered)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task


async def once(work: Awaitable[object], entered: threading.Event) -> None:
    await cancelled(work, entered, times=1)


async def a_hundred_times(work: Awaitable[object], entered: threading.Event) -> None:
    await cancelled(work, entered, times=100)


async def wait_for(work: Awaitable[object], entered: threading.Event) -> None:
    task = asyncio.ensure_future(work)
    await until(entered)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(task, 0.01)


async def cancel_scope(work: Awaitable[object], entered: threading.Event) -> None:
    """anyio, below Starlette and FastAPI, cancels again at every await."""

    async def leave() -> None:
        await until(entered)
        scope.cancel()

    with anyio.CancelScope() as scope:
        leaving = asyncio.ensure_future(leave())
        await work
    await leaving
    assert scope.cancelled_caught


async def task_group(work: Awaitable[object], entered: threading.Event) -> None:
    async def fail() -> None:
        await until(entered)
        raise ValueError

    async def waits() -> None:
        await work

    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(waits())
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        await together()


Leaving = Callable[[Awaitable[object], threading.Event], Awaitable[None]]
WAYS: list[Leaving] = [once, a_hundred_times, wait_for, cancel_scope, task_group]


@pytest.mark.parametrize("kind", ["coroutine", "function"])
@pytest.mark.parametrize("leave", WAYS)
def test_a_delivery_goes_on_when_its_request_is_cancelled(leave: Leaving, kind: str) -> None:
    async def main() -> None:
        gate = Gate(kind)
        await leave(gate.notify(), gate.entered)
        assert gate.outcomes == []  # it was left while the handler is still asked
        gate.go_on.set()
        assert await gate.receiver.drain(within=PATIENCE)
        assert gate.kinds() == ["approved"]
        assert gate.optimove.result("r-1") == "approved"
        repeat = await gate.notify()
        assert repeat.responses[0].status == 200
        assert gate.kinds() == ["approved", "duplicate"]
        assert gate.asked == ["r-1"]

    asyncio.run(main())


@pytest.mark.parametrize("leave", [once, a_hundred_times, cancel_scope])
def test_a_delivery_goes_on_when_its_request_is_cancelled_while_claiming(leave: Leaving) -> None:
    async def main() -> None:
        claims = Slow()
        gate = Gate(claims=claims)
        gate.go_on.set()
        await leave(gate.notify(), claims.asked)
        assert await gate.receiver.drain(within=PATIENCE)
        assert gate.kinds() == ["approved"]

    asyncio.run(main())


def test_a_handler_sees_the_context_variables_of_its_caller() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    async def main() -> None:
        optimove = FakeOptimove()

        async def handler(notification: Any, deadline: Any) -> bool:
            seen.append(variable.get())
            return True

        receiver = AsyncWebhookReceiver(
            handler,
            client=optimove.async_client(),
            secrets=optimove.secrets,
            on_outcome=lambda outcome: seen.append(variable.get()),
        )
        variable.set("trace-7")
        await optimove.anotify(receiver)

    asyncio.run(main())
    assert seen == ["trace-7", "trace-7"]


# ---- the event loop ends


@pytest.mark.parametrize("kind", ["coroutine", "function"])
def test_an_event_loop_that_ends_while_the_handler_is_asked(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(kind)

    async def begin() -> None:
        asking = asyncio.ensure_future(gate.notify())
        await until(gate.entered)
        assert not asking.done()

    asyncio.run(begin())
    assert gate.kinds() == ["cancelled"]
    assert (gate.outcomes[0].status, gate.outcomes[0].decision) == (503, None)
    assert gate.outcomes[0].error == "The delivery was interrupted by CancelledError."
    assert "cancelled request_uid='r-1' status=503" in caplog.text
    assert gate.optimove.result("r-1") == "pending"
    gate.go_on.set()
    assert asyncio.run(gate.notify()).approved  # nothing was decided, so the handler is asked again
    assert gate.asked == ["r-1", "r-1"]
    assert gate.kinds() == ["cancelled", "approved"]


def test_an_event_loop_that_ends_while_the_answer_is_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optimove may have it already, so it is kept: a repeat must not decide anew."""
    gate = Gate()
    gate.go_on.set()
    delivering = threading.Event()
    client = gate.receiver._client
    send = client.send

    async def hang(*_: object, **__: object) -> None:
        delivering.set()
        await asyncio.sleep(PATIENCE)

    monkeypatch.setattr(client, "send", hang)

    async def begin() -> None:
        asyncio.ensure_future(gate.notify())  # noqa: RUF006 - the loop ends with it
        await until(delivering)

    asyncio.run(begin())
    assert gate.kinds() == ["cancelled"]
    assert gate.outcomes[0].decision is not None
    monkeypatch.setattr(client, "send", send)
    assert asyncio.run(gate.notify()).approved
    assert gate.asked == ["r-1"]
    assert gate.kinds() == ["cancelled", "approved"]


def test_the_decision_log_says_that_a_delivery_was_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    delivering = threading.Event()

    async def hang(*_: object, **__: object) -> None:
        delivering.set()
        await asyncio.sleep(PATIENCE)

    with SqliteDecisionLog(tmp_path / "log.db") as log:
        gate = Gate(decision_log=log)
        gate.go_on.set()
        monkeypatch.setattr(gate.receiver._client, "send", hang)

        async def begin() -> None:
            asyncio.ensure_future(gate.notify())  # noqa: RUF006 - the loop ends with it
            await until(delivering)

        asyncio.run(begin())
        log.flush()
        (logged,) = log.decisions()
    assert logged.record.kind == "approved"
    done = logged.completion
    assert done is not None
    assert (done.kind, done.told, done.taken) == ("cancelled", "approved", None)  # Optimove may have taken it
    assert done.error == "The delivery was interrupted by CancelledError."


class Kept:
    """A decision log that may block: it has nothing but `append`."""

    def __init__(self) -> None:
        self.entries: list[DecisionRecord | Completion] = []

    def append(self, entries: Sequence[DecisionRecord | Completion], /) -> None:
        self.entries += entries


async def _leave_while_it_is_asked(gate: Gate) -> None:
    asyncio.ensure_future(gate.notify(user_id="C1"))  # noqa: RUF006 - the loop ends with it
    await until(gate.entered)


def _is_of_a_cancelled_delivery(record: object) -> bool:
    assert isinstance(record, DecisionRecord)
    assert (record.request_uid, record.subject.customer_id) == ("r-1", "C1")
    assert record.error in {f"The delivery was interrupted by {name}." for name in ("CancelledError", "GeneratorExit")}
    return (record.kind, record.verdict) == ("cancelled", None)


@pytest.mark.parametrize("kind", ["coroutine", "function"])
def test_the_decision_log_has_a_delivery_that_was_cut_off_while_its_handler_was_asked(
    kind: str, tmp_path: Path
) -> None:
    with SqliteDecisionLog(tmp_path / "log.db") as log:
        gate = Gate(kind, decision_log=log)
        asyncio.run(_leave_while_it_is_asked(gate))
        gate.go_on.set()
        (logged,) = log.decisions(customer_id="C1")
    assert _is_of_a_cancelled_delivery(logged.record)
    assert logged.completion is None
    assert gate.kinds() == ["cancelled"]


def test_a_log_that_may_block_has_it_too() -> None:
    kept = Kept()
    gate = Gate(decision_log=kept)
    asyncio.run(_leave_while_it_is_asked(gate))
    (record,) = kept.entries
    assert _is_of_a_cancelled_delivery(record)
    assert gate.kinds() == ["cancelled"]


def test_a_delivery_whose_coroutine_is_closed_waits_for_no_log(tmp_path: Path) -> None:
    for log in (SqliteDecisionLog(tmp_path / "log.db"), Kept()):
        gate = Gate(decision_log=log)
        body, secret = notification(request_uid="r-1", user_id="C1"), gate.optimove.secrets
        assert isinstance(secret, str)
        delivery = gate.receiver._delivery(signed_request(body, secret=secret), None)
        next(delivery)
        delivery.close()
        assert gate.kinds() == ["cancelled"]
        if isinstance(log, SqliteDecisionLog):
            (logged,) = log.decisions()
            assert _is_of_a_cancelled_delivery(logged.record)
            log.close()


def test_what_nobody_has_verified_leaves_no_record_when_it_is_cut_off(tmp_path: Path) -> None:
    with SqliteDecisionLog(tmp_path / "log.db") as log:
        gate = Gate(decision_log=log)

        async def begin() -> None:
            asyncio.ensure_future(gate.notify()).cancel()

        asyncio.run(begin())
        assert list(log.decisions()) == []


def test_what_nobody_has_verified_leaves_no_record_when_its_thread_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(webhook, "match", interrupted)
    optimove = FakeOptimove()
    outcomes: list[Outcome] = []
    with SqliteDecisionLog(tmp_path / "log.db") as log:
        receiver = WebhookReceiver(
            lambda *_: True,
            client=optimove.client(),
            secrets=optimove.secrets,
            decision_log=log,
            on_outcome=outcomes.append,
        )
        with pytest.raises(SystemExit):
            optimove.notify(receiver)
        log.flush()
        assert list(log.decisions()) == []
    assert [outcome.kind for outcome in outcomes] == ["cancelled"]


def test_an_exit_in_a_delivery_whose_request_is_gone_is_no_error_of_a_task(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    client = gate.receiver._client

    async def leave(*_: object, **__: object) -> None:
        raise SystemExit(5)  # as a handler of SIGTERM does it, wherever the program is

    monkeypatch.setattr(client, "send", leave)

    async def begin() -> None:
        asking = asyncio.ensure_future(gate.notify())
        await until(gate.entered)
        asking.cancel()
        await asyncio.wait((asking,))
        gate.go_on.set()
        await asyncio.sleep(PATIENCE)

    with pytest.raises(SystemExit):
        asyncio.run(begin())
    gc.collect()
    assert [record.name for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.parametrize("times", [1, 100])
def test_a_delivery_that_is_cancelled_while_claiming_gives_its_claim_back(times: int) -> None:
    claims = Slow()
    gate = Gate(claims=claims)
    gate.go_on.set()

    async def begin() -> None:
        asking = asyncio.ensure_future(gate.notify())
        await until(claims.asked)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for _ in range(times):
            for task in others:
                task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait(others, timeout=PATIENCE)
        assert asking.cancelled()

    asyncio.run(begin())
    assert (gate.kinds(), gate.asked) == (["cancelled"], [])
    assert asyncio.run(gate.notify()).approved


def test_what_was_delivered_stays_so_when_the_loop_ends_while_it_is_written_down() -> None:
    claims = Slow("settle")
    gate = Gate(claims=claims)
    gate.go_on.set()

    async def begin() -> None:
        asyncio.ensure_future(gate.notify())  # noqa: RUF006 - the loop ends with it
        await until(claims.asked)

    asyncio.run(begin())
    assert gate.kinds() == ["approved"]
    assert asyncio.run(gate.notify()).responses[0].status == 200
    assert gate.kinds() == ["approved", "duplicate"]


# ---- shutdown


class Holding:
    """A decision log that takes its first entries when it is told to."""

    def __init__(self) -> None:
        self.asked, self.goes_on = threading.Event(), threading.Event()

    def append(self, entries: Sequence[object], /) -> None:
        self.asked.set()
        assert self.goes_on.wait(PATIENCE)


def test_an_abstention_that_is_interrupted_while_it_is_recorded_stays_settled() -> None:
    """A repeat learns at once that it was decided, and waits for no lease that nobody holds any more."""
    optimove, log, outcomes = FakeOptimove(), Holding(), list[Outcome]()
    request = signed_request(notification(timeout_ms=10_000), secret=optimove.secret)

    async def abstain(notification: Any, deadline: Any) -> Decision:
        return Decision.abstain()

    async def go() -> None:
        receiver = AsyncWebhookReceiver(
            abstain, client=optimove.async_client(), secrets=optimove.secrets, decision_log=log,
            on_outcome=outcomes.append,
        )  # fmt: skip
        handling = asyncio.ensure_future(receiver.handle(request))
        assert await asyncio.to_thread(log.asked.wait, PATIENCE)
        for task in asyncio.all_tasks() - {asyncio.current_task(), handling}:
            task.cancel()
        await asyncio.sleep(0)
        log.goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await handling
        await receiver.handle(request)

    asyncio.run(go())
    assert [outcome.kind for outcome in outcomes] == ["abstained", "duplicate"]
    assert outcomes[1].status == 200


def test_drain_waits_within_its_bound() -> None:
    async def main() -> None:
        gate = Gate()
        assert await gate.receiver.drain(within=0)  # nothing runs
        await once(gate.notify(), gate.entered)
        assert not await gate.receiver.drain(within=0.05)
        gate.go_on.set()
        assert await gate.receiver.drain()
        for wrong in (-1, None, "soon", float("nan")):
            with pytest.raises(ConfigurationError, match="within"):
                await gate.receiver.drain(within=wrong)  # type: ignore[arg-type]

    asyncio.run(main())


def test_the_end_of_the_lifespan_waits_for_deliveries() -> None:
    async def main() -> None:
        gate = Gate()
        incoming = iter(["startup", "shutdown"])
        sent: list[str] = []

        async def receive() -> dict[str, Any]:
            what = next(incoming)
            if what == "shutdown":
                await once(gate.notify(), gate.entered)
                asyncio.get_running_loop().call_later(0.1, gate.go_on.set)
            return {"type": f"lifespan.{what}"}

        async def send(message: Any) -> None:
            sent.append(message["type"])
            if message["type"] == "lifespan.shutdown.complete":
                assert gate.kinds() == ["approved"]

        await ASGIApp(gate.receiver)({"type": "lifespan"}, receive, send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    asyncio.run(main())


# ---- threads


class Ended(BaseException):
    """As gevent's GreenletExit and Timeout, which end whatever a greenlet waits for."""


@pytest.fixture
def interrupt() -> Iterator[Callable[[BaseException, float], None]]:
    """Raise something in this thread, as a signal handler does: gunicorn's SystemExit, Ctrl-C."""
    raised: list[BaseException] = []

    def handle(number: int, frame: FrameType | None) -> None:
        raise raised[0]

    before = signal.signal(signal.SIGALRM, handle)

    def set_up(error: BaseException, after: float) -> None:
        raised[:] = [error]
        signal.setitimer(signal.ITIMER_REAL, after)

    yield set_up
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


INTERRUPTIONS = [SystemExit(1), KeyboardInterrupt(), Ended()]


@pytest.mark.parametrize("error", INTERRUPTIONS)
@pytest.mark.parametrize("stage", ["acquire", "decide", "record", "deliver", "settle"])
def test_a_thread_that_is_interrupted(
    stage: str, error: BaseException, interrupt: Callable[[BaseException, float], None]
) -> None:
    optimove = FakeOptimove()
    outcomes: list[Outcome] = []
    asked: list[str] = []
    slow = [stage]

    def soon() -> None:
        interrupt(error, 0.1)  # not before: Python ignores what is raised in a callback of a weak reference

    class Armed(Slow):
        def _wait(self, step: str) -> None:
            if step == self.step:
                soon()
            super()._wait(step)

    claims = Armed(stage, 0.6)

    def handler(notification: Any, deadline: Any) -> bool:
        asked.append(notification.request_uid)
        if slow == ["decide"]:
            soon()
            time.sleep(0.6)
        return True

    class Client:
        def __init__(self) -> None:
            self._client = optimove.client()

        def send(self, operation: Any, *, deadline: Any) -> None:
            if slow == ["deliver"]:
                soon()
                for _ in range(3_000):  # another thread may get the signal, and wake no sleep of this one
                    time.sleep(0.01)
            self._client.send(operation, deadline=deadline)

    client: Any = Client()
    receiver = WebhookReceiver(
        handler, client=client, secrets=optimove.secrets, claims=claims, on_outcome=outcomes.append
    )
    with pytest.raises(type(error)):
        optimove.notify(receiver, request_uid="r-1", timeout_ms=20_000)
    slow.clear()
    settled = stage == "settle"  # the answer was delivered, and is written down before the thread ends
    assert [outcome.kind for outcome in outcomes] == ["approved" if settled else "cancelled"]
    assert (outcomes[0].decision is not None) is (stage in ("record", "deliver", "settle"))
    claims.step = ""
    repeat = optimove.notify(receiver, request_uid="r-1", timeout_ms=20_000)
    assert repeat.responses[0].status == 200
    assert outcomes[-1].kind == ("duplicate" if settled else "approved")
    assert optimove.result("r-1") == "approved"
    assert len(asked) == (2 if stage == "decide" else 1)  # never asked again once it has decided


# ---- a loop that must not be blocked, or is of another kind


def test_a_sync_receiver_refuses_to_block_an_event_loop() -> None:
    optimove = FakeOptimove()
    asked: list[str] = []

    def handler(notification: Any, deadline: Any) -> bool:
        asked.append(notification.request_uid)
        return True

    receiver = WebhookReceiver(handler, client=optimove.client(), secrets=optimove.secrets)
    payload = notification()
    optimove.expect(payload)
    request = signed_request(payload, secret=optimove.secret)

    async def view() -> Response:
        return receiver.handle(request)

    async def wsgi() -> object:
        return WSGIApp(receiver)(
            {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "0", "wsgi.input": None}, lambda *given: None
        )

    for wrong in (view, wsgi):
        with pytest.raises(ConfigurationError, match=r"AsyncWebhookReceiver, or call it in a thread"):
            asyncio.run(wrong())
    assert asked == []

    async def remedy() -> Response:
        return await asyncio.to_thread(receiver.handle, request)

    assert asyncio.run(remedy()).status == 200
    assert len(asked) == 1


def test_a_delivery_that_is_cancelled_before_it_begins_is_an_outcome() -> None:
    optimove = FakeOptimove()
    outcomes: list[Outcome] = []

    async def handler(notification: Any, deadline: Any) -> bool:
        return True

    receiver = AsyncWebhookReceiver(
        handler, client=optimove.async_client(), secrets=optimove.secrets, on_outcome=outcomes.append
    )
    payload = notification()
    optimove.expect(payload)
    request = signed_request(payload, secret=optimove.secret)

    async def ended_at_once() -> Response:
        # With a task factory, as on Python 3.11, the delivery's task does not run at once.
        asyncio.get_running_loop().set_task_factory(
            lambda loop, coroutine, **options: asyncio.Task(coroutine, loop=loop, **options)
        )
        handling = asyncio.create_task(receiver.handle(request))
        await asyncio.sleep(0)  # it has made its own task, which has not begun
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.gather(handling, return_exceptions=True)
        return await receiver.handle(request)

    assert asyncio.run(ended_at_once()).status == 200
    assert [outcome.kind for outcome in outcomes] == ["cancelled", "approved"]


def test_an_async_receiver_says_that_it_needs_asyncio() -> None:
    """Under trio its coroutines run, and no event loop of asyncio does."""
    optimove = FakeOptimove()

    async def handler(notification: Any, deadline: Any) -> bool:
        return True

    receiver = AsyncWebhookReceiver(handler, client=optimove.async_client(), secrets=optimove.secrets)
    app = ASGIApp(receiver)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    for coroutine in (
        receiver.handle(signed_request(notification(), secret="s")),
        app({"type": "http"}, receive, send),
    ):
        with pytest.raises(ConfigurationError, match=r"needs asyncio.*trio.*worker class"):
            coroutine.send(None)
    with pytest.raises(StopIteration):
        app({"type": "lifespan"}, receive, send).send(None)
    assert sent[0]["type"] == "lifespan.startup.failed"
    assert "needs asyncio" in sent[0]["message"]
