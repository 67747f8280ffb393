"""What a check found: a file of its own, since every check makes these, and the command shows them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, final

State = Literal["ok", "warning", "problem", "not checked"]

_GRAVITY: Final[tuple[State, ...]] = ("problem", "warning", "not checked", "ok")


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be; a check can have several.

    Attributes:
        state: How grave it is.
        text: What was found.
        remedy: What to set, or whom to ask.
    """

    state: State
    text: str
    remedy: str


@final
@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check, as `--json` prints it.

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


def problem(text: str, remedy: str) -> Finding:
    """Return something that does not work."""
    return Finding("problem", text, remedy)


def warning(text: str, remedy: str) -> Finding:
    """Return something that may not work, or not well."""
    return Finding("warning", text, remedy)


def check_of(name: str, fine: str, findings: Iterable[Finding]) -> Check:
    """Return the check of all that was found, the gravest first.

    Args:
        name: The check's name.
        fine: What to say when nothing was found.
        findings: What was found, in any order.
    """
    found = sorted(findings, key=lambda finding: _GRAVITY.index(finding.state))
    if not found:
        return Check(name, "ok", fine)
    # Two findings can have one remedy.
    remedies = dict.fromkeys(finding.remedy for finding in found)
    return Check(name, found[0].state, " ".join(finding.text for finding in found), " ".join(remedies))


def not_checked(name: str, why: str, remedy: str = "Fix what stands above, and run this again.") -> Check:
    """Return that a check was not made."""
    return Check(name, "not checked", why, remedy)
