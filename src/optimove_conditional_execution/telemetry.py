"""Spans and metrics through OpenTelemetry (extra `otel`). The only module that knows it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Final, final

from opentelemetry import metrics, trace

from ._version import __version__
from .flows.listener import EventOutcome
from .flows.outcome import Outcome
from .flows.report import Progress, ReviewReport
from .fork import ForkLock
from .models.events import CampaignReadyEvent
from .shadow import ShadowAnswer
from .transport.instrumentation import CallRecord

_NAME: Final = "optimove_conditional_execution"
_NANOSECONDS: Final = 1_000_000_000

_SILENT_SECONDS: Final = 90.0
"""Seconds without progress after which a review counts as ended: more than the longest pause between two passes."""


@final
class Telemetry:
    """Spans and metrics of calls, notifications, events and reviews, without ids of customers, bodies and secrets.

    Pass `on_call` to a client, `on_outcome` to receivers of both kinds, `progress` and `on_report` to a review. Each
    call to Optimove becomes a client span `optimove.<operation>` below the span that is current. It is current itself
    while the call is made, so that spans of an instrumented HTTP library, one a try, stand below it. Each notification
    becomes a span `optimove.notification`. Handlers that run in threads see the current span of the request, since they
    run in a copy of its context.

    Metrics of calls and notifications: `optimove.call.duration` and `optimove.notification.duration`, histograms in
    seconds.

    Metrics of listeners: `optimove.listener.events`, a counter by outcome; `optimove.listener.campaign_ready.age`, a
    gauge: seconds since a campaign was last announced to this process, absent before the first.

    Metrics of reviews: `optimove.review.duration`, a histogram in seconds of the reports, by whether they are complete;
    `optimove.review.customers`, a counter of the customers in reports, by what became of them. Of the reviews that run
    in this process, gauges: `optimove.review.running`, how many; `optimove.review.decided` and
    `optimove.review.approved`, customers so far; `optimove.review.slack`, the least seconds between the expected end of
    one and its clearance.

    Of shadows: `optimove.shadow.answers`, a counter of customers by what was decided, what the shadow said, and whether
    that differs; pass `on_shadow` to a `Shadow` as `on_answer`.

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

        self._events = meter.create_counter("optimove.listener.events", "{event}", "Requests to listeners.")
        self._reviews = meter.create_histogram("optimove.review.duration", "s", "Reviews that have ended.")
        self._customers = meter.create_counter("optimove.review.customers", "{customer}", "Customers in reports.")
        self._shadows = meter.create_counter(
            "optimove.shadow.answers", "{customer}", "Customers a shadow was asked about."
        )
        self._announced: float | None = None
        self._running: dict[int, tuple[float, Progress]] = {}
        self._lock = ForkLock()
        for name, unit, description, observe in (
            ("listener.campaign_ready.age", "s", "Since a campaign was last announced.", self._age),
            ("review.running", "{review}", "Reviews that run.", lambda: [len(self._at_work())]),
            ("review.decided", "{customer}", "Of the reviews that run.", lambda: self._sum("reviewed")),
            ("review.approved", "{customer}", "Of the reviews that run.", lambda: self._sum("approved")),
            ("review.slack", "s", "The least of the reviews that run.", self._least_slack),
        ):
            meter.create_observable_gauge(f"optimove.{name}", [_callback(observe)], unit, description)

    def on_outcome(self, outcome: Outcome | EventOutcome) -> None:
        """Record the outcome of a notification or an event; pass it to a receiver of either kind as `on_outcome`.

        Args:
            outcome: The record of its delivery.
        """
        if isinstance(outcome, EventOutcome):
            self._events.add(1, {"optimove.outcome": outcome.kind})
            if isinstance(outcome.event, CampaignReadyEvent):
                self._announced = time.monotonic()
            return
        named: dict[str, str] = {"optimove.outcome": outcome.kind}
        if outcome.switch is not None:
            named["optimove.switch"] = outcome.switch
        if outcome.observed is not None:
            named["optimove.observed"] = outcome.observed
        self._notifications.record(outcome.total_seconds, named)
        end = time.time_ns()
        start = end - round(outcome.total_seconds * _NANOSECONDS)
        self._tracer.start_span("optimove.notification", start_time=start, attributes=named).end(end)

    def on_shadow(self, answer: ShadowAnswer) -> None:
        """Count the answer of a shadow; pass it to a `Shadow` as `on_answer`.

        Args:
            answer: The shadow's.
        """
        named: dict[str, str | bool] = {
            "optimove.decided": answer.decided,
            "optimove.observed": answer.observed,
            "optimove.differs": answer.differs,
        }
        self._shadows.add(answer.customers, named)

    def progress(self, progress: Progress) -> None:
        """Record the progress of a review; pass it to a review as `progress`.

        Args:
            progress: The review's.
        """
        with self._lock:
            self._running[progress.campaign_id] = time.monotonic(), progress

    def on_report(self, report: ReviewReport) -> None:
        """Record the report of a review; pass it to a review as `on_report`.

        Args:
            report: The review's.
        """
        with self._lock:
            self._running.pop(report.campaign_id, None)
        self._reviews.record(report.seconds, {"optimove.complete": report.complete})
        for became in ("approved", "denied", "failed", "not_reached"):
            self._customers.add(getattr(report, became), {"optimove.became": became})

    def _at_work(self) -> list[Progress]:
        """Return the last progress of each review that runs; one without a report stops telling when it ends."""
        since = time.monotonic() - _SILENT_SECONDS
        with self._lock:
            self._running = {key: known for key, known in self._running.items() if known[0] > since}
            return [progress for _, progress in self._running.values()]

    def _age(self) -> list[float]:
        return [] if self._announced is None else [time.monotonic() - self._announced]

    def _sum(self, name: str) -> list[float]:
        return [sum(getattr(progress, name) for progress in self._at_work())]

    def _least_slack(self) -> list[float]:
        slacks = [progress.slack for progress in self._at_work() if progress.slack is not None]
        return [min(slacks)] if slacks else []


def _callback(observe: Callable[[], Sequence[float]]) -> Callable[[metrics.CallbackOptions], list[metrics.Observation]]:
    return lambda _: [metrics.Observation(value) for value in observe()]


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
        span = around = self._span.get()
        end = round(record.ended_at * _NANOSECONDS)
        if span is None:  # the record was passed on by another `on_call`, so `around` was not entered
            start = end - round(record.seconds * _NANOSECONDS)
            span = self._tracer.start_span(f"optimove.{record.operation}", kind=trace.SpanKind.CLIENT, start_time=start)
        span.set_attributes(more)
        if record.error is not None:
            span.set_status(trace.Status(trace.StatusCode.ERROR, record.error))
        if around is None:
            span.end(end)
