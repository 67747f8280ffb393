"""Rehearse campaigns over HTTP against a service in any language, from Python, pytest or `optimove-ce`.

`rehearse_triggered` and `rehearse_scheduled` rehearse at once and return the result.
`TriggeredRehearsal` posts the signed notifications of a triggered campaign to a webhook, faults included;
`ScheduledRehearsal` puts a scheduled one on hold and posts its event to a listener. Both need the
extra `cli`, for the server.
"""

from __future__ import annotations

from typing import Any

from .checks import CheckResult, Observation, Reply
from .plan import PlannedNotification
from .result import Finding, Latencies, ScheduledResult, TriggeredResult
from .scheduled import ScheduledRehearsal
from .triggered import TriggeredRehearsal

__all__ = [
    "CheckResult",
    "Finding",
    "Latencies",
    "Observation",
    "PlannedNotification",
    "Reply",
    "ScheduledRehearsal",
    "ScheduledResult",
    "TriggeredRehearsal",
    "TriggeredResult",
    "rehearse_scheduled",
    "rehearse_triggered",
]


def rehearse_triggered(**settings: Any) -> TriggeredResult:
    """Rehearse a triggered campaign, and return what came of it.

        result = rehearse_triggered(url="http://127.0.0.1:8000/webhook", expect={"C300": "denied"})
        assert result.ok, result

    Args:
        settings: As of `TriggeredRehearsal`, such as `url`, `expect`, `payloads` and `undecided`.

    Raises:
        ConfigurationError: The stand-in cannot listen, the service could not be started, or a setting is invalid.
    """
    return TriggeredRehearsal(**settings).run()


def rehearse_scheduled(**settings: Any) -> ScheduledResult:
    """Rehearse a scheduled campaign, and return what came of it.

    Args:
        settings: As of `ScheduledRehearsal`, such as `customers`, or `rows` and `expect`.

    Raises:
        ConfigurationError: The stand-in cannot listen, the service could not be started, or a setting is invalid.
    """
    return ScheduledRehearsal(**settings).run()
