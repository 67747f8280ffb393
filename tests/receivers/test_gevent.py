"""Receivers under gevent's monkey patch, in a process and a web server of gevent's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from optimove_conditional_execution.testing import FaultServer, notification


def test_receivers_decide_at_the_same_time_and_in_time(tmp_path: Path) -> None:
    with FaultServer() as server:
        optimove = server.optimove
        asked = [notification(user, timeout_ms=60_000) for user in ("killed", "first", "second", "third", "denied")]
        asked.append(notification("late", timeout_ms=5_000))
        for payload in asked:
            optimove.expect(payload)
        settings: list[Any] = [server.url, optimove.api_key, optimove.secret, str(tmp_path / "claims.db")]
        payloads = [json.dumps(payload) for payload in asked]
        command = [sys.executable, "-m", "tests.receivers.gevent_program", *settings, *payloads]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
        results = [optimove.result(payload["request_uid"]) for payload in asked]
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    told = json.loads(ended.stdout)
    assert results[:5] == ["approved", "approved", "approved", "approved", "denied"]
    assert results[5] != "approved"
    assert told["statuses"] == [200] * 6
    assert told["kinds"] == ["approved", "approved", "approved", "denied", "duplicate", "late"]
    assert told["most_at_once"] >= 4, "one after the other"
    assert told["beats"] > 100, "other greenlets were held up"
    assert told["threads"] == 0, "the handler did not run where its connections are"
    assert (told["event"], told["events"]) == (200, 1)
    assert (told["killed"], told["again"]) == (["cancelled", "approved"], 200)
