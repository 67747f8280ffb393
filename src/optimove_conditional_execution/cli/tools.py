"""`optimove-ce sign`, `verify`, `switch` and `schema`: tools that ask neither Optimove nor a service."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, Final

import click

from ..errors import ConfigurationError, SignatureError
from ..flows.switch import SwitchMode
from ..signature import sign, verify
from ..signature_diagnosis import UTF_16, diagnose, remarks, utf_16
from ..stores.postgres_schema import CLAIMS_SCHEMA, DECISIONS_SCHEMA, JOURNAL_SCHEMA
from ..switch import change_switch, read_switch
from .options import echo_result, given_secrets, json_option, printable

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


@click.command(epilog='\b\nExample:\n  optimove-ce switch /etc/gate/switch --deny --tag "Summer bonus"')
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--deny", "mode", flag_value="deny", help="Say no to everybody.")
@click.option("--abstain", "mode", flag_value="abstain", help="Say nothing about anybody, so nobody is approved.")
@click.option("--ask", "mode", flag_value="ask", help="Ask the handler or reviewer as usual.")
@click.option("--campaign", "campaigns", metavar="N", multiple=True, help="Only about this campaign; repeatable.")
@click.option("--tag", "tags", metavar="T", multiple=True, help="Only about the campaigns with this tag; repeatable.")
def switch(file: Path, mode: SwitchMode | None, campaigns: tuple[str, ...], tags: tuple[str, ...]) -> None:
    """Stop approvals, of everything or of some campaigns, without a deployment.

    FILE is the one that receivers and reviews have as `switch=`; they see it within about a second. Without --deny,
    --abstain or --ask, print what it says. What is stopped for a campaign or a tag stays so until --ask names it.
    """
    try:
        if mode is not None:
            state = change_switch(file, mode, campaigns=campaigns, tags=tags)
        elif campaigns or tags:
            raise click.UsageError("--campaign and --tag need --deny, --abstain or --ask.")
        else:
            state = read_switch(file)
    except OSError as error:
        raise ConfigurationError(f"The file {file} cannot be used: {error.strerror}.") from error
    for line in state.lines():
        click.echo(printable(line))


@click.command(epilog="\b\nExample:\n  optimove-ce schema | psql postgresql://owner@db.example.com/gate")
def schema() -> None:
    """Print the tables of PostgresClaims, PostgresJournal and PostgresDecisionLog, for a role that may make them.

    Where the gate's own role may create them, they are made at first use. Otherwise grant it SELECT, INSERT, UPDATE and
    DELETE on them. For a log that the gate itself cannot change, grant it no more than SELECT and INSERT on
    optimove_decision_log, and SELECT and UPDATE on optimove_decision_log_head.
    """
    click.echo(CLAIMS_SCHEMA + JOURNAL_SCHEMA + DECISIONS_SCHEMA, nl=False)
