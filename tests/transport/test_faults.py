"""Every fault, over every engine: one family of errors, in time, with the truth about what was sent."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import resource
import time
from collections import deque
from typing import Any

import pytest

from optimove_conditional_execution import (
    APIError,
    Approval,
    Deadline,
    DeadlineExceeded,
    OptimoveClient,
    OptimoveError,
    RateLimit,
    RateLimitError,
    Request,
    Response,
    RetryPolicy,
    ServerError,
    TransportError,
    UnexpectedResponseError,
    operations,
)
from optimove_conditional_execution.errors import was_processed
from optimove_conditional_execution.testing import Fault, FaultServer, faults
from tests.transport.engines import ENGINES, FEW, Caller

ONCE = RetryPolicy(attempts=1)
BUDGET = 0.3
LATENESS = 0.05
"""Seconds past the deadline; the issue's own limit."""

WEBHOOK = "https://gate.example/optimove"


@pytest.fixture(params=ENGINES)
def caller(request: pytest.FixtureRequest) -> Caller:
    """Every engine."""
    return Caller(request.param)


def create(client: Any) -> Any:
    return client.send(operations.create_webhook(WEBHOOK), deadline=Deadline.after(BUDGET))


def listed(client: Any) -> Any:
    return client.send(operations.get_webhooks(), deadline=Deadline.after(BUDGET))


@pytest.fixture(params=FEW)
def few_caller(request: pytest.FixtureRequest) -> Caller:
    """An engine of each kind, for what takes as long as a deadline."""
    return Caller(request.param)


@pytest.fixture(params=["sync httpx", "async httpx2", "async aiohttp"])
def some_caller(request: pytest.FixtureRequest) -> Caller:
    """One engine of each kind, for what takes seconds and is decided above them."""
    return Caller(request.param)


ENDS_BY_ITSELF: list[tuple[Fault, type[OptimoveError], set[bool | None]]] = [
    (faults.RESET_WHILE_UPLOADING, TransportError, {True, None}),
    (faults.RESET_AFTER_UPLOADING, TransportError, {True}),
    (faults.CLOSE_WITHOUT_ANSWER, TransportError, {True}),
    (faults.LOST_ANSWER, TransportError, {True}),
    (faults.TRUNCATED_BODY, TransportError, {True}),
    (faults.BAD_CHUNK, TransportError, {True}),
    (faults.GARBAGE, TransportError, {True}),
    (faults.long_header(), TransportError, {True}),
    (faults.HTML_502, ServerError, set()),
    (faults.unavailable(), ServerError, set()),
    (faults.JSON_STRING, UnexpectedResponseError, set()),
    (faults.EMPTY, UnexpectedResponseError, set()),
    (faults.redirect(), APIError, set()),
    (faults.redirect(status=302), APIError, set()),
    (faults.gzip_bomb(), UnexpectedResponseError, set()),
    (faults.BROKEN_GZIP, UnexpectedResponseError, set()),
    (faults.LATIN_1_JSON, UnexpectedResponseError, set()),
    (faults.endless_body(), UnexpectedResponseError, set()),
]

ENDS_WITH_THE_DEADLINE = [
    faults.HANG,
    faults.HANG_WHILE_UPLOADING,
    faults.drip_body(0.02),
    faults.drip_headers(0.02),
    faults.endless_continue(),
]


@pytest.mark.parametrize(("fault", "kind", "sent"), ENDS_BY_ITSELF, ids=lambda value: getattr(value, "name", ""))
def test_an_answer_that_is_none(
    caller: Caller, fault: Fault, kind: type[OptimoveError], sent: set[bool | None]
) -> None:
    with FaultServer([fault]) as server:
        (error,) = caller.call(server, lambda client: client.create_webhook(WEBHOOK), retry=ONCE)
        assert type(error) is kind, error
        assert {getattr(error, "request_sent", None)} <= sent or not sent
        assert [met.fault for met in server.met] == [fault.name]
        assert len(server.optimove.webhooks) == fault.handled
    assert server.optimove.api_key not in str(error) + repr(error)


