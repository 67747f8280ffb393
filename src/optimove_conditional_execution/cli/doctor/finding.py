"""Results of checks. A separate module, since all checks create them and the command shows them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, final

State = Literal["ok", "warning", "problem", "not checked"]

_GRAVITY: Final[tuple[State, ...]] = ("problem", "warning", "not checked", "ok")


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """A problem or warning; a check can have several.

    Attributes:
        state: Its severity.
        text: What was found.
        remedy: What to set or to ask for.
    """

    state: State
    text: str
    remedy: str


@final
@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check, as `--json` prints it.

    Attributes:
        name: The check's name, one word.
        state: The result.
        finding: What was found. It holds neither key nor secret nor token.
        remedy: What to set or to ask for; empty for ok.
    """

    name: str
    state: State
    finding: str
    remedy: str = ""


def problem(text: str, remedy: str) -> Finding:
    """Return a finding that prevents operation."""
    return Finding("problem", text, remedy)


def warning(text: str, remedy: str) -> Finding:
    """Return a finding that may prevent operation."""
    return Finding("warning", text, remedy)


def check_of(name: str, fine: str, findings: Iterable[Finding]) -> Check:
    """Return the check with its findings, the most severe first.

    Args:
        name: The check's name.
        fine: The text when there are no findings.
        findings: In any order.
    """
    found = sorted(findings, key=lambda finding: _GRAVITY.index(finding.state))
    if not found:
        return Check(name, "ok", fine)
    # Two findings can have one remedy.
    remedies = dict.fromkeys(finding.remedy for finding in found)
    return Check(name, found[0].state, " ".join(finding.text for finding in found), " ".join(remedies))


def not_checked(name: str, why: str, remedy: str = "Fix the problems above, and run this again.") -> Check:
    """Return that a check was not made."""
    return Check(name, "not checked", why, remedy)
