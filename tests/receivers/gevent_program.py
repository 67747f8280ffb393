"""A web server under gevent's monkey patch with a webhook and a listener: see test_gevent.py. Prints a JSON object."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402 - the patch comes first
import sys  # noqa: E402
import time  # noqa: E402
import urllib.error  # noqa: E402
import urllib.request  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402

from optimove_conditional_execution import (  # noqa: E402
    Deadline,
    ListenerReceiver,
    OptimoveClient,
    Outcome,
    Request,
    WebhookNotification,
    WebhookReceiver,
)
from optimove_conditional_execution.adapters.wsgi import WSGIApp  # noqa: E402
from optimove_conditional_execution.stores import SqliteClaims  # noqa: E402
from optimove_conditional_execution.testing import campaign_ready, listener_request, signed_request  # noqa: E402

TOKEN = "a-token-of-this-test"

native_thread = monkey.get_original("_thread", "get_ident")
MAIN_THREAD = native_thread()


def main(url: str, key: str, secret: str, claims: str, killed: str, *payloads: str) -> None:
    """Post all notifications at once, the first one twice, and an event; print what came of them.

    One more is handled by a greenlet that is killed, and then once more.
    """
    outcomes: list[Outcome] = []
    events: list[int | None] = []
    threads: set[int] = set()
    at_once = [0]
    beats = [0]

    def handler(notification: WebhookNotification, deadline: Deadline) -> bool:
        threads.add(native_thread())
        at_once.append(at_once[-1] + 1)
        time.sleep(0.5 if notification.user.user_id != "late" else 30)
        end = time.monotonic() + 30  # a busy machine may begin the next one later
        while max(at_once) < 4 and time.monotonic() < end:
            time.sleep(0.01)
        at_once.append(at_once[-1] - 1)
        return notification.user.user_id != "denied"

    def on_ready(event: Any) -> None:
        time.sleep(0.1)
        events.append(event.campaign_id)

    def beat() -> None:
        while True:
            gevent.sleep(0.01)
            beats[0] += 1

    with OptimoveClient(key, base_url=url, timezone="UTC") as client, SqliteClaims(claims) as store:
        receiver = WebhookReceiver(handler, client=client, secrets=secret, claims=store, on_outcome=outcomes.append)
        apps = {"/hook": WSGIApp(receiver), "/events": WSGIApp(ListenerReceiver(on_ready, token=TOKEN))}
        server = WSGIServer(
            ("127.0.0.1", 0), lambda environ, start: apps[environ["PATH_INFO"]](environ, start), log=None
        )
        server.start()

        def post(request: Request) -> int:
            posted = urllib.request.Request(
                f"http://127.0.0.1:{server.server_port}{request.path}?{request.query}",
                data=request.body,
                headers=dict(request.headers),
            )
            try:
                with urllib.request.urlopen(posted, timeout=60) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                return error.code

        gevent.spawn(beat)
        event = campaign_ready(timestamp="2026-01-01 10:00:00", clearance_required_by="2026-01-01 11:00:00")
        requests = [
            signed_request(payload.encode(), secret=secret, path="/hook") for payload in (*payloads, payloads[0])
        ]
        posting = [gevent.spawn(post, request) for request in requests]
        told: dict[str, Any] = {
            "event": post(listener_request(event, token=TOKEN, path="/events")),
            "statuses": [greenlet.get() for greenlet in posting],
            "kinds": sorted(outcome.kind for outcome in outcomes),
            "events": len(events),
            "most_at_once": max(at_once),
            "threads": len(threads - {MAIN_THREAD}),
            "beats": beats[0],
        }
        outcomes.clear()
        request = signed_request(killed.encode(), secret=secret)
        with gevent.Timeout(0.2, False):
            receiver.handle(request)
        told["again"] = receiver.handle(request).status
        told["killed"] = [outcome.kind for outcome in outcomes]
        server.stop()
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
