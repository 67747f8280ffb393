"""The controls of a review: the kill switch, `observe=True`, and a shadow that is asked about each batch as well.

A file of its own, so that a review without them does not know of any: `Controlled` wraps the runtime of one that has
some.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from ..deadline import Deadline
from ..drivers import arun
from ..errors import ConfigurationError, HeldBackError
from ..flows.controls import OBSERVED
from ..flows.decision_log import DecisionLog
from ..flows.reviewer_answer import Batch, BatchResult, Failure
from ..flows.switch import Stopped, Switch
from ..models.campaign import CampaignCustomer
from ..shadow import AskedBatch, Shadow, as_shadow
from ..switch import SwitchSource, make_switch
from .native_threads import workers
from .runtime import Runtime, Update

_WATCH_SECONDS: Final = 0.1
"""Seconds between two looks at the switch while an update is in flight; it is read once a second at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewControls:
    """The controls of a review object that has some.

    Attributes:
        switch: The kill switch; None without one.
        shadow: The shadow; None without one.
        observe: Whether nothing is sent, and what the reviewer says only recorded.
        log: The decision log, for the shadow.
    """

    switch: Switch | None
    shadow: Shadow[Any] | None
    observe: bool
    log: DecisionLog | None

    @classmethod
    def of(
        cls,
        *,
        switch: SwitchSource | None,
        shadow: Callable[..., Any] | Shadow[Any] | None,
        observe: bool,
        log: DecisionLog | None,
        is_async_review: bool,
    ) -> ReviewControls | None:
        """Return the controls; None when there are none.

        Raises:
            ConfigurationError: One is invalid.
        """
        if not isinstance(observe, bool):
            raise ConfigurationError("observe must be True or False.")
        if switch is None and shadow is None and not observe:
            return None
        return cls(
            switch=None
            if switch is None
            else make_switch(
                switch, pause=asyncio.sleep, in_loop=True, takes_coroutines=is_async_review, through=workers
            ),
            shadow=None
            if shadow is None
            else as_shadow(shadow, "customers", "deadline", owner="CampaignReview", in_loop=is_async_review),
            observe=observe,
            log=log,
        )


class Controlled(Runtime):
    """A runtime whose reviewer is asked, and whose updates are sent, as the controls of the review say."""

    def __init__(self, runtime: Runtime, controls: ReviewControls, campaign_id: int) -> None:
        # Not that of the base class, which would make a second pool of reviewers.
        self._runtime = runtime
        self._controls = controls
        self._campaign = str(campaign_id)
        self._held_back = self._would_approve = 0

    def customers(self, campaign_id: int, **options: Any) -> AsyncGenerator[list[CampaignCustomer], None]:
        """Yield the campaign's customers in lists of any length."""
        return self._runtime.customers(campaign_id, **options)

    async def send(self, update: Update) -> None:
        """Send a status update, unless it is to be held back; the switch is looked at before each request.

        Raises:
            HeldBackError: It was.
        """
        try:
            if self._controls.observe:
                raise HeldBackError(OBSERVED)
            if self._controls.switch is None:
                await self._runtime.send(update)
            else:
                await self._send_as_long(update)
        except HeldBackError as error:
            if error.request_sent is False:
                self._held_back += update.approvals
            raise

    async def _send_as_long(self, update: Update) -> None:
        """Send a status update as long as the switch does not stop it."""
        stopped = await self._look(update.deadline)

        async def watch() -> None:
            nonlocal stopped
            while True:
                await asyncio.sleep(_WATCH_SECONDS)
                stopped = await self._look(update.deadline)

        def check() -> None:
            # A denial may go out while nobody is to be approved.
            if stopped is not None and (update.approvals or stopped.mode != "deny"):
                raise HeldBackError(f"{stopped.held_back} The journal keeps what was decided.")

        check()
        # Watched by the event loop: a thread, or a greenlet of another thread, cannot wait for a look.
        watching = asyncio.ensure_future(watch())
        try:
            await self._runtime.send(replace(update, before_send=check))
        finally:
            watching.cancel()

    def findings(self) -> dict[str, Any]:
        """Return what the report says of the controls, by field."""
        return {
            "held_back": self._held_back,
            "would_approve": self._would_approve if self._controls.observe else None,
        }

    async def ask(
        self,
        batch: Batch,
        deadline: Deadline,
        *,
        at_last: Deadline,
        on_late: Callable[[BatchResult], None] | None = None,
    ) -> BatchResult:
        """Call the reviewer, unless the switch answers in its place; see `Runtime.ask`."""
        ids, controls = batch.asked.ids, self._controls
        stopped = await self._look(deadline)
        if stopped is not None:
            return self._observed(ids, _answer(ids, stopped))
        tell = on_late
        late = None if tell is None else lambda result: tell(self._observed(ids, result))
        customers = batch.customers
        result = await self._runtime.ask(batch, deadline, at_last=at_last, on_late=late)
        if controls.shadow is not None and customers.attempt == 1:
            asked = AskedBatch(about=customers, result=result)
            controls.shadow.start(controls.shadow.function, asked, controls.log, workers)
        return self._observed(ids, result)

    def _observed(self, ids: Sequence[str], result: BatchResult) -> BatchResult:
        """Return an answer as it counts: with `observe` it abstains about everybody whom it decides about."""
        if not self._controls.observe:
            return result
        undecided = result.failed.keys() | result.not_reached | result.unanswered
        observed = {name: result.became(name) for name in ids if name not in undecided}
        self._would_approve += sum(kind == "approved" for kind in observed.values())
        reasons = {
            name: f"observed, {kind}" + (f": {result.reasons[name]}" if name in result.reasons else "")
            for name, kind in observed.items()
        }
        return replace(result, approved=frozenset(), abstained=observed.keys(), reasons=reasons, observed=observed)

    async def _look(self, within: Deadline) -> Stopped | None:
        switch = self._controls.switch
        # An event says nothing of its campaign's tags, so a switch that stops any stops this one too.
        return None if switch is None else await arun(switch.look(campaign=self._campaign, tags=None, within=within))


def _answer(ids: Sequence[str], stopped: Stopped) -> BatchResult:
    """Return the switch's answer about a batch; one that has failed is asked again, as a reviewer is."""
    if stopped.mode == "failed":
        why = "" if stopped.exception is None else f": {type(stopped.exception).__name__}"
        failure = Failure(f"{stopped.reason}{why}.", "SwitchError")
        return BatchResult(frozenset(), failed=dict.fromkeys(ids, failure), switch=stopped.mode)
    reasons = dict.fromkeys(ids, stopped.reason)
    abstained = frozenset(ids) if stopped.mode == "abstain" else frozenset[str]()
    return BatchResult(frozenset(), abstained=abstained, reasons=reasons, switch=stopped.mode)
