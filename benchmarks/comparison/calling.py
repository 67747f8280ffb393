"""One call to Optimove, RegisterEventListener, by clients that are built in different ways, with a timeout of 1 s."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from benchmarks.comparison.words import KEY, SECRET, Table, logged, word
from optimove_conditional_execution import OptimoveClient, RateLimit, Response
from optimove_conditional_execution.testing import FakeOptimove, FaultServer, faults
from optimove_conditional_execution.testing.fault_server import Faults

TIMEOUT: Final = 1.0
PATIENCE: Final = 4.0
LISTENER: Final = "https://your.host/listener"
BODY: Final = {"EventTypeID": 5, "ListenerURL": LISTENER}
RATE: Final = RateLimit(10, per=1.0)

Call = Callable[[], object]
Caller = Callable[[str], Call]
"""Sets a client up for a base URL, and returns what sends one call."""


def sdk(url: str) -> Call:
    client = OptimoveClient(KEY, base_url=url, timeout=TIMEOUT, rate_limit=RATE)
    return lambda: client.register_event_listener(LISTENER)


def by_hand(url: str) -> Call:
    client = httpx.Client(base_url=url, headers={"X-API-KEY": KEY}, timeout=TIMEOUT)
    return lambda: client.post("/General/RegisterEventListener", json=BODY).raise_for_status()


def optimove(url: str) -> Call:
    client: Any = importlib.import_module("optimove.client").Client(timeout=TIMEOUT, url=url)

    def call() -> object:
        if client.token is None:
            client.general.login("somebody", SECRET)
        return client.general.register_event_listener(5, LISTENER)

    return call


def dlt(url: str) -> Call:
    requests = importlib.import_module("dlt.sources.helpers.requests")
    session = requests.Client(request_timeout=TIMEOUT, raise_for_status=False).session
    rest = importlib.import_module("dlt.sources.helpers.rest_client").RESTClient(
        base_url=url, headers={"X-API-KEY": KEY}, session=session
    )
    return lambda: rest.post("General/RegisterEventListener", json=BODY).raise_for_status()


CALLERS: Final[Mapping[str, Caller]] = {"this SDK": sdk, "by hand": by_hand, "optimove 2.0.0": optimove, "dlt": dlt}


@dataclass(frozen=True)
class Ended:
    """How a call ended; as it stands, it has not.

    Attributes:
        seconds: How long it took.
        error: What it raised.
        ended: Whether it has ended.
    """

    seconds: float = PATIENCE
    error: BaseException | None = None
    ended: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether the caller has reason to believe that it worked."""
        return self.ended and self.error is None


class ReturnedFalse(Exception):  # noqa: N818 - how a client says no without an exception
    """The call returned False."""


def ended(call: Call) -> Ended:
    """Send a call in a thread that is left behind when it does not end."""
    results: queue.SimpleQueue[Ended] = queue.SimpleQueue()

    def run() -> None:
        began = time.monotonic()
        error: Exception | None = None
        try:
            if call() is False:
                error = ReturnedFalse()
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is how this client says no
            error = raised
        results.put(Ended(time.monotonic() - began, error, ended=True))

    threading.Thread(target=run, daemon=True).start()
    try:
        return results.get(timeout=PATIENCE)
    except queue.Empty:
        return Ended()


def after_login(given: Faults) -> Faults:
    """Let the old package log in, with the answer that its version of the API gives; then come the faults."""
    token = faults.answer("token", Response(200, {"content-type": "application/json"}, b'"a-token"'))
    left = iter(()) if callable(given) else iter(given)

    def fault(request: Any) -> faults.Fault | None:
        if request.path.endswith("/login"):
            return token
        found = given(request) if callable(given) else next(left, None)
        # It posts to /current/general with a token, which the stand-in for today's API does not take.
        old = request.path.startswith("/current/")
        return faults.answer("taken", Response(200)) if found is None and old else found

    return fault


def tried(caller: Caller, given: Faults = ()) -> Ended:
    with FaultServer(after_login(given), optimove=FakeOptimove(api_key=KEY)) as server:
        return ended(caller(server.url))


def seconds(caller: Caller, fault: faults.Fault) -> str:
    end = tried(caller, [fault])
    return f"{end.seconds:.0f} s" if end.ended else f"over {PATIENCE:.0f} s"


def key_only(caller: Caller) -> bool:
    with FaultServer(optimove=FakeOptimove(api_key=KEY)) as server:
        end = ended(caller(server.url))
        return end.succeeded and {met.path.lower() for met in server.met} == {"/general/registereventlistener"}


