"""The kill switch: what it can say, the text that says it, and how it is looked at for each decision.

A file of its own, since a flow does no IO; `switch` reads the file, or calls the function.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast, final

from ..deadline import Clock, Deadline
from ..errors import ConfigurationError
from ..handlers import kind_of
from ..models.notification import Occurrence, WebhookNotification
from .effects import Ask, Flow, Late
from .subject import text_of

SwitchMode = Literal["ask", "deny", "abstain"]

LOOK_SECONDS: Final = 1.0
"""Seconds for which what the switch says is believed."""

_ANSWER_SECONDS: Final = 0.5
"""Seconds that a look may take; half of the handler's time at most."""

_POLL_SECONDS: Final = 0.01
"""Seconds between two looks at whether the look of another delivery is over."""

_STRICTEST_FIRST: Final[tuple[SwitchMode, ...]] = ("deny", "abstain", "ask")

_FORM: Final = "it must be MODE, MODE campaign ID or MODE tag TAG, with ask, deny or abstain as MODE."

_LONGEST: Final = 300
"""Characters of a switch's state in a log line."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchState:
    """What a switch says. The strictest that applies counts: `deny` before `abstain` before `ask`.

    Attributes:
        everything: What it says about everything.
        campaigns: What it says about single campaigns: a triggered one's series id, a scheduled one's `CampaignID`, as
            text.
        tags: What it says about the campaigns with a tag, whatever its case, its blanks, and how Unicode writes it.
    """

    everything: SwitchMode = "ask"
    campaigns: Mapping[str, SwitchMode] = field(default_factory=dict[str, SwitchMode])
    tags: Mapping[str, SwitchMode] = field(default_factory=dict[str, SwitchMode])

    def __post_init__(self) -> None:
        """Reject a mode that does not exist, and a name that is no text: they must not count as `ask`.

        Raises:
            ConfigurationError: There is one.
        """
        names: Iterable[object] = (*self.campaigns, *self.tags)
        if not all(isinstance(name, str) for name in names):
            raise ConfigurationError('A switch names campaigns and tags as text: campaigns={"29": "deny"}.')
        given: Iterable[object] = (self.everything, *self.campaigns.values(), *self.tags.values())
        if any(mode not in _STRICTEST_FIRST for mode in given):
            raise ConfigurationError('A switch says "ask", "deny" or "abstain".')

    @classmethod
    def parse(cls, text: str) -> SwitchState:
        """Parse the text of a switch's file.

        Each line says one thing: `MODE` (or `MODE all`), `MODE campaign ID` or `MODE tag TAG`, with `ask`, `deny` or
        `abstain` as MODE.
        Blank lines, and those that begin with `#`, say nothing. A text in which no line says anything is invalid: a
        file that is being written looks like that.

        Args:
            text: The text.

        Raises:
            ConfigurationError: It is invalid; the message has the number of the line, and does not quote it.
        """
        everything: list[SwitchMode] = []
        campaigns: dict[str, SwitchMode] = {}
        tags: dict[str, SwitchMode] = {}
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split(maxsplit=2)
            if not words or words[0].startswith("#"):
                continue
            mode = cast("SwitchMode", words[0].lower())
            target = words[1].lower() if len(words) > 1 else "all"
            named = words[2].strip() if len(words) > 2 else ""
            if mode not in _STRICTEST_FIRST or (target == "all") == bool(named) or target not in ("all", *_TARGETS):
                raise ConfigurationError(f"Line {number} of the switch is invalid: {_FORM}")
            if target == "all":
                everything.append(mode)
            else:
                there = campaigns if target == "campaign" else tags
                there[named] = _strictest((mode, there.get(named, mode)))
        if not (everything or campaigns or tags):
            raise ConfigurationError('The switch says nothing: a line such as "ask" is missing.')
        return cls(everything=_strictest(everything), campaigns=campaigns, tags=tags)

    def lines(self) -> list[str]:
        """Return the lines that `parse` reads."""
        return [
            self.everything,
            *(f"{mode} campaign {campaign}" for campaign, mode in self.campaigns.items()),
            *(f"{mode} tag {tag}" for tag, mode in self.tags.items()),
        ]

    def applying(self, campaign: str | None, tags: Collection[str] | None) -> tuple[SwitchMode, str]:
        """Return what it says about a campaign, and the line that says it.

        What is not known is taken for what is stopped.

        Args:
            campaign: The campaign; None when it is not known.
            tags: Its tags; None when they are not known.
        """
        wanted = None if tags is None else {_folded(tag) for tag in tags}
        found: list[tuple[SwitchMode, str]] = [(self.everything, self.everything)]
        for named, mode in self.campaigns.items():
            if campaign is None or _folded(named) == _folded(campaign):
                found.append((mode, f"{mode} campaign {named}{_UNKNOWN if campaign is None else ''}"))
        for named, mode in self.tags.items():
            if wanted is None or _folded(named) in wanted:
                found.append((mode, f"{mode} tag {named}{_UNKNOWN if wanted is None else ''}"))
        return min(found, key=lambda each: _STRICTEST_FIRST.index(each[0]))


_TARGETS: Final = ("campaign", "tag")
_UNKNOWN: Final = ", and this is not known here"


def _folded(name: str) -> str:
    """Return a name as it is compared: an operator types what Optimove shows, and must not miss by an invisible bit."""
    if name.isascii():  # the rest takes ten times as long
        return " ".join(name.lower().split())
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())


def _strictest(modes: Collection[SwitchMode]) -> SwitchMode:
    return min(modes, key=_STRICTEST_FIRST.index) if modes else "ask"


def tags_of(notification: WebhookNotification | None) -> Collection[str] | None:
    """Return the tags of a notification's campaign; None when they are missing, or one of them cannot be read."""
    # A field of an undocumented type is kept as received, so no type is assumed here.
    occurrence: object = None if notification is None else notification.occurrence
    if not isinstance(occurrence, Occurrence) or "tags" not in occurrence.model_fields_set:
        return None
    tags: object = occurrence.tags
    if not isinstance(tags, tuple | list):
        return None
    texts: list[str] = []
    for tag in cast("Iterable[object]", tags):
        if (text := text_of(tag)) is None:
            return None
        texts.append(text)
    return texts