@pytest.mark.parametrize("fault", ENDS_WITH_THE_DEADLINE, ids=lambda fault: fault.name)
def test_a_server_that_holds_a_call_holds_it_until_the_deadline_only(few_caller: Caller, fault: Fault) -> None:
    took: list[float] = []

    def timed(client: Any) -> Any:
        if few_caller.is_sync:
            begun = time.perf_counter()
            try:
                return create(client)
            finally:
                took.append(time.perf_counter() - begun)

        async def awaited() -> Any:
            begun = time.perf_counter()
            try:
                return await create(client)
            finally:
                took.append(time.perf_counter() - begun)

        return awaited()

    while not took or (min(took) > BUDGET + LATENESS and len(took) < 20):  # a busy machine can hold one of them up
        with FaultServer([None, fault]) as server:
            # The first call opens a connection, which the other finds open.
            results = few_caller.call(server, lambda client: client.get_webhooks(), timed, retry=ONCE)
        assert results[0] == []
        assert type(results[1]) is DeadlineExceeded, results
        assert results[1].request_sent in (True, None)
    assert BUDGET - 0.01 <= min(took) <= BUDGET + LATENESS


@pytest.mark.parametrize(
    "fault", [faults.HANG, faults.GARBAGE, faults.CLOSE_WITHOUT_ANSWER, faults.RESET_AFTER_UPLOADING]
)
def test_tls_that_does_not_come_about(few_caller: Caller, fault: Fault) -> None:
    def call(client: Any) -> Any:
        # What ends by itself has time to: a busy machine takes some for its part of TLS.
        deadline = Deadline.after(BUDGET if fault is faults.HANG else 30)
        return client.send(operations.create_webhook(WEBHOOK), deadline=deadline)

    took: list[float] = []
    while not took or (took[-1] > BUDGET + 2 and len(took) < 3):  # a busy machine can hold one of them up
        with FaultServer([fault]) as server:
            begun = time.perf_counter()
            (error,) = few_caller.call(server, call, retry=ONCE, base_url=server.https_url)
            took.append(time.perf_counter() - begun)  # making the client included
        assert type(error) is (DeadlineExceeded if fault is faults.HANG else TransportError)
        assert error.request_sent is False
    assert took[-1] <= BUDGET + 2, took


def test_a_body_is_read_up_to_eight_megabytes(few_caller: Caller) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with FaultServer(itertools.repeat(faults.endless_body())) as server:
        errors = few_caller.call(server, *[lambda client: client.get_webhooks()] * 3, retry=ONCE)
    assert [type(error) for error in errors] == [UnexpectedResponseError] * 3
    assert "longer than 8388608 bytes" in str(errors[0])
    assert len(errors[0].body) <= 2_048
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 100


class Window:
    """A server that takes so many requests in any window of time, as Optimove does, and turns the others away."""

    def __init__(self, many: int, *, says_when: bool, seconds: float = 1.0) -> None:
        self._many = many
        self._seconds = seconds
        self._says_when = says_when
        self._taken: deque[float] = deque()
        self.turned_away = 0

    def __call__(self, request: Request) -> Fault | None:
        now = time.monotonic()
        while self._taken and self._taken[0] <= now - self._seconds:
            self._taken.popleft()
        if len(self._taken) < self._many:
            self._taken.append(now)
            return None
        self.turned_away += 1
        return faults.rate_limited(self._taken[0] + self._seconds - now if self._says_when else None)


