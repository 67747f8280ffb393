"""What a full run tells of itself: records, log lines, spans and metrics; and what none of them may hold."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from optimove_conditional_execution import (
    CallRecord,
    CampaignCustomer,
    CampaignReview,
    ConfigurationError,
    Deadline,
    Decision,
    ListenerReceiver,
    NotFoundError,
    OptimoveClient,
    Outcome,
    Progress,
    RetryPolicy,
    ReviewReport,
    WebhookNotification,
    WebhookReceiver,
    operations,
)
from optimove_conditional_execution.shadow import Shadow
from optimove_conditional_execution.telemetry import Telemetry
from optimove_conditional_execution.testing import FakeOptimove, FaultServer, faults, notification, signed_request
from tests.transport.engines import ENGINES, Caller

API_KEY = "key-of-the-tenant"
SECRET = "secret-of-the-tenant"
USER = "jane-doe-4711"
PERSONAL = "jane@example.com"
EVIDENCE = "bonus-code-of-jane"
HIDDEN = (API_KEY, SECRET, USER, PERSONAL, EVIDENCE)


class Seen:
    """Everything that is emitted."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []
        self.outcomes: list[Outcome] = []
        self.spans = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.tracer = tracers.get_tracer("test")
        self.telemetry = Telemetry(tracer_provider=tracers, meter_provider=MeterProvider([self.reader]))

    def on_call(self, record: CallRecord) -> None:
        self.records.append(record)
        self.telemetry.on_call(record)

    def on_outcome(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.telemetry.on_outcome(outcome)


@pytest.fixture
def seen() -> Seen:
    """A place for everything that is emitted."""
    return Seen()


@pytest.fixture(params=["sync httpx", "async httpx", "async aiohttp"])
def caller(request: pytest.FixtureRequest) -> Caller:
    """Some engines; what is told does not depend on them."""
    return Caller(request.param)


def test_a_call_that_succeeds(caller: Caller, seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    with (
        FaultServer([faults.unavailable()]) as server,
        caplog.at_level(logging.DEBUG, "optimove_conditional_execution"),
    ):
        caller.call(server, lambda client: client.get_webhooks(), on_call=seen.on_call)
    (record,) = seen.records
    assert (record.operation, record.attempts, record.status, record.error) == ("get_webhooks", 2, 200, None)
    assert 0 < record.seconds < 30 - record.seconds_left + 0.1
    assert record.bytes_sent == 0
    assert record.bytes_received > 2
    (line,) = [each for each in caplog.records if each.name == "optimove_conditional_execution.calls"]
    assert line.levelno == logging.DEBUG
    assert line.getMessage().startswith("get_webhooks ok status=200 attempts=2 seconds=")
    assert (line.__dict__["optimove_operation"], line.__dict__["optimove_attempts"]) == ("get_webhooks", 2)


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        (faults.HTML_502, 502, "ServerError"),
        (faults.HANG, None, "DeadlineExceeded"),
        (faults.GARBAGE, None, "TransportError"),
    ],
    ids=["502", "hang", "garbage"],
)
def test_a_call_that_fails(
    caller: Caller, seen: Seen, fault: Any, status: int | None, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    def create(client: Any) -> Any:
        return client.send(operations.create_webhook("https://gate.example"), deadline=Deadline.after(1))

    with FaultServer([fault]) as server, caplog.at_level(logging.INFO, "optimove_conditional_execution"):
        caller.call(server, create, on_call=seen.on_call, retry=RetryPolicy(attempts=1))
    (record,) = seen.records
    assert (record.attempts, record.status, record.error) == (1, status, error)
    assert record.bytes_sent == len('{"url":"https://gate.example"}')
    (line,) = [each for each in caplog.records if each.name == "optimove_conditional_execution.calls"]
    assert line.levelno == logging.INFO
    assert line.getMessage().endswith(f"({error})")
    (span,) = seen.spans.get_finished_spans()
    assert span.name == "optimove.create_webhook"
    assert span.kind is trace.SpanKind.CLIENT
    assert span.status.status_code is trace.StatusCode.ERROR
    assert dict(span.attributes or {})["error.type"] == error


def test_a_broken_hook_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken(record: CallRecord) -> None:
        raise LookupError(PERSONAL)

    assert FakeOptimove().client(on_call=broken).get_webhooks() == []
    assert "on_call raised LookupError" in caplog.text
    assert PERSONAL not in caplog.text


def test_a_hook_must_be_a_function() -> None:
    with pytest.raises(ConfigurationError, match="on_call"):
        OptimoveClient(API_KEY, base_url="https://optimove.test", on_call="print")  # type: ignore[arg-type]


def emitted(seen: Seen, caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    for record in caplog.records:
        yield record.getMessage()
        yield repr(record.__dict__)
    yield from map(repr, seen.records)
    yield from map(repr, seen.outcomes)
    for span in seen.spans.get_finished_spans():
        yield span.to_json()
    metrics = seen.reader.get_metrics_data()
    assert metrics is not None
    yield metrics.to_json()


def test_a_full_run_emits_neither_secrets_nor_personal_data(
    seen: Seen, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both halves, with all that can go wrong, everything logged at DEBUG."""
    caplog.set_level(logging.DEBUG)
    fake = FakeOptimove(api_key=API_KEY, secret=SECRET)
    answers = iter([True, Decision.approve({"bonus": EVIDENCE}), Decision.deny(EVIDENCE), ValueError(PERSONAL), None])

    def handler(given: WebhookNotification, deadline: Deadline) -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with fake.client(on_call=seen.on_call) as client:
        receiver = WebhookReceiver(handler, client=client, secrets=SECRET, on_outcome=seen.on_outcome)
        for _ in range(5):
            payload = notification(user_id=USER, personalization={"email": PERSONAL})
            receiver.handle(signed_request(payload, secret=SECRET))
        receiver.handle(signed_request(notification(user_id=USER), secret=f"not {SECRET}"))
        receiver.handle(signed_request({"user": {"user_id": USER, "mail": PERSONAL}}, secret=SECRET))
        client.update_webhook_settings(secret=SECRET)
        with pytest.raises(NotFoundError):
            client.get_webhook_by_id("none")

        def reviewer(customers: Any, deadline: Deadline) -> Any:
            raise ValueError(customers[0].customer_id, PERSONAL)

        campaign = fake.add_campaign([USER, f"{USER}-2"])
        CampaignReview(reviewer, client=client, journal=None).run(campaign.event())
        CampaignReview(lambda customers, deadline: [USER], client=client).run(campaign.event())
    kinds = {outcome.kind for outcome in seen.outcomes}
    assert {"failed", "forged", "unreadable"} < kinds
    assert {"send_webhook_approval", "update_customer_promotion_status"} < {each.operation for each in seen.records}
    assert {span.name for span in seen.spans.get_finished_spans()} > {"optimove.notification"}
    everything = "\n".join([*emitted(seen, caplog), *capfd.readouterr()])
    assert "optimove_operation" in everything
    for hidden in HIDDEN:
        assert hidden not in everything, hidden


def test_a_handler_in_a_thread_is_in_the_trace_of_its_request(seen: Seen) -> None:
    fake = FakeOptimove()
    traces: list[int] = []

    def handler(given: WebhookNotification, deadline: Deadline) -> bool:
        traces.append(trace.get_current_span().get_span_context().trace_id)
        return True

    with fake.client(on_call=seen.on_call) as client:
        receiver = WebhookReceiver(handler, client=client, secrets="fake-secret", on_outcome=seen.on_outcome)
        with seen.tracer.start_as_current_span("request") as request:
            receiver.handle(signed_request(notification(), secret="fake-secret"))
        assert traces == [request.get_span_context().trace_id]
    (call,) = [span for span in seen.spans.get_finished_spans() if span.name == "optimove.send_webhook_approval"]
    assert call.context is not None
    assert call.context.trace_id == traces[0]


class Raising(logging.Filter):
    """What an application's filter does that asks for a field which only its own records have."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == "asyncio":  # which tells at DEBUG what it runs on
            return False
        raise KeyError("request_id")


@pytest.fixture
def broken_logging(request: pytest.FixtureRequest) -> Iterator[int]:
    """The root logger has a handler whose filter raises."""
    handler = logging.StreamHandler()
    handler.addFilter(Raising())
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = [handler]
    root.setLevel(request.param)
    yield request.param
    root.handlers = handlers
    root.setLevel(level)


# A given client is closed by whoever made it, outside of any call, and is told at DEBUG.
@pytest.mark.parametrize("broken_logging", [logging.INFO, logging.DEBUG], indirect=True)
@pytest.mark.parametrize("engine", ENGINES)
def test_logging_that_raises_does_not_change_a_call(
    engine: str, broken_logging: int, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[CallRecord] = []
    if "Client" in engine:
        logging.getLogger().setLevel(logging.INFO)
        broken_logging = logging.INFO
    with FaultServer() as server:
        results = Caller(engine).call(server, *[lambda client: client.get_webhooks()] * 3, on_call=calls.append)
    assert results == [[], [], []]
    assert [(record.attempts, record.status) for record in calls] == [(1, 200)] * 3
    told = capsys.readouterr().err
    assert ("Logging error" in told) is (broken_logging == logging.DEBUG or "httpx" in engine)
    assert "request_id" not in told


@pytest.mark.parametrize("engine", ENGINES)
def test_the_span_of_a_call_is_the_parent_of_each_trys(
    engine: str, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As instrumentation makes them: a span for every request that the HTTP library sends."""
    instrument(seen, monkeypatch)
    with FaultServer([faults.unavailable(), None]) as server:
        results = Caller(engine).call(server, lambda client: client.get_webhooks(), on_call=seen.telemetry.on_call)
    assert results == [[]]
    *tries, call = seen.spans.get_finished_spans()
    assert [span.name for span in tries] == ["GET", "GET"]
    assert call.name == "optimove.get_webhooks"
    assert call.context is not None
    assert [span.parent and span.parent.span_id for span in tries] == [call.context.span_id] * 2
    assert call.parent is None
    assert (call.attributes or {})["optimove.attempts"] == 2
    assert trace.get_current_span() is trace.INVALID_SPAN


def instrument(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make spans of the libraries' requests, below the span that is current when they are sent."""
    for module in (httpx, httpx2):
        send, asend = module.Client.send, module.AsyncClient.send

        def sent(*given: Any, send: Any = send, **options: Any) -> Any:
            with seen.tracer.start_as_current_span("GET"):
                return send(*given, **options)

        async def asent(*given: Any, asend: Any = asend, **options: Any) -> Any:
            with seen.tracer.start_as_current_span("GET"):
                return await asend(*given, **options)

        monkeypatch.setattr(module.Client, "send", sent)
        monkeypatch.setattr(module.AsyncClient, "send", asent)
    request = aiohttp.ClientSession.request

    def requested(*given: Any, **options: Any) -> Any:
        seen.tracer.start_span("GET").end()
        return request(*given, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "request", requested)


def test_the_span_of_a_stream_ends_when_it_is_open(seen: Seen) -> None:
    fake = FakeOptimove()
    campaign = fake.add_campaign(["C1", "C2"])
    with fake.client(on_call=seen.telemetry.on_call) as client:
        rows = client.get_processed_campaign_customers(campaign.campaign_id)
        assert next(rows).customer_id == "C1"
        assert trace.get_current_span() is trace.INVALID_SPAN
        rows.close()
    assert [span.name for span in seen.spans.get_finished_spans()] == ["optimove.get_processed_campaign_customers"]


@pytest.mark.parametrize("where", ["around", "entering", "leaving"])
def test_an_observer_that_breaks_changes_nothing(where: str, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def around(self, operation: str) -> contextlib.AbstractContextManager[None]:
            if where == "around":
                raise LookupError(operation)
            return self.context()

        @contextlib.contextmanager
        def context(self) -> Iterator[None]:
            if where == "entering":
                raise LookupError
            yield
            raise LookupError

        def __call__(self, record: CallRecord) -> None:
            records.append(record)

    records: list[CallRecord] = []
    assert FakeOptimove().client(on_call=Broken()).get_webhooks() == []
    assert [record.error for record in records] == [None]
    assert "on_call.around raised LookupError" in caplog.text


def measured(seen: Seen) -> dict[tuple[str, str], float]:
    """Return each metric's value, or the count of a histogram, by its name and its only attribute."""
    values: dict[tuple[str, str], float] = {}
    data = seen.reader.get_metrics_data()
    for metric in [] if data is None else data.resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.data.data_points:
            (told,) = (point.attributes or {"": ""}).values()
            values[metric.name, str(told)] = point.value if hasattr(point, "value") else point.count
    return values


def test_reviews_and_listeners_are_measured(seen: Seen) -> None:
    during: list[dict[tuple[str, str], float]] = []

    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        during.append(measured(seen))
        return [customers[0].customer_id]

    fake = FakeOptimove()
    campaign = fake.add_campaign(6)
    telemetry = seen.telemetry
    assert "optimove.listener.campaign_ready.age" not in {name for name, _ in measured(seen)}
    with (
        fake.client() as client,
        CampaignReview(
            reviewer,
            client=client,
            batch_size=2,
            progress=telemetry.progress,
            on_report=telemetry.on_report,
        ) as review,
    ):
        listener = ListenerReceiver(review.submit, token="t", on_outcome=telemetry.on_outcome)
        assert fake.announce(listener, campaign, token="t").status == 200
        assert fake.announce(listener, campaign, token="wrong").status == 401
    found = measured(seen)
    assert 0 <= found["optimove.listener.campaign_ready.age", ""] < 60
    assert found["optimove.listener.events", "taken"] == found["optimove.listener.events", "forged"] == 1
    assert found["optimove.review.duration", "True"] == 1
    customers = {became: found["optimove.review.customers", became] for became in ("approved", "denied", "failed")}
    assert customers == {"approved": 3, "denied": 3, "failed": 0}
    assert found["optimove.review.running", ""] == 0
    assert "optimove.review.slack" not in {name for name, _ in found}
    assert during
    text = str(seen.reader.get_metrics_data()) + str(during)
    assert "C000000" not in text


def test_what_stands_beside_a_handler_is_counted(seen: Seen) -> None:
    fake = FakeOptimove()
    shadow = Shadow(lambda notification, deadline: False, on_answer=seen.telemetry.on_shadow)
    options: dict[str, Any] = {"secrets": fake.secrets, "on_outcome": seen.telemetry.on_outcome}
    with fake.client() as client:
        fake.notify(WebhookReceiver(lambda notification, deadline: True, client=client, shadow=shadow, **options), USER)
        fake.notify(
            WebhookReceiver(lambda notification, deadline: True, client=client, switch=lambda: "deny", **options), USER
        )
        fake.notify(WebhookReceiver(lambda notification, deadline: True, client=client, observe=True, **options), USER)
    assert shadow.wait()
    attributes = [dict(span.attributes or {}) for span in seen.spans.get_finished_spans()]
    assert attributes == [
        {"optimove.outcome": "approved"},
        {"optimove.outcome": "denied", "optimove.switch": "deny"},
        {"optimove.outcome": "abstained", "optimove.observed": "approved"},
    ]
    told = str(seen.reader.get_metrics_data())
    assert "optimove.shadow.answers" in told
    assert "{'optimove.decided': 'approved', 'optimove.observed': 'denied', 'optimove.differs': True}" in told
    assert USER not in told


def test_the_progress_of_running_reviews(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Progress(
        campaign_id=1, rows=9, reviewed=6, approved=4, denied=1, failed=1, acknowledged=0,
        all_read=False, rate=1.0, seconds=1.0, seconds_left=9.0, slack=-2.0,
    )  # fmt: skip
    telemetry = seen.telemetry
    telemetry.progress(known)
    telemetry.progress(dataclasses.replace(known, campaign_id=2, slack=5.0))
    telemetry.progress(dataclasses.replace(known, campaign_id=3, slack=None))
    found = measured(seen)
    assert (found["optimove.review.running", ""], found["optimove.review.slack", ""]) == (3, -2.0)
    assert (found["optimove.review.decided", ""], found["optimove.review.approved", ""]) == (18, 12)
    telemetry.on_report(ReviewReport(campaign_id=1, complete=True, approved=4))
    found = measured(seen)
    assert (found["optimove.review.running", ""], found["optimove.review.slack", ""]) == (2, 5.0)
    assert (found["optimove.review.duration", "True"], found["optimove.review.customers", "approved"]) == (1, 4)
    # One whose review has no `on_report`, or was cancelled, does not stay for ever.
    monkeypatch.setattr("optimove_conditional_execution.telemetry._SILENT_SECONDS", -1.0)
    assert measured(seen)["optimove.review.running", ""] == 0
