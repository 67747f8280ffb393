"""Hostile deliveries, each with what the table says about it.

What is expected is told from the value that was made, never from the SDK's own parser.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from optimove_conditional_execution import Request, sign
from optimove_conditional_execution.testing import notification

SECRET: Final = "a secret of the tests"
UID: Final = "5f0c-known-to-optimove"
MAX_BODY: Final = 8_192
NOW_MS: Final = round(time.time() * 1000)
LAST_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999."""

FIELDS: Final = ("timestamp", "conditional_execution_approval_deadline", "request_uid", "user")

JSON: SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from([10**400, -(10**30), 1e308, "", " ", "0", "1e3", "\x00", "null", "true", "\U0001f3b0" * 9]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.sampled_from(FIELDS), inner, max_size=3)
    ),
    max_leaves=8,
)


@dataclass(frozen=True)
class Expected:
    """What the table says.

    Attributes:
        status: The answer. None when the handler decides it.
        question: Whether it is a notification that can be asked about: signed, well-formed and in time.
        failed: Whether `on_failure` answers it: unreadable, but its name and deadline are there and it is in time.
    """

    status: int | None
    question: bool = False
    failed: bool = False


@dataclass(frozen=True)
class Hostile:
    """A delivery and what shall come of it."""

    request: Request
    expected: Expected


_WHITE_POINTS: Final = [
    *range(9, 14),
    32,
    0x85,
    0xA0,
    0x1680,
    *range(0x2000, 0x200B),
    0x2028,
    0x2029,
    0x202F,
    0x205F,
    0x3000,
]
_WHITE: Final = frozenset(map(chr, _WHITE_POINTS))


def is_name(value: object) -> bool:
    """Whether a value can name a customer or a question."""
    if isinstance(value, int) and not isinstance(value, bool):
        return len(str(value)) <= 1_024
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        return False
    return isinstance(value, str) and len(value) <= 1_024 and bool(set(value) - _WHITE)


def milliseconds(value: object) -> int | None:
    """Return the moment that a value stands for, or None when it stands for none."""
    if isinstance(value, str) and len(value) <= 20 and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= LAST_MS else None


def expected_of(payload: object) -> Expected:
    """Return what the table says about a signed JSON value."""
    if not isinstance(payload, dict):
        return Expected(400)
    user = payload.get("user")
    sent = milliseconds(payload.get("timestamp"))
    until = milliseconds(payload.get("conditional_execution_approval_deadline"))
    named = is_name(payload.get("request_uid"))
    if sent is None or until is None or not named or not isinstance(user, dict) or not is_name(user.get("user_id")):
        # A notification without a time stamp is taken to have been sent a moment ago, though not before 1970.
        return Expected(400, failed=named and until is not None and until > (sent or 0))
    return Expected(None, question=True) if until > sent else Expected(200)


def written(payload: object) -> bytes:
    """Return JSON text in ASCII."""
    return json.dumps(payload).encode()


# ---- a notification with something wrong in it

_MOMENTS: Final[list[Any]] = [0, 10**12, NOW_MS, LAST_MS, float(NOW_MS), str(NOW_MS), "0", str(LAST_MS)]
_NO_MOMENTS: Final[list[Any]] = [
    -1,
    LAST_MS + 1,
    10**30,
    1.5,
    1e300,
    True,
    None,
    "",
    "now",
    "-1",
    "1e3",
    [],
    {},
]
_NAMES: Final[list[Any]] = [
    "x",
    " x ",
    "C" * 1_024,
    "a\nb\x00c",
    "\U0001f3b0",
    "\u202e0",
    "' OR 1=1 --",
    "../../etc",
    7,
    -1,
    10**40,
]
_NO_NAMES: Final[list[Any]] = [
    "",
    " ",
    "\t\r\n",
    "\u2003",
    "C" * 1_025,
    "C\ud83d",
    10**1_024,
    7.0,
    1.5,
    True,
    None,
    [],
    ["C1"],
    {},
]
_ODD: Final[list[Any]] = [
    None,
    0,
    -1,
    1.5,
    "",
    "x",
    True,
    [],
    {},
    [None],
    [[]],
    {"": None},
    [{"a": [1]}],
    10**40,
    "\u0000",
    "\ud83d",
    {"\udfff": ["\ud83d"]},
]
_PLACES: Final[list[tuple[str, ...]]] = [
    ("is_hashed",),
    ("user", "is_visitor"),
    ("user", "personalization"),
    ("user", "personalization", "first_name"),
    ("occurrence",),
    ("occurrence", "date"),
    ("occurrence", "target_group"),
    ("occurrence", "tags"),
    ("occurrence", "action"),
    ("occurrence", "action", "promotions"),
    ("occurrence", "action", "channels"),
    ("trigger_context",),
    ("trigger_context", "events"),
    ("a field that nobody knows",),
    ("model_config",),
    ("sent_at",),
    ("__class__",),
    ("user", "model_extra"),
]
_MISSING: Final = object()

