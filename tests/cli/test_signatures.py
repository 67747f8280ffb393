"""`sign` and `verify` as real processes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from optimove_conditional_execution import sign
from optimove_conditional_execution.cli.app import program
from tests.cli.conftest import COMMAND, PATIENCE, Run, environment
from tests.conftest import PAYLOADS

VECTORS = json.loads((PAYLOADS / "signature-vectors.json").read_text())
SECRET = "a-secret-that-nobody-prints"
ONE = {"OPTIMOVE_WEBHOOK_SECRET": SECRET}


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["source"] for vector in VECTORS])
def test_the_vectors(vector: dict[str, str], optimove_ce: Run, tmp_path: Path) -> None:
    variables = {"OPTIMOVE_WEBHOOK_SECRET": vector["secret"]}
    body = vector["body"].encode()
    file = tmp_path / "body"
    file.write_bytes(body)

    assert optimove_ce("sign", body=body, variables=variables).stdout == vector["hex"] + "\n"
    assert optimove_ce("sign", str(file), variables=variables).stdout == vector["hex"] + "\n"
    verified = optimove_ce("verify", "--signature", vector["hex"], "-", body=body, variables=variables)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_json(optimove_ce: Run) -> None:
    signed = json.loads(optimove_ce("sign", "--json", body=b"x", variables=ONE).stdout)
    assert signed == {"signature": sign(b"x", secret=SECRET), "secret_variable": "OPTIMOVE_WEBHOOK_SECRET"}

    right = optimove_ce("verify", "--json", "--signature", signed["signature"].upper(), body=b"x", variables=ONE)
    assert right.returncode == 0
    answer = json.loads(right.stdout)
    assert (answer["valid"], answer["secret_index"], len(answer["remarks"])) == (True, 0, 1)

    wrong = optimove_ce("verify", "--json", "--signature", signed["signature"], body=b"x\n", variables=ONE)
    assert wrong.returncode == 1
    answer = json.loads(wrong.stdout)
    assert (answer["valid"], answer["mistake"]) == (False, "trailing-newline")


def test_the_secret_that_matched_is_named(optimove_ce: Run) -> None:
    variables = {
        "OPTIMOVE_WEBHOOK_SECRET": "first",
        "OPTIMOVE_WEBHOOK_SECRET_2": "second",
        "OPTIMOVE_WEBHOOK_SECRET_10": SECRET,
        "OPTIMOVE_WEBHOOK_SECRET_OLD": "unused",
    }
    done = optimove_ce("verify", "--json", "--signature", sign(b"x", secret=SECRET), body=b"x", variables=variables)
    assert json.loads(done.stdout)["secret_variable"] == "OPTIMOVE_WEBHOOK_SECRET_10"
    assert json.loads(done.stdout)["secret_index"] == 2


@pytest.mark.parametrize("as_json", [(), ("--json",)])
@pytest.mark.parametrize("body", [b"x", b"x\n", b"y", SECRET.encode()])
@pytest.mark.parametrize("secret", [SECRET, f" {SECRET}\n", SECRET.encode().hex()])
def test_verify_prints_neither_secret_nor_signature(as_json: tuple[str, ...], body: bytes, secret: str) -> None:
    signature = sign(b"x", secret=SECRET)
    variables = dict.fromkeys(name for name in os.environ if name.startswith("OPTIMOVE_WEBHOOK_SECRET"))
    done = CliRunner().invoke(
        program,
        ["verify", *as_json, "--signature", signature],
        input=body,
        env={**variables, "OPTIMOVE_WEBHOOK_SECRET": secret},
    )
    assert done.exit_code == (0 if (body, secret) == (b"x", SECRET) else 1)
    assert done.output
    for unsaid in (SECRET, SECRET.encode().hex(), signature, sign(body, secret=SECRET)):
        assert unsaid not in done.output


def test_what_is_missing_is_one_line_and_status_2(optimove_ce: Run) -> None:
    for arguments, variables, said in (
        (("sign",), {}, "OPTIMOVE_WEBHOOK_SECRET"),
        (("sign",), {"OPTIMOVE_WEBHOOK_SECRET": " "}, "OPTIMOVE_WEBHOOK_SECRET is empty or blank"),
        (("verify", "--signature", "0"), {}, "OPTIMOVE_WEBHOOK_SECRET"),
    ):
        done = optimove_ce(*arguments, variables=variables)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    for wrong in ("verify", "sign /no/such/file", "sign --secret x", "sign /"):
        done = optimove_ce(*wrong.split(), variables=ONE)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Traceback" not in done.stderr


def test_a_secret_can_be_typed_unseen(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"x")
    master, slave = pty.openpty()
    request.addfinalizer(lambda: os.close(master))
    process = subprocess.Popen(
        [*COMMAND, "sign", str(file)],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        # Without a terminal of its own the prompt is written to stderr, where this test can wait for it.
        start_new_session=True,
    )
    os.close(slave)
    with process:
        assert process.stderr is not None
        prompt = b""
        # The last blank is written when the terminal no longer echoes; what is typed earlier may be thrown away.
        while not prompt.endswith(b": ") and (piece := process.stderr.read(1)):
            prompt += piece
        os.write(master, f"{SECRET}\n".encode())
        out, rest = process.communicate(timeout=PATIENCE)
    assert out.decode() == sign(b"x", secret=SECRET) + "\n"
    assert SECRET.encode() not in prompt + rest


def test_the_entry_point() -> None:
    body = (PAYLOADS / "webhook-notification.json").read_bytes()
    code = "from optimove_conditional_execution.cli import main; main()"
    done = subprocess.run(
        [COMMAND[0], "-c", code, "sign"], input=body, capture_output=True, env=environment(**ONE), check=True
    )
    assert done.stdout.decode().strip() == sign(body, secret=SECRET)
