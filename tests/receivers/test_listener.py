"""What a listener answers, rule by rule, for both receivers and both kinds of functions."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from optimove_conditional_execution import (
    UNSIGNED,
    AsyncListenerReceiver,
    ConfigurationError,
    Deadline,
    ListenerReceiver,
    Request,
    Response,
)
from optimove_conditional_execution.flows.listener import REMEMBERED_EVENTS, EventDeduplicator, EventOutcome
from optimove_conditional_execution.listener_token import ListenerToken
from optimove_conditional_execution.models.events import CampaignReadyEvent, ListenerEvent
from optimove_conditional_execution.receivers.listener import PLACES
from optimove_conditional_execution.stores import SqliteJournal

TOKEN = "hush-token-T0KEN"
HIDDEN = "hush-of-the-body"
LOGGER = "optimove_conditional_execution.listener"
PATIENCE = 30.0
"""Seconds; only a broken test waits so long."""


def ready(**changes: Any) -> dict[str, Any]:
    return {
        "EventTypeID": 5,
        "TimeStamp": "2026-11-23 08:30:00",
        "CampaignID": 1359,
        "CampaignDuration": 7,
        "ClearanceRequiredBy": "2026-11-23 09:30:00",
        **changes,
    }


def post(event: Any, *, path: str = "/listener", query: str = f"token={TOKEN}", method: str = "POST") -> Request:
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    return Request(method, path, query, {"content-type": "application/json"}, body)


class Taking:
    """An integrator's function that keeps events, and does what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.raises: BaseException | None = None
        self.entered = threading.Semaphore(0)
        self.go_on: threading.Event | None = None
        self.left = threading.Semaphore(0)

    def __call__(self, event: Any) -> None:
        self.events.append(event)
        self.entered.release()
        try:
            if self.go_on is not None:
                assert self.go_on.wait(PATIENCE)
            if self.raises is not None:
                raise self.raises
        finally:
            self.left.release()

    async def coroutine(self, event: Any) -> None:
        self.events.append(event)
        self.entered.release()
        try:
            while self.go_on is not None and not self.go_on.is_set():
                await asyncio.sleep(0.002)
            if self.raises is not None:
                raise self.raises
        finally:
            self.left.release()


