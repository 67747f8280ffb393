"""Rehearse campaigns over HTTP against a service in any language, from Python, pytest or `optimove-ce`.

`TriggeredRehearsal` posts the signed notifications of a triggered campaign to a webhook, faults included;
`ScheduledRehearsal` puts a scheduled one on hold and tells a listener. Both need the extra `cli`, for the server.
"""

from __future__ import annotations

from optimove_conditional_execution.rehearsal.checks import CheckResult, Observation
from optimove_conditional_execution.rehearsal.plan import PlannedNotification
from optimove_conditional_execution.rehearsal.reply import Reply
from optimove_conditional_execution.rehearsal.result import Finding, Latencies, ScheduledResult, TriggeredResult
from optimove_conditional_execution.rehearsal.scheduled import ScheduledRehearsal
from optimove_conditional_execution.rehearsal.triggered import TriggeredRehearsal

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
