"""Claim stores on a server: the four steps of `ClaimStore`, for threads and for an event loop.

Shared by the stores over Redis and PostgreSQL, which say how a step is performed. A step that has failed can be
repeated: it is the same owner's.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, final

from ..errors import ConfigurationError
from ..flows.claims import Claim, ClaimState
from ..models.approval import Approval

STEP_SECONDS: Final = 1.0
"""Seconds that a step waits for a free connection, and for the server."""

MAX_CONNECTIONS: Final = 16
"""Connections of a process, or of an event loop."""

ALL_IN_USE: Final = "All connections of this store are in use."


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


def _claim(reply: Any) -> Claim:
    state, mine, approval, milliseconds = reply
    name = state if isinstance(state, str) else state.decode()
    given = Approval.from_json(approval) if mine and approval else None
    return Claim(ClaimState(name), given, bool(mine), milliseconds / 1000)


class RemoteClaims(abc.ABC):
    """The steps for threads."""

    instant = False

    @abc.abstractmethod
    def _perform(self, step: Step) -> Any:
        """Return the server's reply; to `acquire` the state, whether it is the caller's, approval and lease in ms."""

    def acquire(self, question: str, owner: str, lease: float, ttl: float, /) -> Claim:
        """Acquire a claim; see `ClaimStore.acquire`."""
        return _claim(self._perform(Step("acquire", question, owner, lease, ttl)))

    def renew(self, question: str, owner: str, lease: float, ttl: float, /) -> bool:
        """Extend a lease; see `ClaimStore.renew`."""
        return bool(self._perform(Step("renew", question, owner, lease, ttl)))

    def update(self, question: str, owner: str, claim: Claim, lease: float, ttl: float, /) -> bool:
        """Write a claim if it is still the owner's; see `ClaimStore.update`."""
        return bool(self._perform(_update(question, owner, claim, lease, ttl)))

    def release(self, question: str, owner: str, /) -> None:
        """Delete an open claim of the owner; see `ClaimStore.release`."""
        self._perform(Step("release", question, owner))


class AsyncRemoteClaims(abc.ABC):
    """The steps for an event loop."""

    instant = False

    @abc.abstractmethod
    async def _perform(self, step: Step) -> Any:
        """See `RemoteClaims`."""

    async def acquire(self, question: str, owner: str, lease: float, ttl: float, /) -> Claim:
        """Acquire a claim; see `ClaimStore.acquire`."""
        return _claim(await self._perform(Step("acquire", question, owner, lease, ttl)))

    async def renew(self, question: str, owner: str, lease: float, ttl: float, /) -> bool:
        """Extend a lease; see `ClaimStore.renew`."""
        return bool(await self._perform(Step("renew", question, owner, lease, ttl)))

    async def update(self, question: str, owner: str, claim: Claim, lease: float, ttl: float, /) -> bool:
        """Write a claim if it is still the owner's; see `ClaimStore.update`."""
        return bool(await self._perform(_update(question, owner, claim, lease, ttl)))

    async def release(self, question: str, owner: str, /) -> None:
        """Delete an open claim of the owner; see `ClaimStore.release`."""
        await self._perform(Step("release", question, owner))


def async_only(what: str) -> ConfigurationError:
    """Return the error of a store that was given an asyncio client, and is used in threads."""
    return ConfigurationError(f"{what} is for AsyncWebhookReceiver only: give the store the URL, or the sync one.")


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