@final
@dataclass(frozen=True, slots=True)
class Stopped:
    """Why a decision is not the handler's.

    Attributes:
        mode: What the switch says; `"failed"` when it cannot be looked at.
        reason: In words that hold no personal data.
        exception: What was raised, if something was.
    """

    mode: Literal["deny", "abstain", "failed"]
    reason: str
    exception: Exception | None = None

    @property
    def held_back(self) -> str:
        """What is said of an answer that was decided before, and is not sent now."""
        return f"Held back: {self.reason.rstrip('.')}{_why(self.exception)}."


@final
@dataclass(eq=False, slots=True, kw_only=True)
class Switch:
    """A switch, looked at for each decision, and read once a second at most.

    Attributes:
        read: Returns what the switch says, within a number of seconds; in an event loop it may return an awaitable.
            Raises `Late` when it takes longer.
        pause: Sleeps for a number of seconds.
        clock: Monotonic, in seconds.
        on_change: Is told, in words, what it says from now on.
    """

    read: Callable[[float], Any]
    pause: Callable[[float], Any]
    clock: Clock
    on_change: Callable[[str], None]
    _state: SwitchState | None = field(default_factory=SwitchState)
    _failed: Stopped | None = None
    _read_at: float = float("-inf")
    _busy_until: float = float("-inf")
    _told: str = "ask"

    def look(self, *, campaign: str | None, tags: Collection[str] | None, within: Deadline) -> Flow[Stopped | None]:
        """Look at the switch; the result is None when it says to ask as usual.

        One delivery reads it, others wait for that: one that hangs occupies one thread.

        Args:
            campaign: The campaign.
            tags: Its tags.
            within: The handler's deadline.
        """
        seconds = min(_ANSWER_SECONDS, within.remaining() / 2)
        until = self.clock() + seconds
        while (now := self.clock()) - self._read_at >= LOOK_SECONDS:
            if now >= self._busy_until:
                hurried = yield from self._look(now, seconds)
                if hurried is not None:
                    return hurried
                break
            if now >= until:
                return Stopped("failed", "The switch did not answer in time")
            yield Ask(self.pause, (_POLL_SECONDS,))
        if self._state is None:
            return self._failed
        mode, line = self._state.applying(campaign, tags)
        return None if mode == "ask" else Stopped(mode, f"The switch says: {line}.")

    def _look(self, now: float, seconds: float) -> Flow[Stopped | None]:
        """Read it; the result is the failure of a delivery whose time was too short, which says nothing to others."""
        self._busy_until = now + _ANSWER_SECONDS
        failed: Stopped | None = None
        state: SwitchState | None = None
        try:
            state = state_of((yield Ask(self.read, (seconds,))))
        except Late:
            failed = Stopped("failed", "The switch did not answer in time")
            if seconds < _ANSWER_SECONDS:
                self._busy_until = float("-inf")
                return failed
        except Exception as error:  # noqa: BLE001 - whatever it raises, nobody is approved
            failed = Stopped("failed", "The switch failed", error)
        except BaseException:  # the delivery was cancelled: others need not wait for it
            self._busy_until = float("-inf")
            raise
        if now < self._read_at:  # another look, which began later, was quicker
            return None
        self._state, self._failed, self._read_at, self._busy_until = state, failed, now, float("-inf")
        if failed is None:
            told = "; ".join(state.lines()) if state is not None else ""
        else:
            told = f"nothing, so nobody is approved: {failed.reason}{_why(failed.exception)}"
        if told != self._told:
            self._told = told
            self.on_change(told[:_LONGEST])
        return None


def state_of(said: object) -> SwitchState:
    """Return what a switch said: a `SwitchState`, or the text of one.

    Raises:
        ConfigurationError: It is neither, or its mappings were changed to what is none.
    """
    if isinstance(said, SwitchState):
        return replace(said, campaigns=dict(said.campaigns), tags=dict(said.tags))
    if isinstance(said, str):
        return SwitchState.parse(said)
    raise ConfigurationError(f'A switch must return "ask", "deny" or "abstain", or a SwitchState, not {kind_of(said)}.')


def changed(state: SwitchState, mode: SwitchMode, campaigns: Iterable[str], tags: Iterable[str]) -> SwitchState:
    """Return a state in which a mode is set, for everything, or for the campaigns and tags alone if there are some."""
    campaigns, tags = list(campaigns), list(tags)
    if not campaigns and not tags:
        return replace(state, everything=mode)
    return replace(state, campaigns=_set(state.campaigns, mode, campaigns), tags=_set(state.tags, mode, tags))


def _set(there: Mapping[str, SwitchMode], mode: SwitchMode, named: list[str]) -> dict[str, SwitchMode]:
    meant = {_folded(name) for name in named}
    kept: dict[str, SwitchMode] = {
        name: said for name, said in there.items() if said != "ask" and _folded(name) not in meant
    }
    if mode != "ask":
        kept.update((name, mode) for name in named)
    return kept


def _why(error: Exception | None) -> str:
    if error is None:
        return ""
    return f": {type(error).__name__}" + (f": {error}" if isinstance(error, ConfigurationError) else "")
