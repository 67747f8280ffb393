"""What a check of the doctor says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final, Literal, final

State = Literal["ok", "warning", "problem", "not checked"]

_GRAVITY: Final[tuple[State, ...]] = ("ok", "not checked", "warning", "problem")


@final
@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's.

    Attributes:
        name: What was looked at, one word for people and programs.
        state: How it is.
        finding: What was found. It holds neither key nor secret nor token.
        remedy: What to set, or whom to ask; empty when all is well.
    """

    name: str
    state: State
    finding: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        """Return it as an object of `--json`."""
        return asdict(self)


@final
@dataclass(frozen=True, slots=True)
class Issue:
    """Something that is not as it should be; a check can find several."""

    state: State
    finding: str
    remedy: str


def judged(name: str, fine: str, issues: Iterable[Issue]) -> Check:
    """Return the check of all that was found, the gravest first.

    Args:
        name: The check's name.
        fine: What to say when there is no issue.
        issues: What was found, in any order.
    """
    found = sorted(issues, key=lambda issue: _GRAVITY.index(issue.state), reverse=True)
    if not found:
        return Check(name, "ok", fine)
    # Two issues can have one remedy.
    remedies = dict.fromkeys(issue.remedy for issue in found)
    return Check(name, found[0].state, " ".join(issue.finding for issue in found), " ".join(remedies))


def not_checked(name: str, why: str, remedy: str = "Fix what stands above, and run this again.") -> Check:
    """Return that a check was not made."""
    return Check(name, "not checked", why, remedy)