class Rig:
    """A receiver of either colour; the async one lives in an event loop of its own, which goes on between requests."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.ready, self.other = Taking(), Taking()
        self.receiver: Any = None
        self.loop: asyncio.AbstractEventLoop | None = None
        if kind != "sync":
            self.loop = asyncio.new_event_loop()
            self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
            self.thread.start()

    def make(self, *, on_event: bool = False, **options: Any) -> Any:
        settings = {"token": TOKEN, "answer_within": PATIENCE, **options}
        if on_event:
            settings["on_event"] = self.function(self.other)
        build: Any = ListenerReceiver if self.kind == "sync" else AsyncListenerReceiver
        self.receiver = build(self.function(self.ready), **settings)
        return self

    def function(self, taking: Taking) -> Any:
        return {
            "sync": taking,
            "async with a function": taking,
            "async with a coroutine": taking.coroutine,
            "async with a lambda": lambda event: taking.coroutine(event),
        }[self.kind]

    def handle(self, request: Request, **options: Any) -> Response:
        response: Response
        if self.loop is None:
            response = self.receiver.handle(request, **options)
        else:
            answering = self.receiver.handle(request, **options)
            response = asyncio.run_coroutine_threadsafe(answering, self.loop).result(PATIENCE)
        return response

    def send(self, event: Any) -> int:
        return self.handle(post(event)).status

    def settle(self, count: int = 0) -> None:
        """Wait until what was handed over has been noted as ended."""
        for _ in range(count):
            assert self.ready.left.acquire(timeout=PATIENCE)
        handovers = self.receiver._context.deduplicator
        for handover in list(handovers._known.values()):
            if handover is not None:
                handover.done.result(PATIENCE)

    def close(self) -> None:
        for taking in (self.ready, self.other):
            if taking.go_on is not None:
                taking.go_on.set()
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(PATIENCE)
            self.loop.run_until_complete(asyncio.sleep(0.01))
            self.loop.close()


KINDS = ["sync", "async with a function", "async with a coroutine", "async with a lambda"]


@pytest.fixture(params=KINDS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made = Rig(request.param)
    yield made
    made.close()


def said(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER and record.levelno >= level]


# ---- who calls


RIGHT = [
    ("/listener", f"token={TOKEN}"),
    ("/", f"brand=x&token={TOKEN}&EventTypeID=5"),
    ("/listener", f"token={TOKEN}&token={TOKEN}"),
    ("/listener", "token=" + "".join(f"%{byte:02X}" for byte in TOKEN.encode())),
    ("/listener", f"%74oken={TOKEN}"),
    (f"/listener/{TOKEN}", ""),
    (f"/{TOKEN}", "brand=x"),
    (f"/listener/{TOKEN}/", ""),
    ("/listener/" + "".join(f"%{byte:02x}" for byte in TOKEN.encode()), ""),
    (TOKEN, ""),
]
WRONG = [
    ("/listener", ""),
    ("/", ""),
    ("", ""),
    ("/listener", "token="),
    ("/listener", "token"),
    ("/listener", f"token={TOKEN[:-1]}"),
    ("/listener", f"token={TOKEN}x"),
    ("/listener", f"token={TOKEN.lower()}"),
    ("/listener", f"token={TOKEN}&token=wrong"),
    ("/listener", f"token=wrong&token={TOKEN}"),
    ("/listener", f"token={TOKEN}&token="),
    ("/listener", f"Token={TOKEN}"),
    ("/listener", f"tokens={TOKEN}"),
    ("/listener", f"x=token={TOKEN}"),
    (f"/listener/{TOKEN}", "token=wrong"),
    (f"/{TOKEN}/listener", ""),
    (f"/listener/x{TOKEN}", ""),
    ("/listener/\xe9\u20ac", ""),
    ("/listener", "token=\xe9\u20ac"),
    ("/listener/\ud800", ""),
    ("/listener", "token=\ud800&token=%ff%fe"),
    ("/%", "%=%&token=%zz"),
]


@pytest.mark.parametrize(("path", "query"), RIGHT)
def test_the_token_opens(rig: Rig, path: str, query: str) -> None:
    assert rig.make().handle(post(ready(), path=path, query=query)).status == 200
    assert len(rig.ready.events) == 1


@pytest.mark.parametrize(("path", "query"), WRONG)
def test_anything_else_is_refused(rig: Rig, path: str, query: str, caplog: pytest.LogCaptureFixture) -> None:
    response = rig.make(on_event=True).handle(post(ready(), path=path, query=query))
    assert response.status == 401
    assert not rig.ready.events
    assert said(caplog) == ["forged status=401 (The URL does not hold the token.)"]


@pytest.mark.parametrize("token", ["\xe9t\xe9 \u20ac", "a+b/c==", "100%", "%41", "a&b=c?d", " padded ", "\U0001f3b0"])
def test_odd_tokens_in_every_spelling(token: str) -> None:
    gate = ListenerToken(token)
    quoted = quote(token, safe="")
    assert gate.matches(post({}, query=f"token={quoted}"))
    # ASGI hands the path over decoded, WSGI decoded and as if it were Latin-1.
    if "/" not in token:
        assert gate.matches(post({}, query="", path=f"/listener/{quoted}"))
        assert gate.matches(post({}, query="", path=f"/listener/{token}"))
        assert gate.matches(post({}, query="", path=f"/listener/{token.encode().decode('latin-1')}"))
    assert not gate.matches(post({}, query=f"token={quoted}x"))


def test_a_query_in_bytes_as_flask_has_it() -> None:
    request: Any = Request("POST", "/", b"token=abc", (), b"")  # type: ignore[arg-type]
    assert ListenerToken("abc").matches(request)
    assert not ListenerToken("abd").matches(request)


def test_unsigned_is_an_explicit_choice(rig: Rig) -> None:
    rig.make(token=UNSIGNED)
    assert rig.handle(post(ready(), query="")).status == 200
    assert rig.handle(post(ready(CampaignID=2), query="token=x&token=y")).status == 200
    assert len(rig.ready.events) == 2
    for nothing in ("", " ", "\t\n", None, 5, b"bytes", ["list"], True, "\ud800"):
        with pytest.raises(ConfigurationError, match="token"):
            rig.make(token=nothing)
    with pytest.raises(TypeError):
        ListenerReceiver(lambda event: None)  # type: ignore[call-arg]


def test_a_token_with_white_space_around_is_told(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.make(token=f"{TOKEN}\n")
    assert ["strip it" in line for line in said(caplog)] == [True]
    assert TOKEN not in caplog.text


class TestATokenInAHeader:
    """What a proxy sets, so that no access log behind it has the token."""

    @staticmethod
    def post(*headers: tuple[str, str], query: str = "") -> Request:
        return Request("POST", "/listener", query, headers, json.dumps(ready()).encode())

    def test_it_opens_whatever_the_case_of_its_name(self, rig: Rig) -> None:
        rig.make(token_header="X-Listener-Token")
        assert rig.handle(self.post(("x-LISTENER-token", f" {TOKEN} "))).status == 200
        assert rig.handle(self.post(("x-listener-token", TOKEN), ("x-listener-token", TOKEN))).status == 200
        assert len(rig.ready.events) == 1

    def test_then_the_url_does_not(self, rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
        rig.make(token_header="x-listener-token")
        assert rig.handle(self.post(query=f"token={TOKEN}")).status == 401
        assert rig.handle(post(ready(), path=f"/{TOKEN}", query="")).status == 401
        assert not rig.ready.events
        assert said(caplog) == ["forged status=401 (The token's header does not hold the token.)"] * 2

    @pytest.mark.parametrize("value", ["", " ", "x", f"{TOKEN}x", TOKEN[:-1], f"{TOKEN},{TOKEN}", "\ud800", "\xe9"])
    def test_another_value_does_not(self, rig: Rig, value: str, caplog: pytest.LogCaptureFixture) -> None:
        rig.make(token_header="x-listener-token")
        assert rig.handle(self.post(("x-listener-token", value))).status == 401
        assert rig.handle(self.post(("x-listener-token", TOKEN), ("x-listener-token", value))).status == 401
        assert not rig.ready.events
        assert TOKEN not in caplog.text

    def test_a_token_outside_ascii_as_servers_hand_it_over(self, rig: Rig) -> None:
        rig.make(token="gate-\xe9-\u20ac", token_header="x-listener-token")
        value = "gate-\xe9-\u20ac".encode().decode("latin-1")
        assert rig.handle(self.post(("x-listener-token", value))).status == 200

    @pytest.mark.parametrize("name", ["", " ", "x listener", "x_listener", "x:y", "\xe9", "-", 5, b"x"])
    def test_what_is_no_name_of_a_header(self, rig: Rig, name: Any) -> None:
        with pytest.raises(ConfigurationError, match="token_header"):
            rig.make(token_header=name)

    def test_without_a_token_there_is_none_in_a_header(self, rig: Rig) -> None:
        with pytest.raises(ConfigurationError, match="token_header"):
            rig.make(token=UNSIGNED, token_header="x-listener-token")


class TestABodyThatDidNotCome:
    def test_is_named(self, rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
        rig.make()
        body = json.dumps(ready()).encode()
        for came, headers, status, error in (
            (b"", {"transfer-encoding": "chunked"}, 411, "WSGIApp"),
            (b"", {"content-length": "156"}, 400, "empty, though 156 bytes were announced"),
            (b"", {}, 400, "The body is empty."),
            (body[:9], {"content-length": "156"}, 400, "only 9 of the 156 bytes"),
            (b"\x1f\x8b\x08", {"content-encoding": "gzip"}, 400, "Content-Encoding (gzip)"),
        ):
            caplog.clear()
            assert rig.handle(Request("POST", "/", f"token={TOKEN}", headers, came)).status == status
            (line,) = said(caplog)
            assert error in line
        assert not rig.ready.events

    def test_is_no_answer_to_who_does_not_know_the_token(self, rig: Rig) -> None:
        rig.make()
        assert rig.handle(Request("POST", "/", "token=x", {"transfer-encoding": "chunked"}, b"")).status == 401


class TestAHostThatEndsThem:
    def test_one_that_is_not_done_by_then_has_not_taken_the_event(
        self, rig: Rig, caplog: pytest.LogCaptureFixture
    ) -> None:
        rig.make()
        rig.ready.go_on = threading.Event()
        assert rig.handle(post(ready()), deadline=Deadline.after(0.2)).status == 503
        (line,) = said(caplog)
        assert "before the host's deadline" in line
        rig.ready.go_on.set()
        rig.settle(1)
        assert rig.send(ready()) == 200  # it went on after all
        assert len(rig.ready.events) == 1

    def test_one_that_is_done_before_has(self, rig: Rig) -> None:
        rig.make()
        assert rig.handle(post(ready()), deadline=Deadline.after(PATIENCE)).status == 200

    def test_answer_within_counts_when_it_is_earlier(self, rig: Rig) -> None:
        rig.make(answer_within=0.05)
        rig.ready.go_on = threading.Event()
        assert rig.handle(post(ready()), deadline=Deadline.after(PATIENCE)).status == 200

    def test_a_number_is_no_deadline(self, rig: Rig) -> None:
        rig.make()
        with pytest.raises(ConfigurationError, match="deadline"):
            rig.handle(post(ready()), deadline=1.5)


# ---- what is no event


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "DELETE", "OPTIONS", "", "POSTER"])
def test_other_methods(rig: Rig, method: str) -> None:
    response = rig.make().handle(post(ready(), method=method))
    assert (response.status, response.headers["allow"]) == (405, "POST")
    assert not rig.ready.events


def test_a_body_over_the_limit(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.make(max_body=200)
    assert rig.receiver.max_body == 200
    assert rig.send(b" " * 201) == 413
    assert rig.receiver.too_large().status == 413
    assert rig.send(json.dumps(ready()).encode().ljust(200)) == 200
    assert said(caplog) == ["unreadable status=413 (The body is longer than 200 bytes.)"] * 2
    assert rig.make().receiver.max_body == 65_536


UNREADABLE: list[tuple[Any, str]] = [
    (b"", ""),
    (b"nonsense", ""),
    (b"[]", ""),
    (b"null", ""),
    (b"\xff", ""),
    (b"[" * 50_000, ""),
    ({}, "EventTypeID"),
    (ready(EventTypeID="five"), "EventTypeID"),
    (ready(TimeStamp=None), "TimeStamp"),
    (ready(TimeStamp=HIDDEN), "TimeStamp"),
    (ready(CampaignID=None), "CampaignID"),
    (ready(CampaignID=HIDDEN), "CampaignID"),
    (ready(ClearanceRequiredBy=None), "ClearanceRequiredBy"),
    (ready(ClearanceRequiredBy=[HIDDEN]), "ClearanceRequiredBy"),
    (ready(ClearanceRequiredBy="2026-11-23 09:30:00 CET"), "ClearanceRequiredBy"),
    (json.dumps(ready()).replace("}", ', "CampaignID": 7}').encode(), "stands twice"),
    (json.dumps(ready(x=float("nan"))).encode(), ""),
    (ready(EventTypeID=True), "EventTypeID"),
]


@pytest.mark.parametrize(("event", "path"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_unreadable(rig: Rig, event: Any, path: str, caplog: pytest.LogCaptureFixture) -> None:
    assert rig.make(on_event=True).send(event) == 400
    (line,) = said(caplog)
    assert line.startswith("unreadable status=400 (")
    assert path in line
    assert HIDDEN not in caplog.text
    assert not rig.ready.events
    assert not rig.other.events


# ---- what is handed over


def test_a_campaign_is_handed_over_and_taken(rig: Rig, sample: Callable[[str], bytes]) -> None:
    assert rig.make(on_event=True).send(sample("listener-event-5.json")) == 200
    (event,) = rig.ready.events
    assert isinstance(event, CampaignReadyEvent)
    assert (event.campaign_id, event.clearance_required_by.hour) == (1359, 9)
    assert not rig.other.events


def test_keys_of_any_case_and_numbers_in_strings(rig: Rig) -> None:
    event = {key.upper(): str(value) for key, value in ready().items()}
    assert rig.make().send(event) == 200
    assert rig.ready.events[0].key == CampaignReadyEvent.from_json(json.dumps(ready())).key


@pytest.mark.parametrize(
    ("changes", "clearance"),
    [
        ({"EventTypeID": 5.0, "CampaignID": "1359", "CampaignDuration": 7.0}, "2026-11-23T08:30:00+00:00"),
        ({"ClearanceRequiredBy": "2026-11-23T09:30:00Z"}, "2026-11-23T09:30:00+00:00"),
        ({"ClearanceRequiredBy": "2026-11-23 09:30:00 UTC"}, "2026-11-23T09:30:00+00:00"),
        ({"ClearanceRequiredBy": "2026-11-23 09:30:00+02:00"}, "2026-11-23T07:30:00+00:00"),
        ({"ClearanceRequiredBy": "2026-11-23 09:30:00 -0530"}, "2026-11-23T15:00:00+00:00"),
        ({"ClearanceRequiredBy": "2026-11-23T09:30:00.1234567Z"}, "2026-11-23T09:30:00.123456+00:00"),
        ({"ClearanceRequiredBy": "2026-11-23 09:30:00.1234567"}, "2026-11-23T08:30:00.123456+00:00"),
        ({"Note": "Jo\ud83d", "no\udc00te": "\udc00"}, "2026-11-23T08:30:00+00:00"),
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_campaign_in_other_spellings_is_handed_over(
    rig: Rig, tmp_path: Path, changes: dict[str, Any], clearance: str, mark: bytes
) -> None:
    assert rig.make().send(mark + json.dumps(ready(**changes)).encode()) == 200
    (event,) = rig.ready.events
    assert (event.event_type_id, event.campaign_id, event.campaign_duration) == (5, 1359, 7)
    assert event.clearance_required_by.tzinfo is None
    assert event.clearance_deadline("Europe/Berlin").isoformat() == clearance
    with SqliteJournal(tmp_path / "journal.db") as journal:
        assert journal.add(event)
        (kept,) = journal.unfinished()
        assert kept == event
        assert kept.clearance_deadline("Europe/Berlin").isoformat() == clearance


def test_a_zone_that_contradicts_the_one_of_the_event() -> None:
    def contradicts(**changes: Any) -> bool:
        return CampaignReadyEvent.from_json(json.dumps(ready(**changes))).contradicts("Europe/Berlin")

    assert not contradicts()
    assert not contradicts(ClearanceRequiredBy="2026-11-23 09:30:00+01:00")
    assert contradicts(ClearanceRequiredBy="2026-11-23 09:30:00Z")
    assert contradicts(ClearanceRequiredBy="2026-07-23 09:30:00+01:00")


@pytest.mark.parametrize("stamp", [{}, {"TimeStamp": None}])
def test_other_events_need_no_time_stamp_and_each_is_handed_over(rig: Rig, stamp: dict[str, None]) -> None:
    rig.make(on_event=True)
    assert [rig.send({"EventTypeID": "11", "customerID": "C1", **stamp}) for _ in range(2)] == [200, 200]
    assert [event.timestamp for event in rig.other.events] == [None, None]
    assert rig.send({"EventTypeID": 5, "CampaignID": 7, "ClearanceRequiredBy": "2026-11-23 09:30", **stamp}) == 400


def test_one_that_takes_longer_goes_on_in_the_background(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.ready.go_on = threading.Event()
    with caplog.at_level(logging.INFO):
        rig.make(answer_within=0.01)
        assert rig.send(ready()) == 200
        assert rig.ready.entered.acquire(timeout=PATIENCE)
        assert not rig.ready.left.acquire(blocking=False)
        gc.collect()  # a task that nobody holds would vanish here
        rig.ready.go_on.set()
        rig.settle(1)
        assert rig.send(ready()) == 200
    assert len(rig.ready.events) == 1
    assert [line.split()[0] for line in said(caplog, logging.INFO)] == ["running", "duplicate"]


@pytest.mark.parametrize("error", [ValueError(HIDDEN), KeyError(HIDDEN), TimeoutError(), StopIteration(HIDDEN)])
def test_one_that_raises_has_not_taken_the_event(rig: Rig, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    rig.make()
    rig.ready.raises = error
    assert rig.send(ready()) == 503
    assert rig.send(ready()) == 503
    assert len(rig.ready.events) == 2
    errors = said(caplog, logging.ERROR)
    assert len(errors) == 2
    assert errors[0].startswith("on_ready raised ")
    assert "CampaignID=1359" in errors[0]
    rig.ready.raises = None
    assert rig.send(ready()) == 200
    assert rig.send(ready()) == 200
    assert len(rig.ready.events) == 3
    assert HIDDEN not in caplog.text
    assert "Traceback" not in caplog.text


def test_one_that_raises_later_is_logged_and_forgotten(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.ready.go_on = threading.Event()
    rig.ready.raises = ValueError(HIDDEN)
    rig.make(answer_within=0.01)
    assert rig.send(ready()) == 200
    rig.ready.go_on.set()
    rig.settle(1)
    (line,) = said(caplog)
    assert line.startswith("on_ready raised ValueError; a repeat of the event is handed over again EventTypeID=5 ")
    rig.ready.raises = None
    assert rig.send(ready()) == 200
    rig.settle(1)
    assert len(rig.ready.events) == 2
    assert HIDDEN not in caplog.text


# ---- the same again


def test_the_same_again_is_not_handed_over_twice(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.make()
    with caplog.at_level(logging.INFO):
        assert [rig.send(ready()) for _ in range(3)] == [200] * 3
        assert rig.send({key.lower(): value for key, value in reversed(ready().items())}) == 200
        assert rig.send(ready(CampaignDuration=8, Unknown="x")) == 200
    assert len(rig.ready.events) == 1
    assert [line.split()[0] for line in said(caplog, logging.INFO)] == ["taken", *["duplicate"] * 4]


@pytest.mark.parametrize(
    "change",
    [
        {"CampaignID": 1360},
        {"TimeStamp": "2026-11-23 08:30:01"},
        {"ClearanceRequiredBy": "2026-11-23 09:30:01"},
    ],
)
def test_one_that_differs_is_another(rig: Rig, change: dict[str, Any]) -> None:
    rig.make()
    assert [rig.send(ready()), rig.send(ready(**change))] == [200, 200]
    assert len(rig.ready.events) == 2


@pytest.mark.parametrize("raises", [None, ValueError()])
def test_a_repeat_waits_for_the_first_and_answers_as_it_does(rig: Rig, raises: Exception | None) -> None:
    rig.ready.go_on = threading.Event()
    rig.ready.raises = raises
    rig.make()
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(rig.send, ready())
        assert rig.ready.entered.acquire(timeout=PATIENCE)
        repeats = [pool.submit(rig.send, ready()) for _ in range(4)]
        waiting = rig.receiver._context.deduplicator._known[CampaignReadyEvent.from_json(json.dumps(ready())).key]
        assert waiting is not None
        while not (len(waiting.done._done_callbacks) + len(waiting.done._waiters) >= 5):
            assert not any(repeat.done() for repeat in repeats)
        rig.ready.go_on.set()
        expected = 200 if raises is None else 503
        assert {future.result(PATIENCE) for future in (first, *repeats)} == {expected}
    assert len(rig.ready.events) == 1


def test_a_repeat_of_one_that_still_runs_is_answered_200(rig: Rig) -> None:
    rig.ready.go_on = threading.Event()
    rig.make(answer_within=0.01)
    assert [rig.send(ready()) for _ in range(3)] == [200] * 3
    assert len(rig.ready.events) == 1


def test_at_once_from_many_threads(rig: Rig) -> None:
    rig.make()
    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(lambda _: rig.send(ready()), range(200))) == {200}
    assert len(rig.ready.events) == 1


def test_the_last_ten_thousand_are_remembered(rig: Rig) -> None:
    rig.make()
    handovers = rig.receiver._context.deduplicator
    assert rig.send(ready()) == 200
    for number in range(REMEMBERED_EVENTS - 1):
        handover, ours = handovers.begin(f"another {number}")
        assert ours
        handovers.end(handover, taken=True)
    assert rig.send(ready()) == 200
    assert len(rig.ready.events) == 1
    assert rig.send(ready(CampaignID=2)) == 200  # one too many
    assert len(handovers) == REMEMBERED_EVENTS == 10_000
    assert rig.send(ready()) == 200
    assert len(rig.ready.events) == 3


def test_a_handover_that_was_forgotten_meanwhile_changes_nothing_when_it_ends() -> None:
    handovers = EventDeduplicator(capacity=1)
    first, _ = handovers.begin("a")
    handovers.begin("b")
    again, ours = handovers.begin("a")
    assert first is not None
    assert again is not first
    assert ours
    handovers.end(first, taken=False)
    assert first.done.result(0) is False
    assert handovers.begin("a") == (again, False)
    handovers.end(first, taken=True)  # once is enough
    assert first.done.result(0) is False


# ---- other events


def other(kind: int, **changes: Any) -> dict[str, Any]:
    return {"EventTypeID": kind, "TimeStamp": "2026-11-23 08:30", "CampaignID": 1359, **changes}


def test_other_events_are_answered_and_logged(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.make()
    with caplog.at_level(logging.INFO):
        assert rig.send(other(13, ChannelID=HIDDEN)) == 200
        assert rig.send(other(2, CampaignID=None)) == 200
        assert rig.send(other(11, CampaignID=HIDDEN)) == 200
    assert not rig.ready.events
    (first, *_) = records = [record for record in caplog.records if record.name == LOGGER]
    assert {record.levelno for record in records} == {logging.INFO}
    assert first.getMessage() == "ignored status=200 EventTypeID=13 CampaignID=1359 TimeStamp=2026-11-23T08:30:00"
    assert (vars(first)["optimove_kind"], vars(first)["optimove_event_type_id"]) == ("ignored", 13)
    assert "EventTypeID=11 CampaignID=None" in records[2].getMessage()
    assert HIDDEN not in caplog.text


def test_other_events_are_handed_to_on_event(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.make(on_event=True)
    assert rig.send(other(13, ChannelID=505)) == 200
    (event,) = rig.other.events
    assert type(event) is ListenerEvent
    assert event.model_extra == {"ChannelID": 505}
    assert rig.send(other(13, ChannelID=505)) == 200
    assert len(rig.other.events) == 1
    assert rig.send(other(13, ChannelID=504)) == 200  # of the same campaign and time, but not the same event
    assert rig.send(other(13)) == 200
    assert rig.send(other(1)) == 200
    assert len(rig.other.events) == 4
    assert not rig.ready.events
    rig.other.raises = ValueError(HIDDEN)
    assert [rig.send(other(4)), rig.send(other(4))] == [503, 503]
    assert len(rig.other.events) == 6
    assert said(caplog, logging.ERROR)[0].startswith("on_event raised ValueError; ")
    assert HIDDEN not in caplog.text


def test_a_slow_on_event_goes_on_too(rig: Rig) -> None:
    rig.other.go_on = threading.Event()
    rig.make(on_event=True, answer_within=0.01)
    assert [rig.send(other(1)), rig.send(other(1)), rig.send(ready())] == [200] * 3
    assert len(rig.other.events) == 1


# ---- limits


def test_more_than_the_places_is_refused_and_handed_over_later(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.ready.go_on = threading.Event()
    rig.make(answer_within=0)
    assert [rig.send(ready(CampaignID=number)) for number in range(PLACES)] == [200] * PLACES
    assert rig.send(ready(CampaignID=99)) == 503
    assert rig.send(ready(CampaignID=0)) == 200  # a repeat needs no place
    assert [line.split()[0] for line in said(caplog)] == ["overloaded"]
    rig.ready.go_on.set()
    rig.settle(PLACES)
    assert rig.send(ready(CampaignID=99)) == 200
    rig.settle(1)
    assert sorted(event.campaign_id for event in rig.ready.events) == [*range(PLACES), 99]


def test_a_request_that_is_cancelled_does_not_cancel_what_was_handed_over(caplog: pytest.LogCaptureFixture) -> None:
    taking = Taking()
    taking.go_on = threading.Event()

    async def scenario(function: Any) -> int:
        receiver = AsyncListenerReceiver(function, token=TOKEN, answer_within=PATIENCE)
        asked = asyncio.create_task(receiver.handle(post(ready())))
        while not taking.entered.acquire(blocking=False):
            await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert not taking.left.acquire(blocking=False)
        assert [line.split()[0] for line in said(caplog)] == ["cancelled"]
        caplog.clear()
        assert not await receiver.drain(within=0.01)
        assert taking.go_on is not None
        taking.go_on.set()
        status = (await receiver.handle(post(ready()))).status  # waits for the first
        assert taking.left.acquire(blocking=False)
        assert await receiver.drain(within=PATIENCE)
        taking.go_on.clear()
        return status

    for function in (taking, taking.coroutine):
        assert asyncio.run(scenario(function)) == 200
    assert len(taking.events) == 2


def test_an_event_loop_that_ends_leaves_the_event_untaken(caplog: pytest.LogCaptureFixture) -> None:
    taking = Taking()
    taking.go_on = threading.Event()
    receiver = AsyncListenerReceiver(taking.coroutine, token=TOKEN, answer_within=0.01)

    async def once() -> int:
        return (await receiver.handle(post(ready()))).status

    assert asyncio.run(once()) == 200
    assert [line.split(";")[0] for line in said(caplog)] == ["on_ready raised CancelledError"]
    taking.go_on.set()
    assert asyncio.run(once()) == 200
    assert len(taking.events) == 2


def test_one_receiver_in_several_event_loops() -> None:
    taking = Taking()
    taking.go_on = threading.Event()
    receiver = AsyncListenerReceiver(taking, token=TOKEN, answer_within=PATIENCE)

    def ask() -> int:
        return asyncio.run(receiver.handle(post(ready()))).status

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(ask) for _ in range(3)]
        assert taking.entered.acquire(timeout=PATIENCE)
        taking.go_on.set()
        assert [future.result(PATIENCE) for future in futures] == [200] * 3
    assert len(taking.events) == 1


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), asyncio.CancelledError(), StopIteration()])
def test_whatever_a_function_raises_is_contained_and_named(
    rig: Rig, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    rig.ready.raises = error
    rig.make(answer_within=PATIENCE)
    assert rig.send(ready()) == 503
    assert said(caplog, logging.ERROR)[0].startswith(f"on_ready raised {type(error).__name__}; ")
    rig.ready.raises = None
    assert rig.send(ready()) == 200


def test_a_sync_listener_refuses_to_block_an_event_loop() -> None:
    taking = Taking()
    receiver = ListenerReceiver(taking, token=TOKEN)

    async def view() -> Response:
        return receiver.handle(post(ready()))

    with pytest.raises(ConfigurationError, match="AsyncListenerReceiver, or call it in a thread"):
        asyncio.run(view())
    assert not taking.events


def test_an_async_listener_says_that_it_needs_asyncio() -> None:
    with pytest.raises(ConfigurationError, match="AsyncListenerReceiver needs asyncio"):
        AsyncListenerReceiver(Taking(), token=TOKEN).handle(post(ready())).send(None)


def test_logging_that_raises_does_not_change_an_answer(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(record: logging.LogRecord) -> bool:
        raise KeyError(HIDDEN)

    logger = logging.getLogger(LOGGER)
    logger.addFilter(broken)
    try:
        rig.make()
        assert rig.send(ready()) == 200
        assert rig.handle(post(ready(CampaignID=2), query="token=wrong")).status == 401
    finally:
        logger.removeFilter(broken)
    assert len(rig.ready.events) == 1
    told = capsys.readouterr().err
    assert f"a filter or handler of {LOGGER} raised KeyError" in told
    assert HIDDEN not in told


def test_a_coroutine_function_in_disguise_is_an_error_in_threads(caplog: pytest.LogCaptureFixture) -> None:
    taking = Taking()
    receiver = ListenerReceiver(lambda event: taking.coroutine(event), token=TOKEN)
    assert receiver.handle(post(ready())).status == 503
    assert not taking.events
    assert "returned a coroutine, which only AsyncListenerReceiver awaits" in said(caplog, logging.ERROR)[0]


def test_context_variables_reach_a_function() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="none")
    seen: list[str] = []

    def function(event: CampaignReadyEvent) -> None:
        seen.append(name.get())

    name.set("set")
    assert ListenerReceiver(function, token=TOKEN, answer_within=PATIENCE).handle(post(ready())).status == 200
    receiver = AsyncListenerReceiver(function, token=TOKEN, answer_within=PATIENCE)
    assert asyncio.run(receiver.handle(post(ready()))).status == 200
    assert seen == ["set", "set"]


# ---- settings


def test_functions_that_cannot_be_called_are_refused_at_once(rig: Rig) -> None:
    build: Any = ListenerReceiver if rig.kind == "sync" else AsyncListenerReceiver
    for bad in (None, 5, "name", lambda: None, lambda event, deadline: None, lambda *, event: None):
        with pytest.raises(ConfigurationError, match="on_ready must"):
            build(bad, token=TOKEN)
        if bad is not None:
            with pytest.raises(ConfigurationError, match="on_event must"):
                build(Taking(), token=TOKEN, on_event=bad)
    for good in (Taking(), Taking().__call__, print, lambda *events: None, lambda event, extra=1: None):
        build(good, token=TOKEN, on_event=good)


def test_a_coroutine_function_needs_the_async_receiver() -> None:
    taking = Taking()

    class Called:
        async def __call__(self, event: ListenerEvent) -> None: ...

    for function in (taking.coroutine, Called()):
        with pytest.raises(ConfigurationError, match=r"async on_ready needs AsyncListenerReceiver"):
            ListenerReceiver(function, token=TOKEN)
        with pytest.raises(ConfigurationError, match=r"async on_event needs AsyncListenerReceiver"):
            ListenerReceiver(taking, token=TOKEN, on_event=function)
        AsyncListenerReceiver(function, token=TOKEN, on_event=function)


@pytest.mark.parametrize(
    "options",
    [
        {"answer_within": -1}, {"answer_within": "soon"}, {"answer_within": None}, {"answer_within": float("nan")},
        {"answer_within": True}, {"max_body": 0}, {"max_body": 1.5}, {"max_body": None}, {"max_body": True},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(rig: Rig, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        rig.make(**options)


def test_waiting_for_ever_is_bounded(rig: Rig) -> None:
    rig.make(answer_within=float("inf"))
    assert rig.send(ready()) == 200
    assert rig.receiver._context.answer_within == 3_600


def test_a_frameworks_request_is_refused(rig: Rig) -> None:
    rig.make()
    with pytest.raises(ConfigurationError, match="Request"):
        rig.handle("request")  # type: ignore[arg-type]


def test_both_are_made_and_called_alike() -> None:
    assert str(inspect.signature(ListenerReceiver)) == str(inspect.signature(AsyncListenerReceiver))
    parameters = inspect.signature(ListenerReceiver).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "on_ready": inspect.Parameter.empty,
        "token": inspect.Parameter.empty,
        "on_event": None,
        "answer_within": 0.5,
        "max_body": 65_536,
        "around": None,
        "token_header": None,
        "on_outcome": None,
    }
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in list(parameters)[1:])


# ---- whatever comes in


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from([10**400, 10**4_299, -(10**30), "", " ", "5", 5, "2026-11-23 08:30:00", "2026-11-23T08:30",
                       "9999-12-31 23:59:59", "0001-01-01 00:00", HIDDEN, "\U0001f3b0" * 9]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
KEYS = st.sampled_from([*ready(), *(key.lower() for key in ready()), "campaign_id", "timestamp"]) | st.text(max_size=9)
EVENTS = st.dictionaries(KEYS, JSON, max_size=7).map(lambda changes: {**ready(), **changes})
PARTS = st.sampled_from(["token", "=", "&", TOKEN, "%", "%74", "%00", "+", ";", "/", "\ud800", "\xff"])
TEXTS = st.lists(PARTS | st.text(max_size=5), max_size=8).map("".join)
PATHS = TEXTS | TEXTS.map(lambda text: f"/{text}/{TOKEN}")
QUERIES = TEXTS | st.just("") | TEXTS.map(lambda text: f"token={TOKEN}&{text}")

quick = settings(
    max_examples=100,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Log(logging.Handler):
    """All that the SDK says at level DEBUG, with every attribute of each record."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{record.getMessage()} {record.exc_info} {vars(record)!r}")


