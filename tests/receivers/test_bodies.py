"""Bodies that did not reach the receiver as they were sent: the record names that, and not another secret."""

from __future__ import annotations

import gzip
import json
import logging
from typing import Any

import pytest

from optimove_conditional_execution import UNSIGNED, Deadline, Request, WebhookNotification, sign
from optimove_conditional_execution.testing import notification
from tests.receivers.conftest import MakeRig, Rig


def yes(notification: WebhookNotification, deadline: Deadline) -> bool:
    return True


BODY = json.dumps(notification()).encode()
PACKED = gzip.compress(BODY)


def told(made: Rig, came: bytes, headers: dict[str, str], *, signed: bytes = BODY) -> str:
    """Post what came with the signature of what was signed; return what the record says, and the log with it."""
    signature = {"optimove-signature-content": sign(signed, secret=str(made.optimove.secret))}
    response = made.handle(Request("POST", "/", "", {**signature, **headers}, came))
    outcome = made.outcomes[-1]
    assert response.status == outcome.status
    assert outcome.error is not None
    return f"{outcome.kind} {outcome.status} {outcome.error}"


@pytest.mark.parametrize("headers", [{"Transfer-Encoding": "chunked"}, {"transfer-encoding": "gzip, chunked"}])
def test_chunks_that_were_dropped_are_no_forgery(
    rig: MakeRig, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    made = rig(yes)
    record = told(made, b"", headers)
    assert record.startswith("unreadable 411 The body is empty")
    for word in ("chunks", "Django", "WSGIApp", "gunicorn", "wsgi.input_terminated"):
        assert word in record
    assert "secret" not in record
    (line,) = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert "WSGIApp" in line
    assert told(rig(yes, secrets=UNSIGNED), b"", headers).startswith("unreadable 411")


@pytest.mark.parametrize(
    ("came", "headers", "said"),
    [
        (b"", {}, "The body is empty."),
        (b"", {"content-length": "0"}, "The body is empty."),
        (b"", {"content-length": str(len(BODY))}, f"The body is empty, though {len(BODY)} bytes were announced"),
        (BODY[:10], {"content-length": str(len(BODY))}, f"has only 10 of the {len(BODY)} bytes"),
        (BODY + b"  ", {"content-length": str(len(BODY))}, f"has {len(BODY) + 2} bytes, but {len(BODY)} were"),
        (PACKED, {"content-encoding": "gzip", "content-length": str(len(PACKED))}, "Content-Encoding (gzip)"),
        (PACKED, {"Content-Encoding": " BR "}, "Content-Encoding (br)"),
        (PACKED, {"content-encoding": "hush-hush"}, "Content-Encoding (an unusual one)"),
    ],
)
def test_what_the_headers_tell_is_told(rig: MakeRig, came: bytes, headers: dict[str, str], said: str) -> None:
    record = told(rig(yes), came, headers)
    assert record.startswith("forged 401")
    assert said in record
    assert "secret" not in record
    assert "hush-hush" not in record


def test_who_reads_bodies_before_is_named(rig: MakeRig) -> None:
    for came in (b"", BODY[:10]):
        assert "a middleware or the view has read it before" in told(rig(yes), came, {"content-length": "999"})


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"content-length": str(len(BODY) + 1)}, {"content-encoding": "identity"}, {"content-encoding": ""},
        {"content-length": "two"}, {"content-length": "-1"}, {"content-length": "9" * 5_000},
        {"content-length": "\xb2"}, {"transfer-encoding": "chunked"},
    ],
)  # fmt: skip
def test_headers_that_tell_nothing_leave_the_secret_to_be_looked_at(rig: MakeRig, headers: dict[str, str]) -> None:
    assert "secret" in told(rig(yes), BODY + b" ", headers)


def test_a_signature_that_fits_is_enough_whatever_the_headers_say(rig: MakeRig) -> None:
    for number, headers in enumerate(
        [{"content-length": "1"}, {"content-encoding": "gzip"}, {"content-length": "99999"}]
    ):
        made = rig(yes)
        payload = notification(request_uid=f"r-{number}")
        made.optimove.expect(payload)
        body = json.dumps(payload).encode()
        signature = {"optimove-signature-content": sign(body, secret=str(made.optimove.secret))}
        assert made.handle(Request("POST", "/", "", {**signature, **headers}, body)).status == 200
        assert made.outcome.kind == "approved"


def test_an_unsigned_one_that_cannot_be_read_is_told_alike(rig: MakeRig) -> None:
    headers: dict[str, Any] = {"content-encoding": "gzip"}
    assert told(rig(yes, secrets=UNSIGNED), PACKED, headers).startswith("unreadable 400 The request has a Content-Enc")


def test_a_missing_signature_is_told_beside_it(rig: MakeRig) -> None:
    for headers in ({}, {"content-length": "9"}):
        made = rig(yes)
        assert made.handle(Request("POST", "/", "", headers, b"")).status == 401
        assert "empty" in str(made.outcome.error)
        assert "signature-content is missing" in str(made.outcome.error)


@pytest.mark.parametrize("secrets", [{}, {"secrets": UNSIGNED}])
def test_a_field_that_cannot_be_read_is_named_whatever_the_headers_say(rig: MakeRig, secrets: dict[str, Any]) -> None:
    body = json.dumps(notification(changes={"request_uid": None})).encode()
    record = told(rig(yes, **secrets), body, {"content-encoding": "gzip"}, signed=body)
    assert record.startswith("unreadable 400")
    assert "request_uid" in record
