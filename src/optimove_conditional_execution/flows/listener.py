"""What a listener answers to an event, and whether the event is handed over. Both receivers run this.

A 200 means that the event was taken, or that the integrator's function is still at it. An exception means that nothing
holds the event: the answer is 503, and a repeat is handed over again.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, final

from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.errors import PayloadError
from optimove_conditional_execution.flows.bodies import LOST_IN_CHUNKS, body_fault, is_lost_in_chunks
from optimove_conditional_execution.flows.effects import Ask, Flow, Overloaded
from optimove_conditional_execution.flows.handovers import Handover, Handovers
from optimove_conditional_execution.flows.token import Token
from optimove_conditional_execution.messages import Request, Response, plain
from optimove_conditional_execution.models.listener import CAMPAIGN_READY, CampaignReadyEvent, ListenerEvent

EventFunction = Callable[[Any], object]
EventKind = Literal[
    "taken", "running", "duplicate", "ignored", "forged", "unreadable", "overloaded", "failed", "cancelled"
]


@final
@dataclass(frozen=True, slots=True)
class Delivery:
    """What came of one request, for the log: nothing in it is secret or personal.

    Attributes:
        kind: In one word.
        status: The HTTP status of the answer.
        event: The event, if one could be read; its repr names type, time and campaign only.
        error: What went wrong, in words that quote nothing.
    """

    kind: EventKind
    status: int
    event: ListenerEvent | None = None
    error: str | None = None


Answer = tuple[Response, Delivery | None]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerDesk:
    """All that answering events needs.

    Attributes:
        token: What the URL, or a header, must hold.
        on_ready: The integrator's function of a campaign that waits for its clearance.
        on_event: The same for every other event, or None.
        start: Starts a function with an event, and ends the handover when it is done; raises `Overloaded`.
        wait: Waits for a future, so many seconds at most.
        answer_within: Seconds.
        max_body: Bytes.
        handovers: What has been handed over.
        log: Tells of a delivery whose request is cancelled before it is answered.
    """

    token: Token = field(repr=False)
    on_ready: EventFunction
    on_event: EventFunction | None
    start: Callable[[EventFunction, ListenerEvent, Handover], None]
    wait: Callable[[Future[bool], float], Any]
    answer_within: float
    max_body: int
    handovers: Handovers
    log: Callable[[Delivery], None]


def answer_event(request: Request, desk: ListenerDesk, *, host: Deadline | None = None) -> Flow[Answer]:
    """Answer a request that came to a listener; the result is the answer, and the record of it if it is one.

    Args:
        request: The request.
        desk: All that answering needs.
        host: When whatever runs us will end us; None if it does not.
    """
    if request.method != "POST":
        return plain(405, "Only POST is answered here.", headers={"allow": "POST"}), None
    if len(request.body) > desk.max_body:
        return event_too_large(desk.max_body)
    if not desk.token.opens(request):
        error = f"The {desk.token.place} does not hold the token."
        return plain(401, "The token is missing or wrong."), Delivery("forged", 401, error=error)
    if is_lost_in_chunks(request):
        answer = plain(411, "The body is empty: send it with its length.")
        return answer, Delivery("unreadable", 411, error=LOST_IN_CHUNKS)
    try:
        event = read_event(request.body)
    except PayloadError as unreadable:
        error = (not unreadable.path and body_fault(request)) or str(unreadable)
        return plain(400, "The event cannot be understood."), Delivery("unreadable", 400, error=error)
    function = desk.on_ready if isinstance(event, CampaignReadyEvent) else desk.on_event
    if function is None:
        return plain(200), Delivery("ignored", 200, event)
    delivery = yield from _handed_over(event, function, desk, host)
    return plain(delivery.status, "" if delivery.status == 200 else "The event was not taken."), delivery


def read_event(body: bytes) -> ListenerEvent:
    """Read an event; of type 5 it is a `CampaignReadyEvent`.

    Raises:
        PayloadError: It cannot be understood.
    """
    event = ListenerEvent.from_json(body)
    return CampaignReadyEvent.from_json(body) if event.event_type_id == CAMPAIGN_READY else event


def event_too_large(max_body: int) -> Answer:
    """Return the answer to a body that is longer than allowed, and the record of it."""
    error = f"The body is longer than {max_body} bytes."
    return plain(413, "The event is too long."), Delivery("unreadable", 413, error=error)


def _handed_over(
    event: ListenerEvent, function: EventFunction, desk: ListenerDesk, host: Deadline | None
) -> Flow[Delivery]:
    handover, ours = desk.handovers.begin(_name(event))
    if handover is None:
        return Delivery("duplicate", 200, event)
    if ours:
        try:
            yield Ask(desk.start, (function, event, handover))
        except BaseException as error:
            desk.handovers.end(handover, taken=False)
            if not isinstance(error, Overloaded):
                raise
            return Delivery("overloaded", 503, event, "Too many events are being handed over.")
    # The integrator's code goes on whatever becomes of this request.
    within = desk.answer_within if host is None else min(desk.answer_within, host.remaining())
    try:
        yield Ask(desk.wait, (handover.taken, within))
    except BaseException:
        desk.log(Delivery("cancelled", 503, event, "The request was cancelled; the event is handed over all the same."))
        raise
    if not handover.taken.done():
        if host is not None and host.expired:
            # The function ends with the host, so nothing holds the event.
            return Delivery("failed", 503, event, "The event was not taken before the host's deadline.")
        return Delivery("running" if ours else "duplicate", 200, event)
    if handover.taken.result():
        return Delivery("taken" if ours else "duplicate", 200, event)
    return Delivery("failed" if ours else "duplicate", 503, event, "The event was not taken.")


def _name(event: ListenerEvent) -> str:
    """Return what tells an event from all others."""
    if isinstance(event, CampaignReadyEvent):
        return event.key
    if event.timestamp is None:
        return uuid.uuid4().hex  # nothing tells a repeat from the next of its kind: rather twice than not at all
    # Other types tell several things of one campaign at one time, a channel or a customer each.
    rest = json.dumps([event.campaign_id, event.timestamp_offset, event.model_extra], sort_keys=True, default=str)
    digest = hashlib.sha256(rest.encode()).hexdigest()
    return f"{event.event_type_id}:{event.timestamp.isoformat()}:{digest}"
