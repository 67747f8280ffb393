"""Flow of one listener event, from the request to the response. Both listener receivers run it.

A 200 means that the integrator's function returned, or is still running. If it raised, the event is not stored
anywhere: the response is 503, and a repeat is handed over again.

A file of its own, since a flow does no IO; `receivers.listener` adds threads and tasks.
"""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ..deadline import Deadline
from ..errors import PayloadError
from ..listener_token import ListenerToken
from ..messages import LOST_IN_CHUNKS, Request, Response, body_fault, is_lost_in_chunks, plain
from ..models.events import CAMPAIGN_READY, CampaignReadyEvent, ListenerEvent
from .effects import Ask, Flow, Overloaded

EventFunction = Callable[[Any], object]
EventKind = Literal[
    "taken", "running", "duplicate", "ignored", "forged", "unreadable", "overloaded", "failed", "cancelled"
]


@dataclass(frozen=True, slots=True)
class EventOutcome:
    """The outcome of one request to a listener; nothing in it is secret or personal.

    Attributes:
        kind: The kind of outcome, as one word. With 200: `taken`, `running` in the background, `duplicate`, `ignored`
            because nothing takes its type. Otherwise: `forged`, `unreadable`, `overloaded`, `failed`, `cancelled`.
        status: The HTTP status of the response.
        event: The event, if one could be parsed; its repr names type, time and campaign only.
        error: The error, in words that quote nothing.
    """

    kind: EventKind
    status: int
    event: ListenerEvent | None = None
    error: str | None = None


REMEMBERED_EVENTS: Final = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Handover:
    """An event that is being handed over.

    Attributes:
        key: The event's key.
        done: Resolved when the integrator's function ends: True when it returned, False when it raised.
    """

    key: str
    done: Future[bool] = field(default_factory=lambda: Future[bool]())


class EventDeduplicator:
    """Remembers recent events, so that a repeat is not handed over again. Thread-safe."""

    def __init__(self, *, capacity: int = REMEMBERED_EVENTS) -> None:
        """Remember at most `capacity` events; the oldest is dropped first."""
        self._capacity = capacity
        self.after_fork()
        self._known: OrderedDict[str, Handover | None] = OrderedDict()  # None: the function has returned

    def after_fork(self) -> None:
        """Replace the lock, in a forked child: a thread may hold it that the child does not have."""
        self._lock = threading.Lock()

    def begin(self, key: str) -> tuple[Handover | None, bool]:
        """Claim an event.

        Returns:
            The handover, and whether it is the caller's; (None, False) when the event was handed over before.
        """
        with self._lock:
            if key in self._known:
                return self._known[key], False
            handover = self._known[key] = Handover(key)
            if len(self._known) > self._capacity:
                self._known.popitem(last=False)
            return handover, True

    def end(self, handover: Handover, *, taken: bool) -> None:
        """Record the result of a handover; a failed event is forgotten, so that a repeat is handed over."""
        with self._lock:
            # It may have been dropped since, and have been received again.
            if self._known.get(handover.key) is handover:
                if taken:
                    self._known[handover.key] = None
                else:
                    del self._known[handover.key]
            first = not handover.done.done()
            if first:
                handover.done.set_result(taken)

    def __len__(self) -> int:
        """Return how many events are remembered."""
        with self._lock:
            return len(self._known)