_CHANGES: SearchStrategy[tuple[tuple[str, ...], Any]] = st.one_of(
    st.tuples(
        st.sampled_from([("timestamp",), ("conditional_execution_approval_deadline",)]),
        st.sampled_from([*_MOMENTS, *_NO_MOMENTS, _MISSING]),
    ),
    st.tuples(st.just(("request_uid",)), st.sampled_from([*_NO_NAMES, _MISSING])),
    st.tuples(st.just(("user", "user_id")), st.sampled_from([*_NAMES, *_NO_NAMES, _MISSING]) | st.text(max_size=9)),
    st.tuples(st.just(("user",)), st.sampled_from([*_ODD, _MISSING])),
    st.tuples(st.sampled_from(_PLACES), st.sampled_from([*_ODD, _MISSING]) | JSON),
)


def _changed(payload: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *parents, last = path
    place: Any = payload
    for name in parents:
        place = place.get(name) if isinstance(place, dict) else None
    if isinstance(place, dict):
        if value is _MISSING:
            place.pop(last, None)
        else:
            place[last] = value


@st.composite
def altered(draw: DrawFn) -> Hostile:
    """A signed notification in which up to three fields are wrong, or merely odd."""
    payload = notification("C1", request_uid=UID, timestamp_ms=NOW_MS, timeout_ms=3_600_000)
    for path, value in draw(st.lists(_CHANGES, max_size=3)):
        _changed(payload, path, value if value is _MISSING else copy.deepcopy(value))
    mark = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return Hostile(signed(mark + written(payload), draw(signature_forms)), expected_of(payload))


# ---- headers

signature_forms: SearchStrategy[Callable[[str], list[tuple[str, str]]]] = st.sampled_from(
    [
        lambda digest: [("optimove-signature-content", digest)],
        lambda digest: [("Optimove-Signature-Content", digest.upper())],
        lambda digest: [("OPTIMOVE-SIGNATURE-CONTENT", f"sha256={digest}")],
        lambda digest: [("x-optimove-signature-content", f" {digest}\t")],
        lambda digest: [("optimove-signature-content", digest), ("X-Optimove-Signature-Content", digest)],
    ]
)
"""All the ways to write one right signature."""

_FORGERIES: Final[list[Callable[[str], list[tuple[str, str]]]]] = [
    lambda digest: [],
    lambda digest: [("optimove-signature-content", "")],
    lambda digest: [("optimove-signature-content", digest)] * 2,
    lambda digest: [("optimove-signature-content", f"{digest},{digest}")],
    lambda digest: [("optimove-signature-content", f"{digest} {digest}")],
    lambda digest: [("optimove-signature-content", digest), ("x-optimove-signature-content", "0" * 64)],
    lambda digest: [("optimove-signature-content", digest), ("x-optimove-signature-content", "")],
    lambda digest: [("optimove-signature-content", digest[:-1])],
    lambda digest: [("optimove-signature-content", digest[:32] + " " * 32)],
    lambda digest: [("optimove-signature-content", digest[::-1])],
    lambda digest: [("optimove-signature-content", digest[:-1] + chr(0xFF10 + int(digest[-1], 16) % 10))],
    lambda digest: [("optimove-signature-content", "\xe9" * 64)],
    lambda digest: [("optimove-signature-content", "\u0661" * 64)],
    lambda digest: [("optimove-signature-content", "\ud800" * 64)],
    lambda digest: [("optimove-signature-content", "\x00" + digest)],
    lambda digest: [("optimove-signature-content", f"sha256=sha256={digest}")],
    lambda digest: [("optimove-signature-content", f"sha1={digest}")],
    lambda digest: [("optimove-signature-content", f"0x{digest}")],
    lambda digest: [("optimove_signature_content", digest)],
    lambda digest: [("optimove-signature-content ", digest)],
    lambda digest: [("optimove-signature", digest)],
]

_HEADERS = st.lists(
    st.tuples(
        st.text(max_size=12) | st.sampled_from(["optimove-signature-content", "Content-Length", "Host", "\xe9", ""]),
        st.text(max_size=80) | st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    ),
    max_size=4,
)


def signed(body: bytes, form: Callable[[str], list[tuple[str, str]]] | None = None) -> Request:
    """Return a post with a right signature."""
    digest = sign(body, secret=SECRET)
    headers = [("optimove-signature-content", digest)] if form is None else form(digest)
    return Request("POST", "/", "", [("content-type", "application/json"), *headers], body)


@st.composite
def forged(draw: DrawFn) -> Hostile:
    """A notification that would be approved, if only its signature were right."""
    body = written(notification("C1", request_uid=UID, timestamp_ms=NOW_MS, timeout_ms=3_600_000))
    headers = draw(st.sampled_from(_FORGERIES))(sign(body, secret=SECRET))
    return Hostile(Request("POST", "/", "", headers, body), Expected(401))


@st.composite
def garbage(draw: DrawFn) -> Hostile:
    """Any method, headers and bytes, unsigned."""
    method = draw(
        st.sampled_from(["POST", "post", "GET", "PUT", "HEAD", "OPTIONS", "", "P\u00d6ST"]) | st.text(max_size=6)
    )
    body = draw(st.binary(max_size=200) | st.sampled_from([b"", b"x" * MAX_BODY, b"x" * (MAX_BODY + 1)]))
    request = Request(method, draw(st.text(max_size=9)), draw(st.text(max_size=9)), draw(_HEADERS), body)
    if method.upper() != "POST":
        return Hostile(request, Expected(405))
    return Hostile(request, Expected(413 if len(body) > MAX_BODY else 401))


# ---- signed, and yet no notification

OPEN_AND_SHUT: Final[dict[str, bytes]] = {
    "nothing": b"",
    "blank": b"  \r\n",
    "two byte order marks": b"\xef\xbb\xbf" * 2 + written(notification(request_uid=UID)),
    "a byte order mark alone": b"\xef\xbb\xbf",
    "NaN": written({**notification(request_uid=UID), "x": float("nan")}),
    "an infinity": written({**notification(request_uid=UID), "x": [float("-inf")]}),
    "UTF-16": json.dumps(notification(request_uid=UID)).encode("utf-16"),
    "Latin-1": json.dumps(notification("Jos\xe9", request_uid=UID), ensure_ascii=False).encode("latin-1"),
    "an overlong NUL": written(notification("@@", request_uid=UID)).replace(b"@@", b"\xc0\x80"),
    "a surrogate in bytes": written(notification("@@", request_uid=UID)).replace(b"@@", b"\xed\xa0\x80"),
    "a lone surrogate for a name": written(notification(request_uid="\ud800")),
    "a lone surrogate and deep lists": written(notification("\ud800", request_uid=UID))[:-1]
    + b',"x":'
    + b"[" * 3_000
    + b"]" * 3_000
    + b"}",
    "a name twice": written(notification(request_uid=UID)).replace(
        b'"request_uid"', b'"request_uid":"x","request_uid"'
    ),
    "deep lists": b"[" * 4_000 + b"]" * 4_000,
    "deep lists, open": b"[" * 8_000,
    "deep objects": b'{"user":' * 900 + b"1" + b"}" * 900,
    "deep in passing": written(notification(request_uid=UID))[:-1] + b',"x":' + b"[" * 3_000 + b"]" * 3_000 + b"}",
    "cut off": written(notification(request_uid=UID))[:-1],
    "twice": written(notification(request_uid=UID)) * 2,
    "a form": b"request_uid=1&user=2",
    "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "single quotes": str(notification(request_uid=UID)).encode(),
    "a comment": written(notification(request_uid=UID)) + b"// x",
    "a control character": written(notification("@", request_uid=UID)).replace(b"@", b"\x01"),
    "a huge number": b'{"timestamp":' + b"9" * 5_000 + b"}",
    "a huge exponent": b'{"timestamp":1e999999999}',
    "a pickle": b"\x80\x04\x95\x10\x00\x00\x00",
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "zeros": b"\x00" * 2_000,
}
"""Names what is unreadable however one looks at it; nothing of it can be answered, not even by `on_failure`."""


@st.composite
def no_notification(draw: DrawFn) -> Hostile:
    """Signed bytes, or signed JSON of any shape."""
    form = draw(signature_forms)
    if draw(st.booleans()):
        body = draw(st.binary(max_size=100) | st.sampled_from(sorted(OPEN_AND_SHUT.values())))
        return Hostile(signed(body, form), Expected(400))
    payload: Any = draw(JSON)
    return Hostile(signed(written(payload), form), expected_of(payload))


@st.composite
def doubled(draw: DrawFn) -> Hostile:
    """A notification in which a key comes twice: nobody can say which of the two is meant."""
    payload = notification("C1", request_uid=UID, timestamp_ms=NOW_MS, timeout_ms=3_600_000)
    first = draw(st.dictionaries(st.sampled_from(FIELDS), st.sampled_from([*_ODD, "C1", 0]), min_size=1))
    front, back = written(first)[1:-1], written(payload)[1:-1]
    body = b"{" + (front + b"," + back if draw(st.booleans()) else back + b"," + front) + b"}"
    return Hostile(signed(body, draw(signature_forms)), Expected(400))


deliveries: SearchStrategy[Hostile] = st.one_of(altered(), altered(), forged(), garbage(), no_notification(), doubled())
"""Everything, with altered notifications twice as often."""
