"""Spans and metrics through OpenTelemetry (extra `otel`). The only module that knows it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Final, final

from opentelemetry import metrics, trace

from ._version import __version__
from .flows.outcome import Outcome
from .transport.instrumentation import CallRecord

_NAME: Final = "optimove_conditional_execution"
_NANOSECONDS: Final = 1_000_000_000


@final
class Telemetry:
    """Spans and metrics of calls and notifications, without ids, bodies and secrets.

    Pass `on_call` to a client and `on_outcome` to a receiver. Each call to Optimove becomes a client span
    `optimove.<operation>` below the span that is current. It is current itself while the call is made, so that spans of
    an instrumented HTTP library, one a try, stand below it. Each notification becomes a span `optimove.notification`.
    Handlers that run in threads see the current span of the request, since they run in a copy of its context.

    Metrics: `optimove.call.duration` and `optimove.notification.duration`, histograms in seconds.

    Attributes:
        on_call: Records calls; pass it to a client as `on_call`.
    """

    def __init__(self, *, tracer_provider: object | None = None, meter_provider: object | None = None) -> None:
        """Create the instruments, from OpenTelemetry's global providers by default.

        Args:
            tracer_provider: An `opentelemetry.trace.TracerProvider`.
            meter_provider: An `opentelemetry.metrics.MeterProvider`.
        """
        tracers: Any = tracer_provider or trace.get_tracer_provider()
        meters: Any = meter_provider or metrics.get_meter_provider()
        self._tracer: trace.Tracer = tracers.get_tracer(_NAME, __version__)
        meter: metrics.Meter = meters.get_meter(_NAME, __version__)
        calls = meter.create_histogram("optimove.call.duration", "s", "Calls to Optimove, all tries together.")
        self.on_call: Final = _Calls(self._tracer, calls)
        self._notifications = meter.create_histogram(
            "optimove.notification.duration", "s", "Notifications, from their arrival to the answer."
        )

    def on_outcome(self, outcome: Outcome) -> None:
        """Record the outcome of a notification; pass it to a receiver as `on_outcome`.

        Args:
            outcome: The record of its delivery.
        """
        named = {"optimove.outcome": outcome.kind}
        self._notifications.record(outcome.total_seconds, named)
        end = time.time_ns()
        start = end - round(outcome.total_seconds * _NANOSECONDS)
        self._tracer.start_span("optimove.notification", start_time=start, attributes=named).end(end)


@final
class _Calls:
    """Creates a span for each call: current during the call, ended with its record."""

    def __init__(self, tracer: trace.Tracer, histogram: metrics.Histogram) -> None:
        self._tracer = tracer
        self._histogram = histogram
        self._span: ContextVar[trace.Span | None] = ContextVar("optimove_conditional_execution_span", default=None)

    @contextlib.contextmanager
    def around(self, operation: str) -> Iterator[None]:
        """Make the span of a call the current span."""
        span = self._tracer.start_span(f"optimove.{operation}", kind=trace.SpanKind.CLIENT)
        token = self._span.set(span)
        try:
            with trace.use_span(span, end_on_exit=True):
                yield
        finally:
            self._span.reset(token)

    def __call__(self, record: CallRecord) -> None:
        """Record a call.

        Args:
            record: Its result.
        """
        named: dict[str, str | int] = {"optimove.operation": record.operation}
        if record.status is not None:
            named["http.response.status_code"] = record.status
        if record.error is not None:
            named["error.type"] = record.error
        self._histogram.record(record.seconds, named)
        more: dict[str, str | int | float] = {
            **named,
            "optimove.attempts": record.attempts,
            "optimove.seconds_left": record.seconds_left,
            "http.request.body.size": record.bytes_sent,
            "http.response.body.size": record.bytes_received,
        }
        span = self._span.get()
        if span is not None:
            self._complete(span, more, record.error)
            return
        # The record was passed on by another `on_call`, so `around` was not entered.
        end = round(record.ended_at * _NANOSECONDS)
        start = end - round(record.seconds * _NANOSECONDS)
        span = self._tracer.start_span(f"optimove.{record.operation}", kind=trace.SpanKind.CLIENT, start_time=start)
        self._complete(span, more, record.error)
        span.end(end)

    def _complete(self, span: trace.Span, attributes: dict[str, str | int | float], error: str | None) -> None:
        span.set_attributes(attributes)
        if error is not None:
            span.set_status(trace.Status(trace.StatusCode.ERROR, error))
