"""Models: the samples to the letter, strict where a decision needs it, lenient elsewhere, silent about people."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from optimove_conditional_execution import (
    Approval,
    Decision,
    PayloadError,
    TenantSettings,
    Webhook,
    WebhookNotification,
)
from optimove_conditional_execution.models import TriggerEvent
from optimove_conditional_execution.models.notification import read_notification
from optimove_conditional_execution.operations import send_webhook_approval
from optimove_conditional_execution.testing import notification
from tests.conftest import PAYLOADS

Sample = Callable[[str], bytes]

MODELS: dict[str, type[Any]] = {
    "webhook-notification.json": WebhookNotification,
    "webhook-approval.json": Approval,
    "create-webhook-response-201.json": Webhook,
    "webhook-settings-request.json": TenantSettings,
    "webhook-settings-response-200.json": TenantSettings,
}


@pytest.mark.parametrize("name", MODELS)
def test_samples_round_trip_to_the_letter(name: str, sample: Sample) -> None:
    model = MODELS[name].from_json(sample(name))
    written = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if name.startswith("webhook-settings"):
        assert written.pop("secret") == "**********"
        assert model.secret.get_secret_value() == "string"
        assert written == {"timeout": 5000}
    else:
        assert written == json.loads(sample(name))


def test_no_sample_of_the_triggered_half_is_forgotten() -> None:
    others = {
        "create-webhook-request.json",  # the wire test of create_webhook sends it
        "rate-limited-429.json",  # the client's tests answer it
        "signature-vectors.json",  # the signature's tests
        "listener-event-5.json",  # scheduled campaigns
        "update-customer-promotion-status-request.json",
    }
    assert {path.name for path in PAYLOADS.glob("*.json")} == set(MODELS) | others


def test_the_notification_sample_field_by_field(sample: Sample) -> None:
    read = WebhookNotification.from_json(sample("webhook-notification.json"))
    assert read.timestamp == 1234567890123
    assert read.conditional_execution_approval_deadline == 1234567890999
    assert read.sent_at == datetime(2009, 2, 13, 23, 31, 30, 123000, tzinfo=UTC)
    assert read.approval_deadline == datetime(2009, 2, 13, 23, 31, 30, 999000, tzinfo=UTC)
    assert (read.request_uid, read.is_hashed) == ("string", False)
    assert read.user.user_id == "string"
    assert read.user.is_visitor is False
    assert read.user.personalization == {"attribute_key1": "attribute_value1", "attribute_key2": "attribute_value2"}
    assert read.occurrence is not None
    assert read.occurrence.date == "YYYY-MM-DD"
    assert (read.occurrence.series_id, read.occurrence.occurrence_id) == ("string", "string")
    assert read.occurrence.target_group is not None
    assert (read.occurrence.target_group.id, read.occurrence.target_group.name) == (123, "string")
    assert (read.occurrence.notes, read.occurrence.tags) == ("string", ("string",))
    assert read.occurrence.communication_type == "triggered"
    action = read.occurrence.action
    assert action is not None
    assert (action.id, action.name, action.is_control) == (1, "string", False)
    assert [(promotion.name, promotion.code) for promotion in action.promotions] == [("string", "string")]
    (channel,) = action.channels
    assert (channel.id, channel.name, channel.brand_id) == (1, "string", "string")
    assert channel.template is not None
    assert (channel.template.id, channel.template.name) == (1, "string")
    assert read.trigger_context is not None
    assert (read.trigger_context.id, read.trigger_context.name) == (1, "string")
    (event,) = read.trigger_context.events
    assert (event.key, event.timestamp) == ("string", 1234567890)
    assert event.occurred_at == datetime(2009, 2, 13, 23, 31, 30, tzinfo=UTC)
    assert event.parameters == {"param_key1": "param_value1", "param_key2": "param_value2"}


def changed(path: str, value: object) -> dict[str, Any]:
    payload = notification(request_uid="r-1")
    *parents, last = path.split(".")
    target = payload
    for parent in parents:
        target = target[parent]
    target[last] = value
    return payload


def removed(path: str) -> dict[str, Any]:
    payload = notification(request_uid="r-1")
    *parents, last = path.split(".")
    target = payload
    for parent in parents:
        target = target[parent]
    del target[last]
    return payload


NEEDED = ["timestamp", "conditional_execution_approval_deadline", "request_uid", "user", "user.user_id"]
NOT_NEEDED = [
    "is_hashed", "user.is_visitor", "user.personalization", "occurrence", "occurrence.date", "occurrence.series_id",
    "occurrence.occurrence_id", "occurrence.target_group", "occurrence.target_group.id", "occurrence.notes",
    "occurrence.tags", "occurrence.communication_type", "occurrence.action", "occurrence.action.id",
    "occurrence.action.is_control", "occurrence.action.promotions", "occurrence.action.channels", "trigger_context",
    "trigger_context.id", "trigger_context.name", "trigger_context.events",
]  # fmt: skip


@pytest.mark.parametrize("path", NEEDED)
def test_what_a_decision_needs_must_be_there(path: str) -> None:
    for payload in (removed(path), changed(path, None), changed(path, []), changed(path, True)):
        with pytest.raises(PayloadError) as caught:
            WebhookNotification.from_json(json.dumps(payload))
        assert caught.value.path == path
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


@pytest.mark.parametrize("path", NOT_NEEDED)
def test_everything_else_may_be_missing_null_or_odd(path: str) -> None:
    WebhookNotification.from_json(json.dumps(removed(path)))
    WebhookNotification.from_json(json.dumps(changed(path, None)))
    odd = WebhookNotification.from_json(json.dumps(changed(path, [1, {"deep": [None]}])))
    # What is not understood is kept, so that nothing is lost and nothing is read as "empty".
    written: Any = odd.model_dump(mode="json", by_alias=True)
    for part in path.split("."):
        written = written[part]
    assert written == [1, {"deep": [None]}]


def test_null_collections_read_as_empty() -> None:
    payload = notification(request_uid="r-1")
    payload["user"]["personalization"] = None
    payload["occurrence"]["tags"] = None
    payload["occurrence"]["action"]["promotions"] = None
    payload["trigger_context"]["events"] = None
    read = WebhookNotification.from_json(json.dumps(payload))
    assert read.user.personalization == {}
    assert read.occurrence is not None
    assert read.occurrence.action is not None
    assert read.trigger_context is not None
    assert (read.occurrence.tags, read.occurrence.action.promotions, read.trigger_context.events) == ((), (), ())


@pytest.mark.parametrize(
    "stamp", ["", "x", "1.5", -1, 1.5, 1e300, 10**400, "9" * 5_000, 253_402_300_800_000, {"$numberLong": "1"}, False]
)
def test_unusable_time_stamps(stamp: object) -> None:
    for path in ("timestamp", "conditional_execution_approval_deadline"):
        with pytest.raises(PayloadError):
            WebhookNotification.from_json(json.dumps(changed(path, stamp)))


def test_a_time_stamp_may_be_digits_in_a_string() -> None:
    read = WebhookNotification.from_json(json.dumps(changed("timestamp", "1234567890123")))
    assert read.timestamp == 1234567890123


@pytest.mark.parametrize("value", ["", "  \t", 7.0, 7.5, True, 10**1_024, "x" * 1_025, "x\ud83d"])
@pytest.mark.parametrize("path", ["request_uid", "user.user_id"])
def test_ids_are_text_with_something_in_it_or_whole_numbers(path: str, value: object) -> None:
    with pytest.raises(PayloadError) as caught:
        WebhookNotification.from_json(json.dumps(changed(path, value)))
    assert caught.value.path == path


@pytest.mark.parametrize("body", [b"", b"nonsense", b"\xff\xfe", b"[]", b"1", b"null", b'"x"', b"[" * 100_000, b"{}"])
def test_bodies_that_are_no_notification(body: bytes) -> None:
    with pytest.raises(PayloadError):
        WebhookNotification.from_json(body)


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_garbage_raises_nothing_but_payload_error(body: bytes) -> None:
    with pytest.raises(PayloadError):
        WebhookNotification.from_json(body)


@pytest.mark.parametrize("uid", [777, -5, 0, 2**70, "777", "r-1"])
def test_an_approval_carries_the_request_uid_in_the_type_in_which_it_came(uid: int | str) -> None:
    read = WebhookNotification.from_json(json.dumps(changed("request_uid", uid)))
    assert read.request_uid == str(uid)
    assert json.loads(read.model_dump_json())["request_uid"] == uid
    approval = Approval(timestamp=1, request_uid=read.request_uid, approved=True)
    stored = Approval.from_json(approval.model_dump_json(by_alias=True))
    travelled = pickle.loads(pickle.dumps(copy.deepcopy(stored)))
    for each in (approval, stored, travelled):
        assert each.request_uid == str(uid)
        assert json.loads(send_webhook_approval(each).body or b"")["request_uid"] == uid


@pytest.mark.parametrize(
    ("path", "value", "became"),
    [
        ("timestamp", 1767225600123.0, 1767225600123),
        ("timestamp", "0001767225600123", 1767225600123),
        ("user.user_id", 12345, "12345"),
        ("user.user_id", -0.0, None),
        ("timestamp", "1767225600123.0", None),
        ("timestamp", " 1767225600123", None),
        ("timestamp", "1_767", None),
        ("timestamp", 1e400, None),
    ],
)
def test_numbers_where_text_was_printed(path: str, value: object, became: object) -> None:
    body = json.dumps(changed(path, value)).replace("Infinity", "1e400")
    if became is None:
        with pytest.raises(PayloadError):
            WebhookNotification.from_json(body)
    else:
        read: Any = WebhookNotification.from_json(body)
        for name in path.split("."):
            read = getattr(read, name)
        assert read == became


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity"])
@pytest.mark.parametrize("place", ["personalization", "extra"])
def test_nan_and_the_infinities_are_no_json(literal: bytes, place: str) -> None:
    body = json.dumps(notification(request_uid="r-1", changes={"extra": "@"}, personalization={"n": "@"})).encode()
    before = b'"extra": ' if place == "extra" else b'"n": '
    with pytest.raises(PayloadError, match="not JSON"):
        WebhookNotification.from_json(body.replace(before + b'"@"', before + literal))
    in_text = WebhookNotification.from_json(body.replace(b'"@"', b'"' + literal + b'"'))
    assert in_text.user.personalization["n"] == literal.decode()


def test_a_byte_order_mark_is_skipped_once() -> None:
    body = json.dumps(notification(request_uid="r-1")).encode()
    for text in (b"\xef\xbb\xbf" + body, "\ufeff" + body.decode()):
        assert WebhookNotification.from_json(text) == WebhookNotification.from_json(body)
    with pytest.raises(PayloadError):
        WebhookNotification.from_json(b"\xef\xbb\xbf" * 2 + body)


def test_half_a_surrogate_pair_is_kept_where_nothing_depends_on_it() -> None:
    payload = notification(request_uid="r-1", personalization={"name": "Jo\ud83d", "na\udfffme": 1})
    payload["occurrence"]["notes"] = "\ud83d"
    payload["occurrence"]["tags"] = ["a\ud83d", "b"]
    payload["trigger_context"]["events"][0]["parameters"] = {"x": ["\udc00"]}
    payload["unknown\ud83d"] = {"deep": "\ud83d"}
    read = WebhookNotification.from_json(json.dumps(payload))
    assert read.user.personalization == {"name": "Jo\ud83d", "na\\udfffme": 1}
    assert read.occurrence is not None
    assert (read.occurrence.notes, read.occurrence.tags) == ("\ud83d", ("a\ud83d", "b"))
    assert read.model_extra == {"unknown\\ud83d": {"deep": "\ud83d"}}
    text = read.model_dump_json(by_alias=True)
    assert text.isascii()
    assert WebhookNotification.from_json(text) == read
    assert json.loads(read.model_dump_json(indent=2)) == json.loads(text)


@pytest.mark.parametrize("path", ["request_uid", "user.user_id"])
def test_an_id_with_half_a_surrogate_pair_is_none_and_the_error_says_why(path: str) -> None:
    with pytest.raises(PayloadError, match="lone surrogate") as caught:
        WebhookNotification.from_json(json.dumps(changed(path, "Jo\ud83d")))
    assert caught.value.path == path
    assert str(caught.value).isprintable()


def test_additional_data_may_echo_half_a_surrogate_pair() -> None:
    data = {"name": "Jo\ud83d", "k\ud83d": [{"\udc00": "\udc00"}], "at": datetime(2026, 1, 1, tzinfo=UTC)}
    approval = Approval(timestamp=1, request_uid="r", approved=True, additional_data=data)
    assert approval.additional_data["name"] == "Jo\ud83d"
    assert Decision.approve(data).additional_data["at"] == "2026-01-01T00:00:00Z"
    body = send_webhook_approval(approval).body or b""
    assert body.isascii()
    assert json.loads(body)["additional_data"] == approval.additional_data
    assert Approval.from_json(approval.model_dump_json(by_alias=True)) == approval
    circle: dict[str, Any] = {"name": "\ud83d"}
    circle["self"] = circle
    for odd in (circle, {"name": "\ud83d", "x": float("nan")}, {"name": "\ud83d", "x": object()}):
        with pytest.raises(PayloadError):
            Decision.approve(odd)


PAYLOAD = notification(request_uid="r-1")


@pytest.mark.parametrize(
    "key", [*PAYLOAD, *(f"user.{key}" for key in PAYLOAD["user"]), "x", "user.x", "\u00e9", "user.\u00e9"]
)
@pytest.mark.parametrize("spelling", ["plain", "escaped", "spread"])
def test_a_key_that_stands_twice_is_unreadable(key: str, spelling: str) -> None:
    *parents, last = key.split(".")
    payload = copy.deepcopy(PAYLOAD)
    place = payload["user"] if parents else payload
    place.setdefault(last, 1)
    place["@"] = place[last]
    once = {**payload, "@": 1, "user": {**payload["user"], "@": 1}}
    assert read_notification(json.dumps(once).encode()).request_uid == "r-1"
    again = f"\\u{ord(last[-1]):04x}" if spelling == "escaped" else last[-1]
    for body in (
        json.dumps(payload).replace('"@"', f'"{last[:-1]}{again}"'),
        json.dumps(payload, separators=(",", ":"), ensure_ascii=False).replace('"@"', f'"{last[:-1]}{again}"'),
    ):
        spread = body.replace(":", " : ") if spelling == "spread" else body
        with pytest.raises(PayloadError, match="stands twice"):
            read_notification(spread.encode())


def test_a_key_that_stands_twice_further_in_is_no_matter() -> None:
    body = json.dumps(PAYLOAD).replace('"notes"', '"notes": 1, "notes"').replace('"name"', '"name": 1, "name"')
    assert read_notification(body.encode()) == WebhookNotification.from_json(json.dumps(PAYLOAD))
    words = {"a": '"user_id"', "timestamp": "request_uid", "user": "user", "q": "qq", "z": 1, "vh": "vh"}
    assert read_notification(json.dumps(notification(personalization=words)).encode()).user.personalization == words


@given(st.data())
def test_no_pair_of_equal_keys_is_overlooked(data: st.DataObject) -> None:
    payload: dict[str, Any] = copy.deepcopy(PAYLOAD)
    for path in data.draw(st.lists(st.sampled_from(NOT_NEEDED), max_size=3)):
        *parents, last = path.split(".")
        place: Any = payload
        for name in parents:
            place = place.get(name) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[last] = data.draw(st.none() | st.just({"timestamp": 1, "user_id": "x"}) | st.text(max_size=5))
    inside = data.draw(st.booleans())
    if inside and not isinstance(payload["user"], dict):
        inside = False
    place = payload["user"] if inside else payload
    items = [(key, value) for key, value in place.items()]
    items.insert(data.draw(st.integers(0, len(items))), data.draw(st.sampled_from(items)))
    text = "{" + ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in items) + "}"
    if inside:
        rest = [f"{json.dumps(key)}:{text if key == 'user' else json.dumps(value)}" for key, value in payload.items()]
        text = "{" + ",".join(rest) + "}"
    with pytest.raises(PayloadError):
        read_notification(text.encode())


def test_ids_stay_what_they_are() -> None:
    payload = notification(request_uid="r-1", user_id="0192837821")
    payload["occurrence"]["series_id"] = 12
    payload["occurrence"]["action"]["id"] = "007"
    payload["occurrence"]["action"]["channels"][0]["brand_id"] = None
    read = WebhookNotification.from_json(json.dumps(payload))
    assert read.user.user_id == "0192837821"
    assert read.occurrence is not None
    assert read.occurrence.action is not None
    assert (read.occurrence.series_id, read.occurrence.action.id) == (12, "007")
    assert read.occurrence.action.channels[0].brand_id is None


def test_unknown_fields_are_kept_at_every_depth() -> None:
    payload = notification(request_uid="r-1")
    payload["send_group"] = {"id": 5}
    payload["user"]["segment"] = ["a"]
    payload["occurrence"]["action"]["channels"][0]["template"]["version"] = 3
    read = WebhookNotification.from_json(json.dumps(payload))
    assert read.model_extra == {"send_group": {"id": 5}}
    assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == payload


@pytest.mark.parametrize(
    ("stamp", "moment"),
    [
        (1234567890, datetime(2009, 2, 13, 23, 31, 30, tzinfo=UTC)),
        (1234567890.5, datetime(2009, 2, 13, 23, 31, 30, 500000, tzinfo=UTC)),
        (1234567890123, datetime(2009, 2, 13, 23, 31, 30, 123000, tzinfo=UTC)),
        (None, None),
        ("1234567890", None),
        (True, None),
        (10**30, None),
        (float("inf"), None),
        (float("nan"), None),
    ],
)
def test_an_events_seconds_and_milliseconds_are_told_apart(stamp: object, moment: datetime | None) -> None:
    assert TriggerEvent.model_validate({"timestamp": stamp}).occurred_at == moment


def test_models_are_frozen() -> None:
    read = WebhookNotification.model_validate(notification())
    with pytest.raises(ValidationError):
        read.request_uid = "other"
    with pytest.raises(ValidationError):
        read.user.user_id = "other"


def test_wire_names_and_python_names_are_both_accepted() -> None:
    assert TenantSettings.model_validate({"timeout": 7}) == TenantSettings.model_validate({"timeout_ms": 7})
    assert TenantSettings.model_validate({"timeout": 7}).model_dump(by_alias=True)["timeout"] == 7
    assert TenantSettings.model_validate({"timeout": 7, "secret": None}).secret is None
    assert Webhook.model_validate({"id": 12, "url": "u"}).id == "12"


@pytest.mark.parametrize("approved", [1, "true", None, 0, "yes"])
def test_only_a_boolean_approves(approved: object) -> None:
    with pytest.raises(ValidationError):
        Approval.model_validate({"timestamp": 1, "request_uid": "r", "approved": approved})


def test_additional_data_must_have_a_json_form() -> None:
    for data in ({"x": object()}, {"x": float("nan")}, {"x": {1, object()}}):
        with pytest.raises(ValidationError):
            Approval(timestamp=1, request_uid="r", approved=True, additional_data=data)
    circle: dict[str, Any] = {}
    circle["self"] = circle
    with pytest.raises(ValidationError):
        Approval(timestamp=1, request_uid="r", approved=True, additional_data=circle)
    kept = Approval(
        timestamp=1, request_uid="r", approved=True, additional_data={"at": datetime(2026, 1, 1, tzinfo=UTC)}
    )
    assert kept.additional_data == {"at": "2026-01-01T00:00:00Z"}


def test_nothing_personal_in_a_repr_or_an_error() -> None:
    payload = notification(user_id="person-77", personalization={"email": "dana@example.com"}, request_uid="r-1")
    payload["surname"] = "Quinn-Extra"
    read = WebhookNotification.model_validate(payload)
    shown = repr(read) + str(read) + repr(read.user) + repr(read.occurrence) + repr(read.trigger_context)
    approval = Approval(timestamp=1, request_uid="r-1", approved=True, additional_data={"iban": "MT-IBAN"})
    shown += repr(approval) + str(approval)
    shown += repr(TenantSettings(timeout_ms=1, secret="s3cr3t"))  # type: ignore[arg-type]
    shown += repr(Webhook(id="1", url="https://u:pw-in-url@h/p?token=t0ken")) + repr(Webhook(id="1", url="http://["))
    payload["request_uid"] = {"leak": "dana@example.com"}
    with pytest.raises(PayloadError) as ours:
        WebhookNotification.from_json(json.dumps(payload))
    with pytest.raises(ValidationError) as pydantics:
        WebhookNotification.model_validate(payload)
    shown += str(ours.value) + repr(ours.value) + str(pydantics.value)
    for secret in ("person-77", "dana@", "Quinn", "IBAN", "s3cr3t", "t0ken", "pw-in-url"):
        assert secret not in shown
    assert "r-1" in shown