@pytest.mark.parametrize("says_when", [True, False], ids=["with Retry-After", "without"])
def test_a_storm_of_429_loses_nothing_and_costs_little(some_caller: Caller, *, says_when: bool) -> None:
    many, at_once, tries = 20, 60, []
    for _ in range(3):  # pauses are random, and a machine that stands still lets a wave come at once
        window = Window(many, says_when=says_when)
        with FaultServer(window) as server:
            results = some_caller.together(server, [lambda client: client.get_webhooks()] * at_once, rate_limit=None)
            assert results == [[]] * at_once
            assert window.turned_away, "this was no storm"
            # Of a wave that comes at once all but the first must come again; a slower wave needs less.
            tries.append((len(server.met) - at_once) / (at_once - many))
        if tries[-1] <= 1.3:
            return
    pytest.fail(f"requests for each that is needed: {tries}")


def test_a_client_that_keeps_the_limit_is_never_turned_away(some_caller: Caller) -> None:
    # Requests may be under way for a fifth of the window; on a busy machine they are for longer.
    for seconds in (1.0, 4.0, 16.0):
        window = Window(20, says_when=True, seconds=seconds)
        with FaultServer(window) as server:
            limit = RateLimit(20, per=seconds)
            results = some_caller.together(
                server, [lambda client: client.get_webhooks()] * 40, rate_limit=limit, timeout=60.0
            )
        assert results == [[]] * 40
        if window.turned_away == 0:
            break
    assert window.turned_away == 0


def test_an_approval_in_a_storm_comes_through_before_its_deadline(some_caller: Caller) -> None:
    def approve(number: int) -> Any:
        wanted = Approval(timestamp=1, request_uid=f"n{number}", approved=True)
        return lambda client: client.send_webhook_approval(wanted, deadline=Deadline.after(10))

    window = Window(20, says_when=False)
    with FaultServer(window) as server:
        results = some_caller.together(server, [approve(number) for number in range(50)])
        # The stand-in knows none of these notifications, and says so when it is asked.
        assert {type(error).__name__ for error in results} == {"NotFoundError"}
        assert window.turned_away


def test_three_times_unavailable_then_good(some_caller: Caller) -> None:
    with FaultServer([faults.unavailable()] * 3) as server:
        assert some_caller.call(server, lambda client: client.get_webhooks()) == [[]]
        assert [met.fault for met in server.met] == ["unavailable"] * 3 + [None]


def test_what_is_not_idempotent_is_not_repeated_after_an_unknown_outcome(caller: Caller) -> None:
    with FaultServer([faults.LOST_ANSWER]) as server:
        (error,) = caller.call(server, lambda client: client.create_webhook(WEBHOOK))
        assert type(error) is TransportError
        assert error.request_sent is True
        assert len(server.met) == 1
        assert list(server.optimove.webhooks.values()) == [WEBHOOK]


@pytest.mark.parametrize(
    ("first", "last", "unknown"),
    [
        (faults.LOST_ANSWER, Response(400), True),
        (faults.HTML_502, Response(400), True),
        (faults.rate_limited(0), Response(400), False),
        (None, Response(400), False),
        (None, Response(500), True),
        (None, Response(408), True),
        (None, Response(403, {"content-type": "text/html"}, b"<html></html>"), True),
    ],
)
def test_an_error_says_whether_an_earlier_try_may_have_been_processed(
    some_caller: Caller, first: Fault | None, last: Response, unknown: bool
) -> None:
    with FaultServer([first, faults.answer("last", last)] if first else [faults.answer("last", last)] * 9) as server:
        (error,) = some_caller.call(server, lambda client: client.get_webhooks())
        assert isinstance(error, APIError)
        assert error.status == last.status
        assert ("An earlier request may have reached Optimove: unknown." in str(error)) is error.earlier_unknown
        assert error.earlier_unknown is (unknown and len(server.met) > 1)
        assert was_processed(error) is (None if unknown else False)