@pytest.fixture
def logged() -> Iterator[Log]:
    logger, log = logging.getLogger("optimove_conditional_execution"), Log()
    level = logger.level
    logger.addHandler(log)
    logger.setLevel(logging.DEBUG)
    yield log
    logger.removeHandler(log)
    logger.setLevel(level)


def opened(path: str, query: str) -> bool:
    """Whether a URL holds the token, told without the SDK's own reading."""
    pairs = [pair.split("=", 1) for pair in query.replace("%74", "t").split("&")]
    values = [pair[1] if len(pair) > 1 else "" for pair in pairs if pair[0] == "token"]
    values = values or [path.rstrip("/").rsplit("/", 1)[-1]]
    return all(value.replace("%74", "t") == TOKEN for value in values)


@quick
@example(path="/", query="token=" + TOKEN, body=b"\xff")
@given(path=PATHS, query=QUERIES, body=st.binary(max_size=50) | EVENTS.map(lambda event: json.dumps(event).encode()))
def test_hostile_urls(path: str, query: str, body: bytes, logged: Log) -> None:
    logged.texts.clear()
    taking = Taking()
    receiver = ListenerReceiver(taking, token=TOKEN, on_event=taking, answer_within=PATIENCE)
    request = Request("POST", path, query, (), body)
    response = receiver.handle(request)
    assert (response.status == 401) is not opened(path, query)
    assert response.status in {200, 400, 401}
    assert bool(taking.events) is (response.status == 200)
    assert "inside the SDK" not in "".join(logged.texts)
    for text in (*logged.texts, repr(receiver), str(receiver), repr(response), str(receiver._context)):
        assert TOKEN not in text


