"""A coroutine that was never awaited fails a test, and is named."""

from __future__ import annotations

import asyncio
import warnings

import pytest

from optimove_conditional_execution import AsyncWebhookReceiver, Deadline, WebhookNotification, WebhookReceiver
from optimove_conditional_execution.testing import FakeOptimove, assert_awaited

pytest_plugins = ["pytester"]


async def is_allowed(notification: WebhookNotification) -> bool:
    return False


def gate(notification: WebhookNotification, deadline: Deadline) -> bool:
    if is_allowed(notification):  # type: ignore[truthy-bool]  # noqa: SIM103 - the mistake as it is made
        return True
    return False


async def async_gate(notification: WebhookNotification, deadline: Deadline) -> bool:
    return bool(is_allowed(notification))


def test_a_gate_that_approves_everybody_is_found_in_a_thread() -> None:
    fake = FakeOptimove()
    with fake.client() as client:
        receiver = WebhookReceiver(gate, client=client, secrets=fake.secrets)
        named = r"^Never awaited: is_allowed \(test_never_awaited.py:\d+\)\."
        with pytest.raises(AssertionError, match=named), assert_awaited():
            assert fake.notify(receiver).approved
        # And again, though Python by default tells it once for each place.
        with pytest.raises(AssertionError, match="is_allowed"), assert_awaited():
            fake.notify(receiver)


def test_in_an_event_loop() -> None:
    async def go() -> None:
        fake = FakeOptimove()
        async with fake.async_client() as client:
            receiver = AsyncWebhookReceiver(async_gate, client=client, secrets=fake.secrets)
            assert (await fake.anotify(receiver)).approved

    with pytest.raises(AssertionError, match="is_allowed"), assert_awaited():
        asyncio.run(go())


def test_other_warnings_pass_and_what_is_awaited_is_fine() -> None:
    async def fine() -> None:
        warnings.warn("mind this", UserWarning, stacklevel=2)
        await asyncio.sleep(0)

    with pytest.warns(UserWarning, match="mind this"), assert_awaited():
        asyncio.run(fine())
    with pytest.raises(ZeroDivisionError), assert_awaited():
        raise ZeroDivisionError  # it is not masked


def test_the_fixture_fails_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import warnings
        from optimove_conditional_execution import WebhookReceiver

        async def is_allowed(notification):
            return False

        def gate(notification, deadline):
            return True if is_allowed(notification) else False

        def test_gate(fake_optimove):
            with fake_optimove.client() as client:
                receiver = WebhookReceiver(gate, client=client, secrets=fake_optimove.secrets)
                assert fake_optimove.notify(receiver).approved

        def test_other(fake_optimove):
            warnings.warn("mind this")
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, errors=1, warnings=1)
    result.stdout.fnmatch_lines(["*Never awaited: is_allowed (test_the_fixture_fails_the_test.py:*"])
