"""Which paths of the calls for triggered campaigns exist. They are guesses, so they are looked for, by GET alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from optimove_conditional_execution.cli.doctor.check import Check, Issue, judged, not_checked
from optimove_conditional_execution.cli.doctor.probe import Answer, Silence
from optimove_conditional_execution.models.webhook import Webhook
from optimove_conditional_execution.operations import Endpoint, Endpoints

Look = Callable[[str], Answer | Silence]
"""Sends a GET to a path."""

NAME: Final = "endpoints"

_ROUTE: Final = frozenset({200, 400, 401, 405})
_TRIGGERED: Final = "/conditional-execution/v2/triggered"
_NOWHERE: Final = "optimove-ce-doctor"
_WRITING: Final = ("PUT", "POST", "PATCH")
_ASK: Final = "Ask your Customer Success Manager for the paths of the v2 calls, and pass them as Endpoints(...)."


def endpoints_check(look: Look, endpoints: Endpoints, webhooks: Sequence[Webhook]) -> Check:
    """Look for every path that is a guess, and say which `Endpoints` to pass.

    A GET changes nothing, wherever it arrives. 404 means that there is no route; 401, 405, 400 and 200 that there is
    one.

    Args:
        look: Sends a GET with the key.
        endpoints: The service's.
        webhooks: Those that are registered: the path of a single one shows itself only with an id that exists.
    """
    nowhere = look(f"{_TRIGGERED}/{_NOWHERE}")
    if not _is_missing(nowhere):
        said = f"answers {nowhere.status}" if isinstance(nowhere, Answer) else "gives no answer"
        return not_checked(NAME, f"The server {said} to a path that cannot exist, so it does not tell which do.", _ASK)
    # What stands below the webhooks can be taken for the id of one.
    is_below_open = _is_missing(look(f"{_TRIGGERED}/webhooks/{_NOWHERE}"))
    an_id = quote(webhooks[0].id, safe="") if webhooks else _NOWHERE
    found: dict[str, Endpoint] = {}
    missing: list[str] = []
    for name, paths in _candidates(endpoints, is_below_open=is_below_open, has_webhook=bool(webhooks)):
        mine: Endpoint = getattr(endpoints, name)
        for path in dict.fromkeys((mine.path, *paths)):
            answer = look(path.replace("{webhook_id}", an_id))
            if isinstance(answer, Answer) and answer.status in _ROUTE:
                found[name] = Endpoint(_method(mine.method, answer), path)
                break
        else:
            missing.append(name)
    note = "" if webhooks else " Those of a single webhook show only when one is registered."
    fine = f"The paths of {_listed(found)} exist.{note}"
    return judged(NAME, fine, _issues(endpoints, found, missing))


def _candidates(
    endpoints: Endpoints, *, is_below_open: bool, has_webhook: bool
) -> Iterator[tuple[str, tuple[str, ...]]]:
    listing = endpoints.get_webhooks.path.rstrip("/")
    yield "get_webhooks", (listing, f"{listing}/")
    if has_webhook:
        single = (f"{listing}/{{webhook_id}}", f"{listing}/{{webhook_id}}/")
        yield "get_webhook_by_id", single
        yield "delete_webhook", single
    for name, noun in (("update_webhook_settings", "settings"), ("send_webhook_approval", "approval")):
        below = (f"{_TRIGGERED}/webhooks/{noun}", f"{_TRIGGERED}/webhooks/{noun}/") if is_below_open else ()
        yield name, (f"{_TRIGGERED}/{noun}", f"{_TRIGGERED}/{noun}/", *below)


def _issues(endpoints: Endpoints, found: dict[str, Endpoint], missing: Sequence[str]) -> Iterator[Issue]:
    other = {name: endpoint for name, endpoint in found.items() if endpoint != getattr(endpoints, name)}
    if other:
        text = ", ".join(f'{name}=Endpoint("{each.method}", "{each.path}")' for name, each in other.items())
        yield Issue(
            "problem",
            f"Not where your Endpoints look, but elsewhere: {_listed(other)}.",
            f"Pass endpoints=Endpoints({text}) to your clients.",
        )
    if missing:
        yield Issue(
            "warning",
            f"No path was found for {_listed(missing)}. A server may answer 404 to a GET where it takes another "
            "method, so this alone need not stop anything.",
            _ASK,
        )


def _is_missing(answer: Answer | Silence) -> bool:
    return isinstance(answer, Answer) and answer.status == HTTPStatus.NOT_FOUND


def _method(mine: str, answer: Answer) -> str:
    """Return the service's method, unless the server names the ones that it takes, and that is none of them."""
    allowed = [each.strip().upper() for each in (answer.header("allow") or "").split(",")]
    if mine in allowed or mine not in _WRITING:
        return mine
    return next((each for each in _WRITING if each in allowed), mine)


def _listed(names: Sequence[str] | dict[str, Endpoint]) -> str:
    return ", ".join(names) or "no call"
