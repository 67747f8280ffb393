"""Results of checks. A separate module, since all checks create them and the command shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Final, Literal, NamedTuple, ParamSpec

P = ParamSpec("P")

State = Literal["ok", "warning", "problem", "not checked"]

_GRAVITY: Final[tuple[State, ...]] = ("problem", "warning", "not checked", "ok")
_ABOVE: Final = "Fix the problems above, and run this again."


class Finding(NamedTuple):
    """What a check has found; it can find several things.

    Attributes:
        state: Its severity.
        text: What was found. It holds neither key nor secret nor token.
        remedy: What to set or to ask for; empty for ok.
    """

    state: State
    text: str
    remedy: str = ""


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


def ok(text: str) -> Finding:
    """Return that all is well, which counts if nothing else is found."""
    return Finding("ok", text)


def problem(text: str, remedy: str) -> Finding:
    """Return a finding that prevents operation."""
    return Finding("problem", text, remedy)


def problem_of(error: Exception) -> Finding:
    """Return an error whose message has its remedy after a colon as a finding."""
    what, _, remedy = str(error).partition(": ")
    return problem(f"{what.rstrip('.')}.", f"{remedy[:1].upper()}{remedy[1:]}")


def warning(text: str, remedy: str) -> Finding:
    """Return a finding that may prevent operation."""
    return Finding("warning", text, remedy)


def not_checked(why: str, remedy: str = _ABOVE) -> Finding:
    """Return that a check was not made."""
    return Finding("not checked", why, remedy)


def check_of(name: str, *findings: Finding) -> Check:
    """Return the check with its findings, the most severe first.

    Args:
        name: The check's name.
        findings: In any order, one at least.
    """
    found = sorted(findings, key=lambda finding: _GRAVITY.index(finding.state))
    shown = [finding for finding in found if finding.state != "ok"] or found
    # Two findings can have one remedy.
    remedies = dict.fromkeys(finding.remedy for finding in shown)
    return Check(name, found[0].state, " ".join(finding.text for finding in shown), " ".join(remedies))


def checking(name: str) -> Callable[[Callable[P, Iterable[Finding]]], Callable[P, Check]]:
    """Make a check of a function that yields findings."""

    def decorate(function: Callable[P, Iterable[Finding]]) -> Callable[P, Check]:
        @wraps(function)
        def check(*args: P.args, **kwargs: P.kwargs) -> Check:
            return check_of(name, *function(*args, **kwargs))

        return check

    return decorate


def skipped(names: Iterable[str], why: str) -> Iterator[Check]:
    """Return that checks were not made."""
    return (check_of(name, not_checked(why)) for name in names)