@quick
@given(event=EVENTS | JSON)
def test_hostile_events(event: Any, logged: Log) -> None:
    """Both receivers say the same, hand over at most once, and quote nothing."""
    logged.texts.clear()
    body = json.dumps(event).encode()
    answers = []
    taking = Taking()
    sync = ListenerReceiver(taking, token=TOKEN, on_event=taking, answer_within=PATIENCE, max_body=100_000)
    twin = AsyncListenerReceiver(taking, token=TOKEN, on_event=taking.coroutine, answer_within=PATIENCE, max_body=9**9)
    for _ in range(2):
        answers.append(sync.handle(post(body)).status)
        answers.append(asyncio.run(twin.handle(post(body))).status)
    assert len(set(answers)) == 1
    assert answers[0] in {200, 400}
    assert len(taking.events) == (2 if answers[0] == 200 else 0)
    assert "inside the SDK" not in "".join(logged.texts)
    for text in (*logged.texts, repr(sync), repr(twin)):
        assert HIDDEN not in text
        assert TOKEN not in text


def test_nothing_is_quoted_whatever_happens(rig: Rig, logged: Log) -> None:
    rig.make(on_event=True)
    shown: list[object] = [rig.receiver, rig.receiver._context, *rig.receiver._context.deduplicator._known.values()]
    private = {"Unknown": HIDDEN, "DecryptionKey": HIDDEN}
    for error in (None, ValueError(HIDDEN), RuntimeError(TOKEN)):
        rig.ready.raises = rig.other.raises = error
        for event in (ready(**private), other(14, **private), ready(CampaignID=HIDDEN), HIDDEN, [HIDDEN], {HIDDEN: 1}):
            for query in (f"token={TOKEN}", f"token={TOKEN}&token=x", "", f"token={TOKEN[:-1]}"):
                for method in ("POST", "GET"):
                    request = post(event, query=query, path=f"/{TOKEN}/x", method=method)
                    response = rig.handle(request)
                    shown += [response, response.body, dict(response.headers)]
    shown += rig.ready.events + rig.other.events
    shown += [rig.receiver.too_large()]
    assert logged.texts
    for text in (*logged.texts, *map(repr, shown), *map(str, shown)):
        assert HIDDEN not in text
        assert TOKEN not in text
    for nothing in (f"{TOKEN}\ud800", [TOKEN], TOKEN.encode()):
        with pytest.raises(ConfigurationError) as caught:
            rig.make(token=nothing)
        assert TOKEN not in f"{caught.value!r}"


