"""Receivers in a child that is forked while other threads of its parent hold their locks."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from optimove_conditional_execution import (
    Decision,
    ListenerReceiver,
    NotFoundError,
    OptimoveClient,
    Outcome,
    WebhookReceiver,
)
from optimove_conditional_execution.fork import ForkLock
from optimove_conditional_execution.testing import (
    FakeOptimove,
    listener_request,
    notification,
    signed_request,
)
from tests.conftest import child_status, forked, forked_untold

Fork = Callable[[], int]


@contextlib.contextmanager
def held(*owners: Any) -> Iterator[None]:
    """Let another thread hold the locks of objects."""
    holding, over = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as stack:
            for each in owners:
                stack.enter_context(each if isinstance(each, ForkLock) else each._lock)
            holding.set()
            over.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(60)
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("fork", [forked, forked_untold])
def test_a_notification_in_a_child(fork: Fork, fake_optimove: FakeOptimove, optimove_url: str) -> None:
    def answers() -> bool:
        payload = notification(timeout_ms=60_000)
        fake_optimove.expect(payload)  # of which the parent's server learns nothing: an approval of it is a 404 there
        receiver.handle(signed_request(payload, secret=fake_optimove.secret))
        return outcomes[-1].decision == Decision.approve() and isinstance(outcomes[-1].exception, NotFoundError)

    outcomes: list[Outcome] = []
    with OptimoveClient(fake_optimove.api_key, base_url=optimove_url) as client:
        receiver = WebhookReceiver(
            lambda notification, deadline: True,
            client=client,
            secrets=fake_optimove.secrets,
            on_outcome=outcomes.append,
        )

        context: Any = receiver._context
        with held(context.claims, context.estimator.reserve, context.estimator.transit):
            assert child_status(answers, fork) == 0


@pytest.mark.parametrize("fork", [forked, forked_untold])
def test_an_event_in_a_child(fork: Fork) -> None:
    events: list[Any] = []
    campaign = FakeOptimove().add_campaign(1)
    receiver = ListenerReceiver(events.append, token="a-token", answer_within=20.0)

    def takes() -> bool:
        response = receiver.handle(listener_request(campaign.payload, token="a-token"))
        return response.status == 200 and len(events) == 1

    context: Any = receiver._context
    with held(context.deduplicator):
        assert child_status(takes, fork) == 0
    assert takes()


@pytest.mark.parametrize("fork", [forked, forked_untold])
def test_a_lock_that_is_free_in_a_child(fork: Fork) -> None:
    lock = ForkLock()

    def is_free() -> bool:
        with lock:
            return True

    with held(lock):
        assert child_status(is_free, fork) == 0
    with lock:  # and one that the thread holds that forks
        assert child_status(is_free, fork) == 0
    assert is_free()


FORKED_IN_C = """
import ctypes, os, sys
from optimove_conditional_execution import ListenerReceiver, NotFoundError, OptimoveClient, WebhookReceiver
from optimove_conditional_execution.testing import FakeOptimove, listener_request, notification, signed_request

outcomes, events = [], []
client = OptimoveClient("a-key", base_url=sys.argv[1])
receiver = WebhookReceiver(lambda notification, deadline: True, client=client, secrets="s", on_outcome=outcomes.append)
listener = ListenerReceiver(events.append, token="a-token", answer_within=20.0)
payload = FakeOptimove().add_campaign(1).payload
process = ctypes.PyDLL(None).fork()
if process:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
receiver.handle(signed_request(notification(timeout_ms=60_000), secret="s"))
assert listener.handle(listener_request(payload, token="a-token")).status == 200 and len(events) == 1
print(outcomes[-1].decision.verdict, type(outcomes[-1].exception).__name__, flush=True)
os._exit(0)
"""


def test_a_worker_that_is_forked_in_c(optimove_url: str) -> None:
    command = [sys.executable, "-c", FORKED_IN_C, optimove_url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "approve AuthenticationError\n"), ended.stderr
