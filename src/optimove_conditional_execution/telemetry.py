"""Spans and metrics through OpenTelemetry (extra `otel`). The only module that knows it."""

from __future__ import annotations

import time
from typing import Any, Final, final

from opentelemetry import metrics, trace

from optimove_conditional_execution._version import __version__
from optimove_conditional_execution.flows.outcome import Outcome
from optimove_conditional_execution.transport.calls import CallRecord

_NAME: Final = "optimove_conditional_execution"
_NANOSECONDS: Final = 1_000_000_000


@final
class Telemetry:
    """Turns records of calls and of notifications into spans and metrics, without ids, bodies and secrets.

    Pass `on_call` to a client and `on_outcome` to a receiver. Each call to Optimove becomes a client span
    `optimove.<operation>` below the span that is current; each notification a span `optimove.notification`. Handlers
    that run in threads see the current span of the request, since they run in a copy of its context.

    Metrics: `optimove.call.duration` and `optimove.notification.duration`, histograms in seconds.
    """

    def __init__(self, *, tracer_provider: object | None = None, meter_provider: object | None = None) -> None:
        """Take providers of OpenTelemetry's; without them the global ones.

        Args:
            tracer_provider: An `opentelemetry.trace.TracerProvider`.
            meter_provider: An `opentelemetry.metrics.MeterProvider`.
        """
        tracers: Any = tracer_provider or trace.get_tracer_provider()
        meters: Any = meter_provider or metrics.get_meter_provider()
        self._tracer: trace.Tracer = tracers.get_tracer(_NAME, __version__)
        meter: metrics.Meter = meters.get_meter(_NAME, __version__)
        self._calls = meter.create_histogram("optimove.call.duration", "s", "Calls to Optimove, all tries together.")
        self._notifications = meter.create_histogram(
            "optimove.notification.duration", "s", "Notifications, from their arrival to the answer."
        )

    def on_call(self, record: CallRecord) -> None:
        """Take a call; made to be a client's `on_call`.

        Args:
            record: What became of it.
        """
        named: dict[str, str | int] = {"optimove.operation": record.operation}
        if record.status is not None:
            named["http.response.status_code"] = record.status
        if record.error is not None:
            named["error.type"] = record.error
        self._calls.record(record.seconds, named)
        more: dict[str, str | int | float] = {
            **named,
            "optimove.attempts": record.attempts,
            "optimove.seconds_left": record.seconds_left,
            "http.request.body.size": record.bytes_sent,
            "http.response.body.size": record.bytes_received,
        }
        end = round(record.ended_at * _NANOSECONDS)
        self._span(f"optimove.{record.operation}", trace.SpanKind.CLIENT, record.seconds, end, more, record.error)

    def on_outcome(self, outcome: Outcome) -> None:
        """Take what became of a notification; made to be a receiver's `on_outcome`.

        Args:
            outcome: The record of its delivery.
        """
        named = {"optimove.outcome": outcome.kind}
        self._notifications.record(outcome.total_seconds, named)
        self._span("optimove.notification", trace.SpanKind.INTERNAL, outcome.total_seconds, None, named, None)

    def _span(
        self,
        name: str,
        kind: trace.SpanKind,
        seconds: float,
        end: int | None,
        attributes: Any,
        error: str | None,
    ) -> None:
        end = time.time_ns() if end is None else end
        start = end - round(seconds * _NANOSECONDS)
        span = self._tracer.start_span(name, kind=kind, start_time=start, attributes=attributes)
        if error is not None:
            span.set_status(trace.Status(trace.StatusCode.ERROR, error))
        span.end(end)