def test_an_observer_is_told_of_every_post_and_changes_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, int]] = []

    def observe(outcome: EventOutcome) -> None:
        told.append((outcome.kind, outcome.status))
        raise LookupError(TOKEN)

    async def handle(receiver: AsyncListenerReceiver, request: Request) -> Response:
        return await receiver.handle(request)

    requests = [post(ready()), post(ready()), post(ready(), query="token=x"), post(b"{"), post({"EventTypeID": 7})]
    expected = [("taken", 200), ("duplicate", 200), ("forged", 401), ("unreadable", 400), ("ignored", 200)]
    sync = ListenerReceiver(lambda event: None, token=TOKEN, answer_within=PATIENCE, on_outcome=observe)
    assert [sync.handle(request).status for request in requests] == [status for _, status in expected]
    assert told == expected
    told.clear()
    twin = AsyncListenerReceiver(lambda event: None, token=TOKEN, answer_within=PATIENCE, on_outcome=observe)
    with asyncio.Runner() as runner:
        assert [runner.run(handle(twin, request)).status for request in requests] == [status for _, status in expected]
    assert told == expected
    assert "on_outcome raised LookupError" in caplog.text
    assert TOKEN not in caplog.text
    coroutine: Any = handle
    wrongs: list[Any] = [coroutine, 7]
    for wrong in wrongs:
        with pytest.raises(ConfigurationError, match="on_outcome"):
            ListenerReceiver(print, token=TOKEN, on_outcome=wrong)
