"""Each common mistake is told apart, and nothing secret is said."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimove_conditional_execution import sign
from optimove_conditional_execution.signature_diagnosis import Mistake, diagnose, remarks
from optimove_conditional_execution.testing import notification

SECRET = b"correct horse battery staple"
BODY = json.dumps(notification("C-7", personalization={"name": "Zo\u00eb", "url": "a/b"}), ensure_ascii=False).encode()
VALUE = json.loads(BODY)


def mistake(body: bytes, signature: str, secret: bytes = SECRET) -> Mistake:
    return diagnose(body, signature=signature, secrets=[secret]).mistake


def signed(body: bytes, secret: bytes = SECRET) -> str:
    return sign(body, secret=secret)


@pytest.mark.parametrize(
    "received",
    [
        json.dumps(VALUE, separators=(",", ":"), ensure_ascii=False),
        json.dumps(VALUE, ensure_ascii=True),
        json.dumps(VALUE, indent=2),
        json.dumps(VALUE, indent=4, sort_keys=True),
        json.dumps(VALUE, sort_keys=True),
    ],
    ids=["compact", "ascii", "indented", "indented and sorted", "sorted"],
)
def test_json_that_was_written_again(received: str) -> None:
    found = diagnose(received.encode(), signature=signed(BODY), secrets=[SECRET])
    # Once the keys are sorted, their first order is lost: then nothing can be told.
    expected = "wrong-secret-or-changed-body" if list(json.loads(received)) != list(VALUE) else "reserialized-json"
    assert found.mistake == expected


@pytest.mark.parametrize(
    "original",
    [
        json.dumps(VALUE, separators=(",", ":")),
        json.dumps(VALUE, separators=(",", ":"), ensure_ascii=False),
        json.dumps(VALUE, separators=(",", ":")).replace("/", "\\/"),
        json.dumps(VALUE, indent=2),
        json.dumps(VALUE, sort_keys=True, separators=(",", ":")),
        json.dumps(VALUE, sort_keys=True),
    ],
    ids=["compact", "compact and no ascii", "slashes", "indented", "compact and sorted", "sorted"],
)
def test_json_in_whatever_form_it_was_signed(original: str) -> None:
    assert mistake(BODY, signed(original.encode())) == "reserialized-json"


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_line_break_at_the_end(ending: bytes) -> None:
    assert mistake(BODY + ending, signed(BODY)) == "trailing-newline"
    assert mistake(BODY, signed(BODY + ending)) == "trailing-newline"


def test_line_endings_inside() -> None:
    assert mistake(b"a\r\nb\r\n", signed(b"a\nb\n")) == "line-endings"
    assert mistake(b"a\nb\n", signed(b"a\r\nb\r\n")) == "line-endings"


def test_a_byte_order_mark() -> None:
    assert mistake(b"\xef\xbb\xbf" + BODY, signed(BODY)) == "byte-order-mark"
    assert mistake(BODY, signed(b"\xef\xbb\xbf" + BODY)) == "byte-order-mark"


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_signature_in_base64(encode: type[bytes]) -> None:
    digest = hmac.digest(SECRET, BODY, "sha256")
    assert mistake(BODY, encode(digest).decode()) == "base64-signature"
    assert mistake(BODY, encode(digest).decode().rstrip("=")) == "base64-signature"
    assert mistake(BODY, encode(digest.hex().encode()).decode()) == "base64-signature"


def test_a_part_of_the_signature() -> None:
    assert mistake(BODY, signed(BODY)[:32]) == "truncated-signature"
    assert mistake(BODY, signed(BODY)[:63].upper()) == "truncated-signature"
    assert mistake(BODY, signed(BODY)[:4]) == "malformed-signature"


def test_another_algorithm() -> None:
    assert mistake(BODY, hmac.new(SECRET, BODY, "sha1").hexdigest()) == "other-algorithm"
    assert mistake(BODY, hmac.new(SECRET, BODY, "sha512").hexdigest()) == "other-algorithm"
    assert mistake(BODY, hashlib.sha256(BODY).hexdigest()) == "other-algorithm"
    assert mistake(BODY, hmac.new(BODY, SECRET, "sha256").hexdigest()) == "other-algorithm"


@pytest.mark.parametrize("given", [SECRET + b"\n", b" " + SECRET, SECRET + b"\r\n", b'"' + SECRET + b'"'])
def test_white_space_around_the_secret(given: bytes) -> None:
    assert mistake(BODY, signed(BODY), given) == "secret-white-space"


def test_white_space_that_belonged_to_the_secret() -> None:
    assert mistake(BODY, signed(BODY, SECRET + b"\n")) == "secret-white-space"


def test_an_encoded_secret() -> None:
    assert mistake(BODY, signed(BODY), SECRET.hex().encode()) == "secret-hex-encoded"
    assert mistake(BODY, signed(BODY, SECRET.hex().encode())) == "secret-hex-encoded"
    assert mistake(BODY, signed(BODY), base64.b64encode(SECRET)) == "secret-base64-encoded"
    assert mistake(BODY, signed(BODY, base64.b64encode(SECRET))) == "secret-base64-encoded"
    binary = bytes(range(250, 256)) * 3
    assert mistake(BODY, signed(BODY, binary), base64.urlsafe_b64encode(binary)) == "secret-base64-encoded"


def test_what_no_mistake_explains() -> None:
    assert mistake(BODY, signed(BODY, b"another")) == "wrong-secret-or-changed-body"
    assert mistake(BODY + b"x", signed(BODY)) == "wrong-secret-or-changed-body"
    assert mistake(BODY, "") == "missing-signature"
    assert mistake(BODY, "not a signature") == "malformed-signature"
    assert mistake(BODY, f'"{signed(BODY)}"') == "malformed-signature"


def test_it_names_the_secret_that_it_was_found_with() -> None:
    found = diagnose(BODY + b"\n", signature=signed(BODY), secrets=[b"old", SECRET])
    assert (found.mistake, found.secret_index) == ("trailing-newline", 1)
    assert diagnose(BODY, signature=signed(BODY, b"another"), secrets=[b"old", SECRET]).secret_index is None


def test_remarks_on_a_signature_that_fits() -> None:
    assert remarks(signed(BODY)) == []
    assert "upper case" in remarks(signed(BODY).upper())[0]
    assert len(remarks(f" sha256={signed(BODY).upper()}")) == 3


@given(body=st.binary(max_size=200), signature=st.text(max_size=80), secret=st.binary(min_size=1, max_size=40))
def test_garbage_is_diagnosed_without_an_exception(body: bytes, signature: str, secret: bytes) -> None:
    found = diagnose(body, signature=signature, secrets=[secret])
    assert len(found.explanation) < 400


@pytest.mark.parametrize("body", [b"[" * 100_000, b"9" * 10_000, b'{"a": NaN}', b'"\\ud800"', b"\xff"])
def test_hostile_json_is_diagnosed_without_an_exception(body: bytes) -> None:
    assert mistake(body, "0" * 64) == "wrong-secret-or-changed-body"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("\ufeff{}", "secret-byte-order-mark"),
        ("\ufeff{}\n", "secret-byte-order-mark"),
        ("{}\u00a0", "secret-invisible-character"),
        ("\u200b{}", "secret-invisible-character"),
        ("\u201c{}\u201d", "secret-quotation-marks"),
        ("\u00ab{}\u00bb", "secret-quotation-marks"),
        ("`{}`", "secret-quotation-marks"),
        ("OPTIMOVE_WEBHOOK_SECRET={}", "secret-variable-name"),
        ('export OPTIMOVE_WEBHOOK_SECRET="{}"', "secret-variable-name"),
        ("{},an-older-one", "several-secrets"),
        ("an-older-one; {}", "several-secrets"),
    ],
)
def test_a_secret_that_was_copied_wrong(given: str, expected: str) -> None:
    found = diagnose(BODY, signature=signed(BODY), secrets=[given.format(SECRET.decode()).encode()])
    assert found.mistake == expected
    assert SECRET.decode() not in found.explanation


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ending", ["", "\r\n"])
def test_a_file_in_utf_16(encoding: str, ending: str) -> None:
    """What the > of Windows PowerShell writes."""
    body = (BODY.decode() + ending).encode(encoding)
    assert mistake(body, signed(BODY)) == "utf-16"
    found = diagnose(body, signature=signed(b"another"), secrets=[SECRET])
    assert (found.mistake, "PowerShell" in found.explanation) == ("utf-16", True)
