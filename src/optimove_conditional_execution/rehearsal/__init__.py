"""Rehearse campaigns over HTTP against a service in any language, from Python, pytest or `optimove-ce`.

`TriggeredRehearsal` posts the signed notifications of a triggered campaign to a webhook, faults included;
`ScheduledRehearsal` puts a scheduled one on hold and posts its event to a listener. Both need the
extra `cli`, for the server.
"""

from __future__ import annotations

from .checks import CheckResult, Observation
from .plan import PlannedNotification
from .reply import Reply
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
]
