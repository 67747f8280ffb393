"""Claim stores on a server: the four steps of `ClaimStore`, for threads and for an event loop.

Shared by the stores over Redis and PostgreSQL, which say how a step is performed. A step that has failed can be
repeated: it is the same owner's.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, final

from ..errors import ConfigurationError, StoreError
from ..flows.claims import Claim, ClaimState
from ..models.approval import Approval

STEP_SECONDS: Final = 1.0
"""Seconds that a step waits for a free connection, and for the server."""

MAX_CONNECTIONS: Final = 16
"""Connections of a process, or of an event loop."""

Reply = tuple[str, bool, str | bytes | None, float]
"""Of `acquire`: state, whether it is the caller's, approval, seconds left of the lease."""


@final
@dataclass(frozen=True, slots=True)
class Step:
    """One step, as a server performs it; see `ClaimStore`."""

    name: Literal["acquire", "renew", "update", "release"]
    question: str = field(repr=False)
    owner: str = field(repr=False)
    lease: float = 0.0
    ttl: float = 0.0
    state: str = ClaimState.OPEN.value
    approval: bytes | None = field(default=None, repr=False)


def _update(question: str, owner: str, claim: Claim, lease: float, ttl: float) -> Step:
    approval = None if claim.approval is None else claim.approval.model_dump_json(by_alias=True).encode()
    return Step("update", question, owner, lease, ttl, claim.state.value, approval)


def _claim(reply: Reply) -> Claim:
    state, mine, approval, lease = reply
    return Claim(ClaimState(state), Approval.from_json(approval) if mine and approval else None, mine, lease)


class RemoteClaims(abc.ABC):
    """The steps for threads."""

    instant = False

    @abc.abstractmethod
    def _acquire(self, step: Step) -> Reply: ...

    @abc.abstractmethod
    def _change(self, step: Step) -> bool: ...

    def acquire(self, question: str, owner: str, lease: float, ttl: float, /) -> Claim:
        """Acquire a claim; see `ClaimStore.acquire`."""
        return _claim(self._acquire(Step("acquire", question, owner, lease, ttl)))

    def renew(self, question: str, owner: str, lease: float, ttl: float, /) -> bool:
        """Extend a lease; see `ClaimStore.renew`."""
        return self._change(Step("renew", question, owner, lease, ttl))

    def update(self, question: str, owner: str, claim: Claim, lease: float, ttl: float, /) -> bool:
        """Write a claim if it is still the owner's; see `ClaimStore.update`."""
        return self._change(_update(question, owner, claim, lease, ttl))

    def release(self, question: str, owner: str, /) -> None:
        """Delete an open claim of the owner; see `ClaimStore.release`."""
        self._change(Step("release", question, owner))


class AsyncRemoteClaims(abc.ABC):
    """The steps for an event loop."""

    instant = False

    @abc.abstractmethod
    async def _acquire(self, step: Step) -> Reply: ...

    @abc.abstractmethod
    async def _change(self, step: Step) -> bool: ...

    async def acquire(self, question: str, owner: str, lease: float, ttl: float, /) -> Claim:
        """Acquire a claim; see `ClaimStore.acquire`."""
        return _claim(await self._acquire(Step("acquire", question, owner, lease, ttl)))

    async def renew(self, question: str, owner: str, lease: float, ttl: float, /) -> bool:
        """Extend a lease; see `ClaimStore.renew`."""
        return await self._change(Step("renew", question, owner, lease, ttl))

    async def update(self, question: str, owner: str, claim: Claim, lease: float, ttl: float, /) -> bool:
        """Write a claim if it is still the owner's; see `ClaimStore.update`."""
        return await self._change(_update(question, owner, claim, lease, ttl))

    async def release(self, question: str, owner: str, /) -> None:
        """Delete an open claim of the owner; see `ClaimStore.release`."""
        await self._change(Step("release", question, owner))


def async_only(what: str) -> ConfigurationError:
    """Return the error of a store that was given an asyncio client, and is used in threads."""
    return ConfigurationError(f"{what} is for AsyncWebhookReceiver only: give the store the URL, or the sync one.")


def busy() -> StoreError:
    """Return the error of a step that has found no free connection."""
    return StoreError("All connections of the claim store are busy.")


@final
@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What `optimove-ce doctor` wants to know of a server.

    Attributes:
        clock: The server's, in seconds since 1970.
        settings: By their names; without those that it does not tell.
    """

    clock: float
    settings: Mapping[str, str]
