"""`optimove-ce sign`, `verify`, `switch`, `schema` and `init`: tools that ask neither Optimove nor a service."""

from __future__ import annotations

import ast
import importlib.resources
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import BinaryIO, Final

import click

import optimove_conditional_execution as sdk  # its names are loaded when they are first used

from ..errors import ConfigurationError, SignatureError
from ..installation import DISTRIBUTION, requirement
from .options import echo_result, given_secrets, json_option, printable

_BODY: Final = click.argument("file", type=click.File("rb"), default="-")


@click.command("sign", epilog="\b\nExample:\n  optimove-ce sign notification.json")
@_BODY
@json_option
def sign_command(file: BinaryIO, as_json: bool) -> None:
    """Print the signature that Optimove would send with the bytes of FILE, or of standard input.

    The secret is read from OPTIMOVE_WEBHOOK_SECRET, else from a hidden prompt.
    """
    from ..signature_diagnosis import UTF_16, utf_16

    name, secret = given_secrets()[0]
    body = file.read()
    if utf_16(body) is not None:
        click.echo(f"Warning: the file is in UTF-16, which Optimove never sends. {UTF_16}", err=True)
    signature = sdk.sign(body, secret=secret)
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
    from ..signature_diagnosis import remarks

    secrets = given_secrets()
    body = file.read()
    try:
        index = sdk.verify(body, signature=signature, secrets=[secret for _, secret in secrets])
    except SignatureError:
        _refused(body, signature, secrets, as_json)
        raise click.exceptions.Exit(1) from None
    notes = remarks(signature)
    name = secrets[index][0]
    value = {"valid": True, "secret_variable": name, "secret_index": index, "remarks": notes}
    echo_result(value, "\n".join([f"The signature fits, with the secret of {name}.", *notes]), as_json=as_json)


def _refused(body: bytes, signature: str, secrets: list[tuple[str, bytes]], as_json: bool) -> None:
    from ..signature_diagnosis import diagnose

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
def switch(file: Path, mode: sdk.switch.SwitchMode | None, campaigns: tuple[str, ...], tags: tuple[str, ...]) -> None:
    """Stop approvals, of everything or of some campaigns, without a deployment.

    FILE is the one that receivers and reviews have as `switch=`; they see it within about a second. Without --deny,
    --abstain or --ask, print what it says. What is stopped for a campaign or a tag stays so until --ask names it.
    """
    try:
        if mode is not None:
            state = sdk.switch.change_switch(file, mode, campaigns=campaigns, tags=tags)
        elif campaigns or tags:
            raise click.UsageError("--campaign and --tag need --deny, --abstain or --ask.")
        else:
            state = sdk.switch.read_switch(file)
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
    from ..stores.postgres_schema import CLAIMS_SCHEMA, DECISIONS_SCHEMA, JOURNAL_SCHEMA

    click.echo(CLAIMS_SCHEMA + JOURNAL_SCHEMA + DECISIONS_SCHEMA, nl=False)


# ---- init: one of the examples as a project of its own, which runs against the simulator and has a test

REQUIREMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "fastapi": ("fastapi", "uvicorn"),
    "flask": ("flask", "gunicorn"),
    "django": ("django", "gunicorn"),
    "lambda": (),
    "script": (),
}
"""The requirements of a kind of project beside the SDK."""

_PACKAGE: Final = "optimove_conditional_execution"
_MORE: Final = {"lambda": ("lambda_local.py",)}

_PLACE: Final = """\
# The SDK, from where it was installed here. Elsewhere, name its wheel there, a file or a URL.
"""
_NO_PLACE: Final = """\
# If the SDK's wheel is on no index of yours, name the folder that holds it:
# --find-links wheels
"""
_INSTALLS: Final = re.compile(rf'pip install "{DISTRIBUTION}\[cli\]".*')
_TEMPLATES: Final = {
    "mypy.ini": "mypy.ini",
    "README.md": "README.md",
    ".env.example": "env.example",
    ".gitignore": "gitignore",
}
"""Files that each kind has, and what they are called in the package."""