Answer = tuple[Response, EventOutcome | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerContext:
    """The configuration and state that the flow needs.

    Attributes:
        token: The token that the URL, or a header, must hold.
        on_ready: The integrator's function for campaigns that wait for their clearance.
        on_event: The integrator's function for every other event, or None.
        start: Starts a function with an event, and ends the handover when it returns; raises `Overloaded`.
        wait: Waits for a future, at most a number of seconds.
        answer_within: Seconds.
        max_body: Bytes.
        deduplicator: The events handed over.
        log: Logs an outcome when the request is cancelled before it is answered.
    """

    token: ListenerToken = field(repr=False)
    on_ready: EventFunction
    on_event: EventFunction | None
    start: Callable[[EventFunction, ListenerEvent, Handover], None]
    wait: Callable[[Future[bool], float], Any]
    answer_within: float
    max_body: int
    deduplicator: EventDeduplicator
    log: Callable[[EventOutcome], None]


def answer_event(request: Request, context: ListenerContext, *, host: Deadline | None = None) -> Flow[Answer]:
    """Answer a request to a listener; the result is the response, and its outcome if there is one.

    Args:
        request: The request.
        context: The receiver's configuration and state.
        host: The deadline of a host that ends the call, such as AWS Lambda; None without one.
    """
    if request.method != "POST":
        return plain(405, "Only POST is answered here.", headers={"allow": "POST"}), None
    if len(request.body) > context.max_body:
        return event_too_large(context.max_body)
    if not context.token.matches(request):
        error = f"The {context.token.place} does not hold the token."
        return plain(401, "The token is missing or wrong."), EventOutcome("forged", 401, error=error)
    if is_lost_in_chunks(request):
        answer = plain(411, "The body is empty: send it with its length.")
        return answer, EventOutcome("unreadable", 411, error=LOST_IN_CHUNKS)
    try:
        event = read_event(request.body)
    except PayloadError as unreadable:
        error = (not unreadable.path and body_fault(request)) or str(unreadable)
        return plain(400, "The event cannot be understood."), EventOutcome("unreadable", 400, error=error)
    function = context.on_ready if isinstance(event, CampaignReadyEvent) else context.on_event
    if function is None:
        return plain(200), EventOutcome("ignored", 200, event)
    outcome = yield from _hand_over(event, function, context, host)
    return plain(outcome.status, "" if outcome.status == 200 else "The event was not taken."), outcome


def read_event(body: bytes) -> ListenerEvent:
    """Parse an event; type 5 is a `CampaignReadyEvent`.

    Raises:
        PayloadError: It cannot be understood.
    """
    event = ListenerEvent.from_json(body)
    return CampaignReadyEvent.from_json(body) if event.event_type_id == CAMPAIGN_READY else event


def event_too_large(max_body: int) -> Answer:
    """Return the response to a body that is too large, and its outcome."""
    error = f"The body is longer than {max_body} bytes."
    return plain(413, "The event is too long."), EventOutcome("unreadable", 413, error=error)


def _hand_over(
    event: ListenerEvent, function: EventFunction, context: ListenerContext, host: Deadline | None
) -> Flow[EventOutcome]:
    handover, ours = context.deduplicator.begin(_name(event))
    if handover is None:
        return EventOutcome("duplicate", 200, event)
    if ours:
        try:
            yield Ask(context.start, (function, event, handover))
        except BaseException as error:
            context.deduplicator.end(handover, taken=False)
            if not isinstance(error, Overloaded):
                raise
            return EventOutcome("overloaded", 503, event, "Too many events are being handed over.")
    # The integrator's code goes on whatever the result of this request.
    within = context.answer_within if host is None else min(context.answer_within, host.remaining())
    try:
        yield Ask(context.wait, (handover.done, within))
    except BaseException:
        context.log(
            EventOutcome("cancelled", 503, event, "The request was cancelled; the event is handed over all the same.")
        )
        raise
    if not handover.done.done():
        if host is not None and host.expired:
            # The function ends with the host, so the event is not stored anywhere.
            return EventOutcome("failed", 503, event, "The event was not taken before the host's deadline.")
        return EventOutcome("running" if ours else "duplicate", 200, event)
    if handover.done.result():
        return EventOutcome("taken" if ours else "duplicate", 200, event)
    return EventOutcome("failed" if ours else "duplicate", 503, event, "The event was not taken.")


def _name(event: ListenerEvent) -> str:
    """Return a key that identifies an event."""
    if isinstance(event, CampaignReadyEvent):
        return event.key
    if event.timestamp is None:
        return uuid.uuid4().hex  # a repeat cannot be told from a new event: rather twice than never
    # Other types can have several events of one campaign at one time, per channel or per customer.
    rest = json.dumps([event.campaign_id, event.timestamp_offset, event.model_extra], sort_keys=True, default=str)
    digest = hashlib.sha256(rest.encode()).hexdigest()
    return f"{event.event_type_id}:{event.timestamp.isoformat()}:{digest}"
