"""`optimove-ce sign` and `optimove-ce verify`: signatures for the shell."""

from __future__ import annotations

from dataclasses import asdict
from typing import BinaryIO, Final

import click

from ..errors import SignatureError
from ..signature import sign, verify
from ..signature_diagnosis import UTF_16, diagnose, remarks, utf_16
from .options import echo_result, given_secrets, json_option

_BODY: Final = click.argument("file", type=click.File("rb"), default="-")


@click.command("sign", epilog="\b\nExample:\n  optimove-ce sign notification.json")
@_BODY
@json_option
def sign_command(file: BinaryIO, as_json: bool) -> None:
    """Print the signature that Optimove would send with the bytes of FILE, or of standard input.

    The secret is read from OPTIMOVE_WEBHOOK_SECRET, else from a hidden prompt.
    """
    name, secret = given_secrets()[0]
    body = file.read()
    if utf_16(body) is not None:
        click.echo(f"Warning: the file is in UTF-16, which Optimove never sends. {UTF_16}", err=True)
    signature = sign(body, secret=secret)
    echo_result({"signature": signature, "secret_variable": name}, signature, as_json=as_json)


@click.command("verify", epilog="\b\nExample:\n  optimove-ce verify --signature c0fa1bc0...d6658e notification.json")
@_BODY
@click.option(
    "--signature", required=True, metavar="HEX", help="The value of the request's header optimove-signature-content."
)
@json_option
def verify_command(file: BinaryIO, signature: str, as_json: bool) -> None:
    """Check a signature of the bytes of FILE, or of standard input; say which mistake explains one that does not fit.

    The secret is read from OPTIMOVE_WEBHOOK_SECRET, else from a hidden prompt. While you rotate secrets, set the others
    as OPTIMOVE_WEBHOOK_SECRET_2, OPTIMOVE_WEBHOOK_SECRET_3 and so on: each is tried, and the one that fits is named.

    Exit status: 0 it fits, 1 it does not, 2 no secret, or no such file.
    """
    secrets = given_secrets()
    body = file.read()
    try:
        index = verify(body, signature=signature, secrets=[secret for _, secret in secrets])
    except SignatureError:
        _refused(body, signature, secrets, as_json)
        raise click.exceptions.Exit(1) from None
    notes = remarks(signature)
    name = secrets[index][0]
    value = {"valid": True, "secret_variable": name, "secret_index": index, "remarks": notes}
    echo_result(value, "\n".join([f"The signature fits, with the secret of {name}.", *notes]), as_json=as_json)


def _refused(body: bytes, signature: str, secrets: list[tuple[str, bytes]], as_json: bool) -> None:
    diagnosis = diagnose(body, signature=signature, secrets=[secret for _, secret in secrets])
    name = None if diagnosis.secret_index is None else secrets[diagnosis.secret_index][0]
    answer = {"valid": False, **asdict(diagnosis), "secret_variable": name}
    lines = [f"The signature does not fit ({diagnosis.mistake}).", diagnosis.explanation]
    if name is not None and len(secrets) > 1:
        lines.append(f"This was found with the secret of {name}.")
    echo_result(answer, "\n".join(lines), as_json=as_json)
