"""Signatures: the vectors, rotation, and each way to be wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimove_conditional_execution import ConfigurationError, Request, SignatureError, sign, verify
from optimove_conditional_execution.signature import received_signature
from tests.conftest import PAYLOADS

VECTORS: list[dict[str, str]] = json.loads((PAYLOADS / "signature-vectors.json").read_text())
SECRET, BODY, HEX = VECTORS[0]["secret"], VECTORS[0]["body"].encode(), VECTORS[0]["hex"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["source"])
def test_vectors(vector: dict[str, str]) -> None:
    body = vector["body"].encode()
    assert sign(body, secret=vector["secret"]) == vector["hex"]
    assert sign(body, secret=vector["secret"].encode()) == vector["hex"]
    assert verify(body, signature=vector["hex"], secrets=vector["secret"]) == 0
    assert verify(bytes(bytearray(body)), signature=vector["hex"].encode(), secrets=vector["secret"].encode()) == 0


@pytest.mark.parametrize(
    "form",
    [HEX.upper(), f"sha256={HEX}", f"SHA256={HEX}", f"  {HEX}\r\n", f"\tsha256={HEX.upper()} ", f" {HEX}".encode()],
)
def test_accepted_forms(form: str | bytes) -> None:
    assert verify(BODY, signature=form, secrets=SECRET) == 0


@pytest.mark.parametrize(
    "form",
    [
        None, "", " ", HEX[:-1], HEX[:32], HEX[:-2], HEX + "0", HEX + HEX, f"{HEX},{HEX}", f"{HEX} {HEX}",
        f"sha256= {HEX}",
        f"{HEX[:32]} {HEX[32:]}", f"{HEX[:31]} {HEX[31:-1]}", f"{HEX[:32]} {HEX[33:]}", "0x" + HEX[2:], f"sha1={HEX}",
        HEX.translate({ord(digit): 0xFF10 + int(digit) for digit in "0123456789"}), "\xe9" * 64, "\ud800" * 64,
        b"\xff" * 64, HEX[:-1] + "g", f"\xa0{HEX}", f"{HEX}\x00",
    ],
)  # fmt: skip
def test_refused_forms(form: str | bytes | None) -> None:
    with pytest.raises(SignatureError):
        verify(BODY, signature=form, secrets=SECRET)


def test_another_body_or_secret_is_refused() -> None:
    for body, secret in (
        (BODY + b"\n", SECRET),
        (BODY[:-1], SECRET),
        (b"", SECRET),
        (BODY, "abcdefG"),
        (BODY, "abcdefg "),
    ):
        with pytest.raises(SignatureError):
            verify(body, signature=HEX, secrets=secret)


def test_rotation_tells_which_secret_matched() -> None:
    secrets: list[str | bytes] = ["new", SECRET, b"older"]
    assert verify(BODY, signature=sign(BODY, secret="new"), secrets=secrets) == 0
    assert verify(BODY, signature=HEX, secrets=secrets) == 1
    assert verify(BODY, signature=sign(BODY, secret="older"), secrets=tuple(secrets)) == 2
    with pytest.raises(SignatureError):
        verify(BODY, signature=sign(BODY, secret="forgotten"), secrets=secrets)


@pytest.mark.parametrize("secret", ["", " ", "\n\t", b"", b"  ", "\u2003", None, 5, ["x"], "\ud800"])
def test_secrets_that_protect_nothing(secret: Any) -> None:
    with pytest.raises(ConfigurationError):
        sign(BODY, secret=secret)
    with pytest.raises(ConfigurationError):
        verify(BODY, signature=HEX, secrets=[SECRET, secret])
    if secret != ["x"]:
        with pytest.raises(ConfigurationError):
            verify(BODY, signature=HEX, secrets=secret)


def test_no_secret_at_all() -> None:
    nothings: list[Any] = [[], ()]
    for none in nothings:
        with pytest.raises(ConfigurationError, match="empty"):
            verify(BODY, signature=HEX, secrets=none)


def test_a_decoded_body_is_refused_with_the_reason() -> None:
    body: Any = "I love cupcakes"
    with pytest.raises(SignatureError, match="raw bytes"):
        verify(body, signature=HEX, secrets=SECRET)


def test_secrets_and_signatures_stay_out_of_errors() -> None:
    for form in (HEX, HEX[:40], "x" + HEX):
        with pytest.raises(SignatureError) as caught:
            verify(b"other", signature=form, secrets="top-secret")
        assert "top-secret" not in repr(caught.value)
        assert form not in repr(caught.value)


ANY_VALUE = st.none() | st.text() | st.binary() | st.integers() | st.lists(st.text(), max_size=2) | st.just(HEX)


@given(body=st.binary(), signature=ANY_VALUE)
def test_nothing_but_signature_error_leaves_verify(body: bytes, signature: Any) -> None:
    with pytest.raises(SignatureError):
        verify(body + b"!", signature=signature, secrets=SECRET)


@given(body=st.none() | st.text() | st.integers() | st.lists(st.integers()), signature=ANY_VALUE)
def test_bodies_that_are_no_bytes(body: Any, signature: Any) -> None:
    with pytest.raises(SignatureError):
        verify(body, signature=signature, secrets=SECRET)


@given(body=st.binary(), secret=st.text(min_size=1).filter(str.strip) | st.binary(min_size=1).filter(bytes.strip))
def test_what_is_signed_is_verified(body: bytes, secret: str | bytes) -> None:
    try:
        signature = sign(body, secret=secret)
    except ConfigurationError:
        assert isinstance(secret, str)  # lone surrogates have no UTF-8
        return
    assert len(signature) == 64
    assert signature == signature.lower()
    assert verify(body, signature=signature, secrets=[b"another", secret]) in (0, 1)


Headers = list[tuple[str, str]]


@pytest.mark.parametrize(
    "headers",
    [
        [("optimove-signature-content", HEX)],
        [("Optimove-Signature-Content", HEX)],
        [("X-OPTIMOVE-SIGNATURE-CONTENT", HEX)],
        [("optimove-signature-content", HEX), ("x-optimove-signature-content", f" {HEX}")],
    ],
)
def test_the_headers_that_are_read(headers: Headers) -> None:
    found = received_signature(Request("POST", headers=headers))
    assert found is not None
    assert found.strip() == HEX


@pytest.mark.parametrize(
    "headers",
    [
        [("optimove-signature-content", HEX)] * 2,
        [("x-optimove-signature-content", HEX)] * 2,
        [("optimove-signature-content", HEX), ("x-optimove-signature-content", HEX[::-1])],
        [("optimove-signature-content", HEX), ("OPTIMOVE-SIGNATURE-CONTENT", "")],
    ],
)
def test_signatures_that_came_twice(headers: Headers) -> None:
    with pytest.raises(SignatureError):
        received_signature(Request("POST", headers=headers))


def test_no_signature() -> None:
    assert received_signature(Request("POST", headers={"optimove-signature": HEX})) is None