def retries(caller: Caller) -> bool:
    return tried(caller, [faults.unavailable()]).succeeded


def waits(caller: Caller) -> bool:
    times: list[float] = []

    def fault(_: object) -> faults.Fault | None:
        times.append(time.monotonic())
        return faults.rate_limited(1) if len(times) == 1 else None

    # The pause must fit into the time: the SDK's is for the whole call, the others count theirs for each wait.
    return tried(patient_sdk if caller is sdk else caller, fault).succeeded and times[1] - times[0] >= 0.95


def patient_sdk(url: str) -> Call:
    client = OptimoveClient(KEY, base_url=url, timeout=PATIENCE)
    return lambda: client.register_event_listener(LISTENER)


def raises(caller: Caller) -> bool:
    """Whether a server that stays down makes an exception, and nothing that looks like a value."""
    end = tried(caller, itertools.repeat(faults.unavailable()))
    return not end.succeeded and not isinstance(end.error, ReturnedFalse)


def takes_no_page(caller: Caller) -> bool:
    page = Response(200, {"content-type": "text/html"}, b"<html>Maintenance</html>")
    return not tried(caller, itertools.repeat(faults.answer("page", page))).succeeded


def takes_no_flood(caller: Caller) -> bool:
    flood = Response(200, {"content-type": "application/json"}, b'"' + b"x" * 20_000_000 + b'"')
    return not tried(caller, itertools.repeat(faults.answer("flood", flood))).succeeded


def keeps_pace(caller: Caller) -> bool:
    """Whether 15 calls stay under 10 a second."""
    times: list[float] = []

    def fault(_: object) -> faults.Fault | None:
        times.append(time.monotonic())
        return None

    with FaultServer(after_login(fault), optimove=FakeOptimove(api_key=KEY)) as server:
        call = caller(server.url)
        for _ in range(15):
            with contextlib.suppress(Exception):
                call()
    return times[10] - times[0] >= 0.95


def keeps_secrets(caller: Caller) -> bool:
    with logged() as texts:
        tried(caller)
        tried(caller, [faults.unavailable(400)])
    return not any(secret in text for text in texts for secret in (KEY, SECRET))


def calls_of(caller: Caller) -> str:
    """Count the calls of Conditional Execution that have a function of their own."""
    names = [name for name in dir(OptimoveClient) if name in KNOWN]
    if caller is sdk:
        return f"{len(names)} of {len(KNOWN)}"
    if caller is not optimove:
        return f"0 of {len(KNOWN)}"
    client: Any = importlib.import_module("optimove.client").Client()
    rooms = [client.general, client.customers, client.integrations, client.actions, client.model]
    return f"{sum(any(hasattr(room, name) for room in rooms) for name in KNOWN)} of {len(KNOWN)}"


KNOWN: Final = (
    "create_webhook",
    "get_webhooks",
    "get_webhook_by_id",
    "delete_webhook",
    "update_webhook_settings",
    "send_webhook_approval",
    "register_event_listener",
    "unregister_event_listener",
    "get_registered_event_listeners",
    "get_processed_campaign_customers",
    "update_customer_promotion_status",
)
"""The calls of Conditional Execution."""

PROBES: Final[Mapping[str, Callable[[Caller], bool | str]]] = {
    "has functions for calls of Conditional Execution": calls_of,
    "authenticates by API key alone": key_only,
    "ends when the answer's body drips, with a timeout of 1 s": lambda caller: seconds(caller, faults.drip_body(0.05)),
    "ends when its headers drip": lambda caller: seconds(caller, faults.drip_headers(0.05)),
    "ends when the server asks to come back in 60 s": lambda caller: seconds(caller, faults.rate_limited(60)),
    "tries again after a 503": retries,
    "tries again after a 429, not before `Retry-After`": waits,
    "raises when the server stays down": raises,
    "does not take a page of HTML for success": takes_no_page,
    "does not take in an answer of 20 MB": takes_no_flood,
    "keeps to a rate that is set, such as 10 calls a second": keeps_pace,
    "logs no key and no password, even at DEBUG": keeps_secrets,
}
"""What a client should do."""


def compare(names: list[str] | None = None) -> Table:
    """Send the call with every client, to every fault."""
    callers = {name: caller for name, caller in CALLERS.items() if names is None or name in names}
    with logged():
        cells = {feature: [word(probe(caller)) for caller in callers.values()] for feature, probe in PROBES.items()}
    return Table("A call to Optimove", list(callers), cells)