@click.command(epilog="\b\nExamples:\n  optimove-ce init fastapi\n  optimove-ce init flask gate --json")
@click.argument("kind", type=click.Choice(list(REQUIREMENTS)))
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=".")
@click.option("--force", is_flag=True, help="Overwrite files that are there already; only those that it writes.")
@json_option
def init(kind: str, directory: Path, force: bool, as_json: bool) -> None:
    """Write a small project into DIRECTORY, the current one by default: a gate, its service, and its tests.

    It runs against the simulator as it is, and its tests pass. Put your register where it says "Replace this". A
    `script` needs no framework: Python's own web server serves it. Nothing is downloaded or installed.

    Exit status: 0 it is written, 2 files are there already, or could not be written.
    """
    files = project(kind)
    _write(files, directory, replace=force)
    commands = [
        "python -m pip install -r requirements.txt",
        "python -m pytest",
        _last_paragraph(files["gate.py"]),
    ]
    if directory.resolve() != Path.cwd():
        commands[0] = f"cd {shlex.quote(str(directory))} && {commands[0]}"
    wrote = [f"wrote {click.format_filename(directory / name)}" for name in files]
    lines = [*wrote, "\nNext: set up, test, rehearse.\n", *(f"  {click.format_filename(each)}" for each in commands)]
    value = {"kind": kind, "directory": str(directory), "files": list(files), "next": commands}
    echo_result(value, "\n".join(lines), as_json=as_json)


def project(kind: str) -> dict[str, str]:
    """Return the contents of a project's files, by name.

    Args:
        kind: One of `REQUIREMENTS`.
    """
    folder = _examples()
    example = f"{kind}_gate"
    sources = (f"{example}.py", f"test_{example}.py", *_MORE.get(kind, ()))
    files = {}
    for name in sources:
        # In its own folder it is the only gate.
        text = folder.joinpath(name).read_text("utf-8").replace(example, "gate")
        text = text.replace(f"package {DISTRIBUTION} ", f"package {shlex.quote(requirement())} ")
        files[name.replace(example, "gate")] = _INSTALLS.sub("pip install -r requirements.txt", text)
    needed = (requirement("cli"), *REQUIREMENTS[kind], "pytest")
    files["requirements.txt"] = (_PLACE if "@" in needed[0] else _NO_PLACE) + "".join(f"{name}\n" for name in needed)
    for name, template in _TEMPLATES.items():
        text = importlib.resources.files(_PACKAGE).joinpath("cli", "project", template).read_text("utf-8")
        files[name] = text.replace("{rehearsal}", _last_paragraph(files["gate.py"]))
    return files


def _examples() -> Traversable:
    """Return the folder of the examples: in the wheel below the package, in a clone beside it."""
    packaged = importlib.resources.files(_PACKAGE).joinpath("examples")
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "examples"


def _last_paragraph(source: str) -> str:
    """Return the command that an example's docstring ends with, in one line."""
    docstring = ast.get_docstring(ast.parse(source)) or ""
    return " ".join(docstring.rpartition("\n\n")[2].replace("\\\n", "").split())


def _write(files: Mapping[str, str], directory: Path, *, replace: bool) -> None:
    # A broken link exists, too.
    there = [name for name in files if (directory / name).exists() or (directory / name).is_symlink()]
    if there and not replace:
        raise ConfigurationError(
            f"Nothing was written, since these files are there already: {', '.join(there)}. "
            "Name another directory, or pass --force to overwrite these."
        )
    written: list[str] = []
    name = str(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            if replace:  # replace a link, and keep its target
                (directory / name).unlink(missing_ok=True)
            with (directory / name).open("x", encoding="utf-8", newline="\n") as file:
                file.write(content)
            written.append(name)
    except OSError as error:
        before = f"Written before that: {', '.join(written)}." if written else "Nothing was written."
        raise ConfigurationError(f"Cannot write {name}: {error.strerror or type(error).__name__}. {before}") from None