def test_a_request_is_sent_once_where_one_try_is_allowed(caller: Caller) -> None:
    calls = {
        "GET": lambda client: client.get_webhooks(),
        "DELETE": lambda client: client.delete_webhook("6f9619ff"),
        "PUT": lambda client: client.update_webhook_settings(timeout_ms=7_000),
    }
    for method, call in calls.items():
        with FaultServer(lambda request: faults.LOST_ANSWER) as server:
            (error,) = caller.call(server, call, retry=ONCE)
            assert type(error) is TransportError
            assert error.request_sent is True
            assert [met.method for met in server.met] == [method]


def test_ensure_webhook_looks_before_it_creates_again(caller: Caller) -> None:
    chosen = iter([None, faults.LOST_ANSWER])
    with FaultServer(lambda request: next(chosen, None)) as server:
        (webhook,) = caller.call(server, lambda client: client.ensure_webhook(WEBHOOK))
        assert webhook.url == WEBHOOK
        assert [met.method for met in server.met] == ["GET", "POST", "GET"]
        assert len(server.optimove.webhooks) == 1


@pytest.mark.parametrize("moment", ["seconds", "date"])
def test_retry_after_is_honoured(some_caller: Caller, moment: str) -> None:
    asked = 0.6 if moment == "seconds" else dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2)
    with FaultServer([faults.rate_limited(asked)]) as server:
        begun = time.perf_counter()
        assert some_caller.call(server, lambda client: client.get_webhooks()) == [[]]
        assert time.perf_counter() - begun >= (0.6 if moment == "seconds" else 0.9)


def test_retry_after_is_never_waited_for_past_the_deadline(some_caller: Caller) -> None:
    with FaultServer([faults.rate_limited(60)]) as server:
        begun = time.perf_counter()
        (error,) = some_caller.call(server, listed)
        assert type(error) is RateLimitError
        assert error.retry_after == 60
        assert time.perf_counter() - begun < 30  # of the minute that it names


def test_a_connection_that_the_server_closed_is_not_used_again(caller: Caller) -> None:
    with FaultServer([faults.CLOSE_AFTER_ANSWER, None]) as server:
        assert caller.call(server, *[lambda client: client.get_webhooks()] * 2) == [[], []]
        assert server.connections == 2


def test_a_request_that_finds_no_place_in_time_says_so(some_caller: Caller) -> None:
    """The first one holds the only place; the others come later, and have less time."""

    with FaultServer(itertools.repeat(faults.HANG)) as server:

        def patient(client: Any) -> Any:
            return client.send(operations.get_webhooks(), deadline=Deadline.after(2.5))

        def later(client: Any) -> Any:
            if isinstance(client, OptimoveClient):
                while not server.met:
                    time.sleep(0.01)
                return listed(client)

            async def awaited() -> Any:
                while not server.met:
                    await asyncio.sleep(0.01)
                return await listed(client)

            return awaited()

        results = some_caller.together(server, [patient, later, later], retry=ONCE, max_connections=1)
        assert len(server.met) == 1
    assert [type(error) for error in results] == [DeadlineExceeded] * 3
    assert [error.request_sent for error in results[1:]] == [False, False]
    assert all("max_connections" in str(error) for error in results[1:])


def test_places_are_given_back_whatever_happens(few_caller: Caller) -> None:
    def listed_soon(client: Any) -> Any:
        return client.send(operations.get_webhooks(), deadline=Deadline.after(1.0))

    many = [faults.HANG, faults.GARBAGE, faults.HTML_502, faults.gzip_bomb(), faults.BAD_CHUNK]
    with FaultServer(many) as server:
        results = few_caller.call(server, *[listed_soon] * 6, retry=ONCE, max_connections=1)
    assert all(isinstance(error, OptimoveError) for error in results[:5]), results
    assert results[5] == []


def test_a_client_never_has_more_connections_than_places(caller: Caller) -> None:
    with FaultServer() as server:
        results = caller.together(
            server, [lambda client: client.get_webhooks()] * 50, max_connections=5, rate_limit=RateLimit(1_000, per=1)
        )
        assert results == [[]] * 50
        assert server.connections <= 5
